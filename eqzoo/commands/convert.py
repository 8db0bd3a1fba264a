"""`tools/convert.py`: convert an autoencoder's file from one format to another."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eqzoo.registry.ranges import PositiveFloat
from eqzoo.text import printable

if TYPE_CHECKING:
    from eqzoo.checkpoints.autoencoder import AutoencoderFile


def convert(
    source: str,
    destination: str,
    *,
    to: Literal['diffusers', 'ldm', 'eqzoo'],
    config: str | None = None,
    scale: PositiveFloat | None = None,
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
        overwrite: Replace the file, or what an earlier conversion wrote to the folder, at DESTINATION.
    """
    from eqzoo.checkpoints.autoencoder import complete_config, read_autoencoder, set_normalization
    from eqzoo.checkpoints.write import check_destination, export
    from eqzoo.loading import autoencoder_config
    from eqzoo.zoo.download import weights_files

    check_destination(Path(destination), to, overwrite=overwrite, sources=weights_files(source))
    file = read_autoencoder(source)
    origin = 'from the config' if config else 'from the file' if file.config else 'from shapes, norms with 32 groups'
    complete_config(file, source, autoencoder_config(config) if config else None)
    if scale is not None:
        set_normalization(file, dict(scale=scale))
    notes = export(file, destination, to=to, overwrite=overwrite)
    print(printable('\n'.join([*_describe(file, origin, notes), '', *_opening(file, destination, to)]), lines=True))


def _describe(file: 'AutoencoderFile', origin: str, notes: list[str]) -> list[str]:
    normalization = {key: [round(each, 6) for each in value.tolist()] for key, value in file.normalization.items()}
    normalization = {key: value[0] if len(set(value)) == 1 else value for key, value in normalization.items()}
    lines = {
        'autoencoder': f'{file.config["type"]}, {origin}',
        'parameters': f'{sum(value.numel() for value in file.network.values()):,}, {len(file.network)} tensors',
        'normalisation': ', '.join(f'{k} {v}' for k, v in normalization.items()) or 'not stated: raw latents',
        'weights': 'average, and the trained ones beside it' if file.trained else 'as in the source, no average',
        'discriminator': 'included' if file.discriminator else 'none in the source',
    }
    if file.left_out:
        lines['left out'] = file.left_out_in_words
    lines |= {f'note {number}': note for number, note in enumerate(notes, start=1)}
    return [f'{name:<13}  {value}' for name, value in lines.items()]


def _opening(file: 'AutoencoderFile', destination: str, to: str) -> list[str]:
    if to == 'diffusers':
        from eqzoo.checkpoints.diffusers import opening_lines

        return opening_lines(file.config, destination)
    return ['import eqzoo', f'autoencoder = eqzoo.load({destination!r})']
