"""`tools/convert.py`: an autoencoder's file from one format to another."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from eqzoo.checkpoints.autoencoder import Source, Stored


def convert(
    source: str,
    destination: str,
    *,
    to: Literal['diffusers', 'ldm', 'eqzoo'],
    config: str | None = None,
    scale: float | None = None,
    overwrite: bool = False,
) -> None:
    """Convert an autoencoder's file, bit for bit, with its discriminator and averaged weights.

    Args:
        source: A checkpoint or weights file of any format, a diffusers folder, or taesd's two
            files as ENCODER,DECODER.
        destination: A file, or a folder for diffusers.
        to: The format to write.
        config: A config whose autoencoder it is, where the file does not say; its scale holds
            where the file states none.
        scale: The factor on the latents, 0.18215 for SD-VAE; replaces what is stated.
        overwrite: Replace what is at DESTINATION.
    """
    from eqzoo.checkpoints.autoencoder import complete, normalize, read_stored
    from eqzoo.checkpoints.write import check_destination, export
    from eqzoo.loading import autoencoder_config

    check_destination(Path(destination), to, overwrite=overwrite)
    where = _paths(source)
    stored = read_stored(where)
    told = 'by the config' if config else 'by the file' if stored.config else 'from shapes, norms with 32 groups'
    stored = complete(stored, source, autoencoder_config(config) if config else None)
    if scale is not None:
        normalize(stored, dict(scale=scale))
    unsaid = export(stored, destination, to=to, overwrite=overwrite)
    print('\n'.join([*_describe(stored, told, unsaid), '', *_opening(stored, destination, to)]))


def _paths(source: str) -> 'Source':
    return source.split(',') if ',' in source and not Path(source).exists() else source


def _describe(stored: 'Stored', told: str, unsaid: list[str]) -> list[str]:
    state = {key: value for key, value in stored.state.items() if not key.startswith('normalization.')}
    normalization = {key: [round(each, 6) for each in value.tolist()] for key, value in stored.normalization.items()}
    normalization = {key: value[0] if len(set(value)) == 1 else value for key, value in normalization.items()}
    lines = {
        'autoencoder': f'{stored.config["type"]}, told {told}',
        'parameters': f'{sum(value.numel() for value in state.values()):,}, {len(state)} tensors',
        'normalisation': ', '.join(f'{k} {v}' for k, v in normalization.items()) or 'not stated: raw latents',
        'weights': 'average, and the trained ones beside it' if stored.trained else 'as in the source, no average',
        'discriminator': 'included' if stored.discriminator else 'none in the source',
    }
    if stored.left_out:
        lines['left out'] = f'{len(stored.left_out)} tensors of {_groups(stored.left_out)}'
    lines |= {f'note {number}': note for number, note in enumerate(unsaid, start=1)}
    return [f'{name:<13}  {value}' for name, value in lines.items()]


def _groups(names: tuple[str, ...]) -> str:
    """Name tensors by their first two words, each once."""
    return ', '.join(dict.fromkeys('.'.join(name.split('.')[:2]) for name in names))


def _opening(stored: 'Stored', destination: str, to: str) -> list[str]:
    if to == 'diffusers':
        from eqzoo.checkpoints.diffusers import CLASSES

        name = CLASSES[stored.config['type'].rsplit('.', 1)[-1]]
        return [f'from diffusers import {name}', f'autoencoder = {name}.from_pretrained({destination!r})']
    return ['import eqzoo', f'autoencoder = eqzoo.load({destination!r})']
