"""Write autoencoders in the formats of eqzoo and other programs, and replace the normalisation in a file."""

import json
import pickle
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from eqzoo.checkpoints.autoencoder import AutoencoderFile, read_autoencoder, set_normalization, to_plain
from eqzoo.checkpoints.comfyui import to_comfyui
from eqzoo.checkpoints.config import published_normalizations
from eqzoo.checkpoints.diffusers import CARD, COMPANION, CONFIG, WEIGHTS, needs_normalization, to_config_json
from eqzoo.checkpoints.diffusers_classes import WRAPPER, with_batch_norm
from eqzoo.checkpoints.keys import to_ldm
from eqzoo.checkpoints.onnx import ONNX_FILES, write_onnx
from eqzoo.checkpoints.read import METADATA_KEY, check_finite, checkpoint_in, read_file
from eqzoo.files import replacing, sha256_of
from eqzoo.zoo import weights_files

_FILES = ('.ckpt', '.pth', '.pt', '.safetensors')
_ENDINGS = {'ldm': _FILES, 'eqzoo': _FILES, 'comfyui': ('.safetensors',)}
# the files in the folders of the other formats
_WRITTEN = {'diffusers': (CONFIG, WEIGHTS, COMPANION, CARD), 'onnx': ONNX_FILES}

FORMATS = ('diffusers', 'ldm', 'comfyui', 'onnx', 'eqzoo')
"""The values of `tools/convert.py --to`; diffusers and onnx are written as a folder, the others as a file."""

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
"""The values of `tools/convert.py --dtype`."""


def cast_weights(file: AutoencoderFile, dtype: str) -> None:
    """Give the weights of `file` a precision, in place; its normalisation keeps its own.

    Args:
        file: The autoencoder.
        dtype: One of `DTYPES`.

    Raises:
        ValueError: If weights are too large for it.
    """
    for state in filter(None, (file.state, file.trained, file.discriminator)):
        for name, value in state.items():
            # of FLUX.2, the batch norm is the normalisation
            if value.is_floating_point() and not name.startswith(('normalization.', 'bn.running_')):
                state[name] = value.to(DTYPES[dtype])
        check_finite(state, f'convert --dtype {dtype} (bf16 and fp32 hold larger numbers): the result')


def export(
    file: AutoencoderFile,
    destination: str | Path,
    *,
    to: str,
    overwrite: bool = False,
    latents: str | None = None,
    card: str | None = None,
) -> list[str]:
    """Write an autoencoder in a format; it takes its place only when it is whole.

    Args:
        file: With its config, as `complete_config` returns it.
        destination: A file, or a folder for diffusers and onnx.
        to: One of `FORMATS`.
        overwrite: Whether to replace an existing `destination`.
        latents: For comfyui, the diffusion model whose latents these are: see `to_comfyui`.
        card: For diffusers, the text of the model card.

    Returns:
        Notes about anything that the format cannot express.

    Raises:
        ValueError: If the destination exists or has another format's suffix, or the format
            cannot hold the autoencoder.
    """
    destination = Path(destination)
    check_destination(destination, to, overwrite=overwrite)
    write = {
        'diffusers': partial(_write_diffusers, card=card),
        'ldm': _write_ldm,
        'comfyui': partial(_write_comfyui, latents=latents, title=destination.stem),
        'onnx': _write_onnx,
        'eqzoo': _write_eqzoo,
    }[to]
    with replacing(destination) as temporary:
        return write(file, temporary, flat=destination.suffix == '.safetensors')


def check_destination(destination: Path, to: str, *, overwrite: bool, sources: Iterable[str | Path] = ()) -> None:
    """Refuse a destination that exists, has another format's suffix, or has foreign files or a source in it.

    Args:
        destination: A file, or a folder for diffusers and onnx.
        to: One of `FORMATS`.
        overwrite: Whether it may be replaced; of a folder, only what `export` writes there.
        sources: The files that are converted, which must not be replaced.

    Raises:
        ValueError: If so.
    """
    if destination.suffix not in _ENDINGS[to] if to in _ENDINGS else destination.suffix in _FILES:
        expected = f'a file ending in {", ".join(_ENDINGS[to])}' if to in _ENDINGS else 'a folder'
        raise ValueError(f'convert --to {to}: got {str(destination)!r}; expected {expected}; rename it.')
    if destination.exists() and not overwrite:
        raise ValueError(
            f'convert: {str(destination)!r} already exists; expected a new place; choose another or give --overwrite.'
        )
    for source in map(Path, sources):
        if destination.exists() and source.exists() and source.resolve().is_relative_to(destination.resolve()):
            raise ValueError(
                f'convert: {str(destination)!r} is or contains the source {str(source)!r}, which would be replaced; '
                'choose another destination.'
            )
    inside = {each.name for each in destination.iterdir()} if destination.is_dir() else set()
    others = sorted(inside - set(_WRITTEN.get(to, ())))
    if others:
        raise ValueError(
            f'convert --overwrite: the folder {str(destination)!r} also holds {", ".join(others[:3])}, which no '
            'conversion wrote and which would be lost; move it away, or choose another destination.'
        )


