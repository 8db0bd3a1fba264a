"""Write autoencoders in the formats of diffusers, LDM and eqzoo."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from eqzoo.checkpoints.autoencoder import Stored, normalize, read_stored
from eqzoo.checkpoints.diffusers import COMPANION, CONFIG, WEIGHTS, to_config_json
from eqzoo.checkpoints.keys import to_ldm
from eqzoo.checkpoints.read import METADATA_KEY, read_file
from eqzoo.files import sha256_of

TORCH_SUFFIXES = ('.ckpt', '.pth', '.pt')


def write_eqzoo(stored: Stored, path: Path) -> list[str]:
    """Write what a training checkpoint of eqzoo has, but the optimizers' state.

    As `.safetensors` it is flat, the average under `ema_state_dict.`.
    """
    trained = stored.trained or stored.state
    state = {
        **_under('autoencoder', trained),
        **_under('adversarial_loss.discriminator', stored.discriminator),
        **({} if stored.log_variance is None else {'reconstruction_loss.log_variance': stored.log_variance}),
    }
    average = stored.state if stored.trained else {}
    if path.suffix == '.safetensors':
        _save_flat({**state, **_under('ema_state_dict', average)}, path, _notes(stored))
        return []
    more = dict(diffusers_fields=stored.diffusers_fields)
    content = dict(state_dict=_own(state), autoencoder=stored.config, eqzoo=more)
    torch.save(content | (dict(ema_state_dict=_own(average)) if average else {}), path)
    return []


def write_ldm(stored: Stored, path: Path) -> list[str]:
    """Write LDM's layout (taming's for VQ, taesd's numbers for tiny ones), and beside it what that cannot say.

    Its plain names hold the average where there is one, since that is what others load.
    """
    discriminator = {key.removeprefix('network.'): value for key, value in stored.discriminator.items()}
    state = {
        **to_ldm({key: value for key, value in stored.state.items() if not key.startswith('normalization.')}),
        **_under('loss.discriminator', discriminator),
        **({} if stored.log_variance is None else {'loss.logvar': stored.log_variance}),
    }
    more = dict(normalization=_own(stored.normalization), trained=_own(stored.trained or {}))
    if path.suffix == '.safetensors':
        extras = {
            key: value for name, tensors in more.items() for key, value in _under(f'eqzoo.{name}', tensors).items()
        }
        _save_flat({**state, **extras}, path, _notes(stored))
    else:
        torch.save(dict(state_dict=_own(state), eqzoo={**_notes(stored), **more}), path)
    padding = stored.config.get('padding_mode', 'zeros')
    return [] if padding == 'zeros' else [f"LDM's code pads with zeros, not by {padding!r}: outputs differ there"]


def write_diffusers(stored: Stored, folder: Path) -> list[str]:
    """Write a folder that diffusers opens with the same outputs; return what its config.json could not say.

    Raises:
        ValueError: If diffusers has no such network, or would assume a scale that nobody
            stated.
    """
    fields, unsaid = to_config_json(stored.config, stored.normalization, stored.diffusers_fields)
    # the others' public models have raw latents, or latents that are scaled already
    if not stored.normalization and fields['_class_name'] == 'AutoencoderKL':
        raise ValueError(
            'convert --to diffusers: the source states no scale of its latents, and diffusers would assume 0.18215; '
            'accepted is a stated one; give --scale FLOAT, or --config CONFIG of an autoencoder that has it.'
        )
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + '\n')
    network = {key: value for key, value in stored.state.items() if not key.startswith('normalization.')}
    save_file(_own(network), folder / WEIGHTS, metadata={'format': 'pt'})
    more = {
        **_under('normalization', stored.normalization),
        **_under('trained', stored.trained or {}),
        **_under('discriminator', stored.discriminator),
        **({} if stored.log_variance is None else {'log_variance': stored.log_variance}),
    }
    notes = {**_notes(stored), 'sha256': sha256_of(folder / CONFIG, folder / WEIGHTS)}
    _save_flat(more, folder / COMPANION, notes)
    return unsaid


# What `tools/convert.py --to` accepts, how it is written, and the suffixes of its file; none: a folder.
FORMATS: dict[str, tuple[Callable[[Stored, Path], list[str]], tuple[str, ...]]] = {
    'diffusers': (write_diffusers, ()),
    'ldm': (write_ldm, (*TORCH_SUFFIXES, '.safetensors')),
    'eqzoo': (write_eqzoo, (*TORCH_SUFFIXES, '.safetensors')),
}


def export(stored: Stored, destination: str | Path, *, to: str, overwrite: bool = False) -> list[str]:
    """Write `stored` in a format, into its place only when whole.

    Args:
        stored: With its config, as `complete` returns it.
        destination: A file, or a folder for diffusers.
        to: One of `FORMATS`.
        overwrite: Whether something at `destination` is replaced.

    Returns:
        Sentences on what the format could not say.

    Raises:
        ValueError: If the destination is there already or has another format's suffix, or the
            format cannot hold the autoencoder.
    """
    destination = Path(destination)
    write, _ = FORMATS[to]
    check_destination(destination, to, overwrite=overwrite)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with replacing(destination) as temporary:
        return write(stored, temporary)


def check_destination(destination: Path, to: str, *, overwrite: bool) -> None:
    """Refuse a destination that is there already, or whose suffix is another format's.

    Raises:
        ValueError: If so.
    """
    suffixes = FORMATS[to][1]
    files = (*TORCH_SUFFIXES, '.safetensors')
    if destination.suffix not in suffixes if suffixes else destination.suffix in files:
        accepted = f'a file ending in {", ".join(suffixes)}' if suffixes else 'a folder'
        raise ValueError(f'convert --to {to}: got {str(destination)!r}; accepted is {accepted}; rename it.')
    if destination.exists() and not overwrite:
        raise ValueError(
            f'convert: {str(destination)!r} is there already; accepted is a new place; choose another or --overwrite.'
        )


@contextmanager
def replacing(destination: Path) -> Iterator[Path]:
    """Yield a path beside `destination` that takes its place if nothing is raised."""
    temporary, old = (destination.with_name(f'.{os.getpid()}.{kind}.{destination.name}') for kind in ('new', 'old'))
    try:
        yield temporary
        if destination.is_dir():
            # a folder cannot be replaced in one step
            destination.rename(old)
        temporary.replace(destination)
    finally:
        for path in (temporary, old):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _notes(stored: Stored) -> dict[str, Any]:
    return dict(config=stored.config, diffusers_fields=stored.diffusers_fields)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f'{prefix}.{key}': value for key, value in state.items()}


def _own(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor its own memory: files hold a view's whole storage, or refuse a shared one."""
    return {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in state.items()}


def _save_flat(state: Mapping[str, Tensor], path: Path, notes: Mapping[str, Any]) -> None:
    save_file(_own(state), path, metadata={'format': 'pt', METADATA_KEY: json.dumps(notes)})


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
