"""A diffusers folder: config.json, its weights, and eqzoo's file beside them."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from eqzoo.autoencoders.arguments import plain_config
from eqzoo.autoencoders.diffusers_config import from_diffusers
from eqzoo.autoencoders.files import read_file
from eqzoo.autoencoders.keys import to_diffusers
from eqzoo.autoencoders.nests import below, unnest
from eqzoo.autoencoders.normalization import LatentNormalization
from eqzoo.zoo import digest

CONFIG = 'config.json'
WEIGHTS = 'diffusion_pytorch_model.safetensors'
COMPANION = 'eqzoo.safetensors'

_WEIGHTS = (WEIGHTS, 'diffusion_pytorch_model.fp16.safetensors', 'diffusion_pytorch_model.bin')


def read_folder(folder: Path) -> dict[str, Any]:
    """Return the fields of `Stored` that a diffusers folder gives.

    `eqzoo.safetensors`, where eqzoo wrote one, has what diffusers has no place for, and the
    normalisation's exact numbers.

    Raises:
        FileNotFoundError: If the folder has no config.json or no weights.
        ValueError: If eqzoo has no such network, or a file cannot be read, or
            `eqzoo.safetensors` was written for other files than the folder's.
    """
    fields = _read_json(folder / CONFIG)
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f'weights: the folder {str(folder)!r} has no weights; accepted are {", ".join(_WEIGHTS)}; fetch one.'
        )
    config, normalization, kept = from_diffusers(fields, str(folder / CONFIG))
    state = to_diffusers(unnest(read_file(file)[0])[0])
    if (folder / COMPANION).is_file():
        return _with_companion(folder, state, digest(folder / CONFIG, file))
    buffers = LatentNormalization(config['latent_channels'], **normalization).state_dict()
    state |= {f'normalization.{key}': value for key, value in buffers.items()}
    return dict(state=state, config=plain_config(config), diffusers_fields=kept)


def _with_companion(folder: Path, state: dict[str, Tensor], files: str) -> dict[str, Any]:
    more, notes = read_file(folder / COMPANION)
    if notes.get('sha256') != files:
        raise ValueError(
            f'weights: {str(folder / COMPANION)!r} was written for other files than those beside it; accepted is '
            f'a folder as it was written; delete {COMPANION} to use the folder as diffusers does.'
        )
    state |= {key: value for key, value in more.items() if key.startswith('normalization.')}
    return dict(
        state=state,
        config=notes['config'],
        trained=below('trained', more) or None,
        discriminator=below('discriminator', more),
        log_variance=more.get('log_variance'),
        diffusers_fields=notes['diffusers_fields'],
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        hint = "; give its folder 'vae'" if (path.parent / 'vae').is_dir() else ''
        raise FileNotFoundError(
            f'weights: the folder {str(path.parent)!r} has no {CONFIG}; accepted are those that diffusers wrote{hint}.'
        )
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f'weights: {str(path)!r} is no JSON: {error}; fetch it again.') from error
