"""Give a file another normalisation of its latents, in place, and leave all else in it as it is."""

from pathlib import Path

import torch
from torch import Tensor

from eqzoo.autoencoders.export import TORCH_SUFFIXES, export, replacing
from eqzoo.autoencoders.files import read_file
from eqzoo.autoencoders.loading import normalize
from eqzoo.autoencoders.stored import read_stored


def write_normalization(path: str | Path, shift: Tensor, scale: Tensor) -> None:
    """Write the normalisation `(z - shift) * scale` into a file that can hold it.

    Args:
        path: A training checkpoint, whose optimizers and averages stay; or what
            `tools/convert.py` wrote, a diffusers folder too.
        shift: (C,), raw units.
        scale: (C,).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another project's file, which has no place for a normalisation.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == 'checkpoint':
        _rewrite_checkpoint(path, shift, scale)
        return
    stored = read_stored(path)
    normalize(stored, dict(shift=shift.tolist(), scale=scale.tolist()))
    export(stored, path, to=kind, overwrite=True)


def kind_of(path: str | Path) -> str:
    """Return 'checkpoint' for a torch file in eqzoo's layout, or the format of `tools/convert.py` that `path` has.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If eqzoo did not write it.
    """
    path = Path(path)
    if path.is_dir() and (path / 'eqzoo.safetensors').is_file():
        return 'diffusers'
    content, notes = ({}, {}) if path.is_dir() else read_file(path)
    if path.suffix in TORCH_SUFFIXES and 'autoencoder' in content:
        return 'checkpoint'
    if 'config' in (notes or content.get('eqzoo', {})):
        return 'eqzoo' if any(key.startswith('autoencoder.') for key in content) else 'ldm'
    raise ValueError(
        f'latent statistics: {str(path)!r} has no place for them; accepted are checkpoints of eqzoo and what '
        'tools/convert.py wrote; convert it first: python tools/convert.py SRC DST --to eqzoo.'
    )


def _rewrite_checkpoint(path: Path, shift: Tensor, scale: Tensor) -> None:
    content, _ = read_file(path)
    for state, prefix in ((content['state_dict'], 'autoencoder.'), (content.get('ema_state_dict', {}), '')):
        if state:
            state[f'{prefix}normalization.shift'] = shift.clone()
            state[f'{prefix}normalization.scale'] = scale.clone()
    with replacing(path) as temporary:
        torch.save(content, temporary)