def write_normalization(path: str | Path, shift: Tensor, scale: Tensor) -> None:
    """Replace the normalisation `(z - shift) * scale` stored in a file, in place.

    Args:
        path: A training checkpoint, whose optimizers and averages stay; or an output of
            `tools/convert.py`, also a diffusers folder.
        shift: (C,), raw units.
        scale: (C,).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another project's file, which has no place for a normalisation, or a folder with other
            files.
    """
    path = checkpoint_in(Path(path))
    kind = writable_format(path)
    if kind == 'checkpoint':
        _rewrite_checkpoint(path, shift, scale)
        return
    file = read_autoencoder(path)
    set_normalization(file, dict(shift=shift.tolist(), scale=scale.tolist()))
    card = path / CARD
    export(file, path, to=kind, overwrite=True, card=card.read_text() if card.is_file() else None)


def writable_format(path: str | Path) -> str:
    """Return the format of a file of eqzoo: 'checkpoint' for a training checkpoint, or one of `FORMATS`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If eqzoo did not write it, or it is a pair of files.
    """
    if len(weights_files(path)) > 1:
        raise ValueError(
            f'latent statistics: two files, {str(path)!r}, have no place for them; expected one; join them first: '
            'python tools/convert.py ENCODER,DECODER DST --to eqzoo.'
        )
    path = checkpoint_in(Path(path))
    if path.is_dir() and (path / COMPANION).is_file():
        check_destination(path, 'diffusers', overwrite=True)
        return 'diffusers'
    content, notes = ({}, {}) if path.is_dir() else read_file(path)
    if isinstance(content.get('state_dict'), dict) and 'autoencoder' in content:
        return 'checkpoint'
    if 'config' in (notes or content.get('eqzoo', {})) and notes.get('format') != 'comfyui':
        return 'eqzoo' if any(key.startswith('autoencoder.') for key in content) else 'ldm'
    raise ValueError(
        f'latent statistics: {str(path)!r} has no place for them; expected a checkpoint of eqzoo or an output of '
        'tools/convert.py for eqzoo, LDM or diffusers; convert it first: python tools/convert.py SRC DST --to eqzoo.'
    )


def _rewrite_checkpoint(path: Path, shift: Tensor, scale: Tensor) -> None:
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:  # `read_file` reads past such objects, and writing would lose them
        raise ValueError(
            f'latent statistics: {str(path)!r} holds objects that are no tensors and numbers; expected a checkpoint of '
            'eqzoo; convert it first: python tools/convert.py SRC DST --to eqzoo.'
        ) from error
    if 'generator' in content:
        raise ValueError(
            f'latent statistics: {str(path)!r} is of joint training: its generator makes latents in the normalisation '
            'that it has; expected the file of an autoencoder; export it first: python tools/convert.py SRC DST --to '
            'eqzoo.'
        )
    for state, prefix in ((content['state_dict'], 'autoencoder.'), (content.get('ema_state_dict', {}), '')):
        if state:
            state[f'{prefix}normalization.shift'] = shift.clone()
            state[f'{prefix}normalization.scale'] = scale.clone()
    with replacing(path) as temporary:
        _save_torch(content, temporary)


def _write_eqzoo(file: AutoencoderFile, path: Path, *, flat: bool) -> list[str]:
    """Write a training checkpoint of eqzoo without the optimizers' state.

    safetensors are `flat`: there, the average is under `ema_state_dict.`.
    """
    trained = file.trained or file.state
    state = {
        **_under('autoencoder', trained),
        **_under('adversarial_loss.discriminator', file.discriminator),
        **({} if file.log_variance is None else {'reconstruction_loss.log_variance': file.log_variance}),
    }
    average = file.state if file.trained else {}
    if flat:
        _save_flat({**state, **_under('ema_state_dict', average)}, path, _notes(file))
        return []
    more = dict(diffusers_fields=file.diffusers_fields)
    content = dict(state_dict=_own(state), autoencoder=file.config, eqzoo=more)
    _save_torch(content | (dict(ema_state_dict=_own(average)) if average else {}), path)
    return []


def _write_ldm(file: AutoencoderFile, path: Path, *, flat: bool) -> list[str]:
    """Write LDM's layout (taming's for VQ, taesd's numbers for tiny ones), and eqzoo's own entries beside it.

    The plain names hold the average where there is one, since other programs load those. Of safetensors,
    strict programs expect every name: eqzoo's entries are in the metadata, which has no place for the
    trained weights beside an average.
    """
    if file.config['type'] == WRAPPER:
        raise ValueError(
            f"convert --to ldm: LDM's code has no network like diffusers' {file.config['class_name']}; expected eqzoo "
            'or diffusers; use --to diffusers.'
        )
    discriminator = {key.removeprefix('network.'): value for key, value in file.discriminator.items()}
    state = {
        **to_ldm(file.network),
        **_under('loss.discriminator', discriminator),
        **({} if file.log_variance is None else {'loss.logvar': file.log_variance}),
    }
    unsaid = []
    if flat:
        _save_flat(state, path, {**_notes(file), 'normalization': to_plain(file.normalization)})
        if file.trained:
            unsaid.append(
                "LDM's layout in .safetensors has no place for the trained weights beside their average: they are left "
                'out; .ckpt and --to eqzoo have one'
            )
    else:
        more = dict(normalization=_own(file.normalization), trained=_own(file.trained or {}))
        _save_torch(dict(state_dict=_own(state), eqzoo={**_notes(file), **more}), path)
    padding = file.config.get('padding_mode', 'zeros')
    if padding != 'zeros':
        unsaid.append(f"LDM's code pads with zeros, not by {padding!r}: outputs differ there")
    if file.config.get('quantizer'):
        unsaid.append(f"taming's code has no quantizer {file.config['quantizer']['type']}: it cannot load this file")
    return unsaid


def _write_comfyui(file: AutoencoderFile, path: Path, *, flat: bool, latents: str | None, title: str) -> list[str]:
    """Write one file of safetensors with the weights only, for ComfyUI and A1111.

    Raises:
        ValueError: If they have no such network.
    """
    state, metadata, unsaid = to_comfyui(file.config, file.network, file.normalization, latents)
    metadata |= {'modelspec.title': title} if metadata else {}
    notes = {**_notes(file), 'normalization': to_plain(file.normalization), 'format': 'comfyui'}
    _save_flat(state, path, notes, metadata)
    return unsaid


def _write_onnx(file: AutoencoderFile, folder: Path, *, flat: bool) -> list[str]:
    folder.mkdir()
    return write_onnx(file, folder)


def _write_diffusers(file: AutoencoderFile, folder: Path, *, flat: bool, card: str | None) -> list[str]:
    """Write a folder that diffusers opens with the same outputs.

    Raises:
        ValueError: If diffusers has no such network, or would assume a scale that the source
            does not state.
    """
    fields, unsaid = to_config_json(file.config, file.normalization, file.diffusers_fields)
    name = fields['_class_name']
    if not file.normalization and needs_normalization(name):
        problem = 'diffusers would assume 0.18215' if name == 'AutoencoderKL' else f"diffusers' {name} has to state one"
        published = published_normalizations(file.config)
        raise ValueError(
            f'convert --to diffusers: the source states no scale of its latents, and {problem}; expected a stated one; '
            'give --scale FLOAT, or --config CONFIG of an autoencoder that has it'
            f'{" (of this network: " + ", ".join(published) + ")" if published else ""}, and --shift FLOAT if there is '
            'one; --scale 1 leaves latents raw.'
        )
    folder.mkdir()
    if card is not None:
        (folder / CARD).write_text(card, encoding='utf-8')
    (folder / CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + '\n')
    # FLUX.2 has its normalisation among its weights
    save_file(_own(with_batch_norm(file.network, file.normalization)), folder / WEIGHTS, metadata={'format': 'pt'})
    more = {
        **_under('normalization', file.normalization),
        **_under('trained', file.trained or {}),
        **_under('discriminator', file.discriminator),
        **({} if file.log_variance is None else {'log_variance': file.log_variance}),
    }
    notes = {**_notes(file), 'sha256': sha256_of(folder / CONFIG, folder / WEIGHTS)}
    _save_flat(more, folder / COMPANION, notes)
    return unsaid


def _notes(file: AutoencoderFile) -> dict[str, Any]:
    return dict(config=file.config, diffusers_fields=file.diffusers_fields)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f'{prefix}.{key}': value for key, value in state.items()}


def _own(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor its own memory: torch saves the whole storage of a view, safetensors refuses a shared one."""
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}


def _save_torch(content: Mapping[str, Any], path: Path) -> None:
    with path.open('wb') as file:  # by its path torch would store the temporary name, and lose the system's error
        torch.save(content, file)


def _save_flat(
    state: Mapping[str, Tensor], path: Path, notes: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    save_file(_own(state), path, metadata={'format': 'pt', METADATA_KEY: json.dumps(notes), **(metadata or {})})
