"""Read a weights file safely, and load it into an autoencoder completely."""

import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eqzoo.autoencoders.keys import select_autoencoder, to_diffusers
from eqzoo.zoo.released import fetch_command

_NUM_LISTED = 5


def load_weights(model: nn.Module, source: str | Path | Sequence[str | Path]) -> None:
    """Load a file of any known layout into `model`, every tensor of it or none.

    A file without `normalization.*` (any that eqzoo did not write) leaves the model's own.

    Args:
        model: An autoencoder with diffusers' names.
        source: A safetensors or torch file; see `read_weights`. Or two, of the encoder and
            of the decoder, their tensors without a prefix, as taesd's are.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file cannot be read safely, or does not fit the model.
    """
    if isinstance(source, str | Path):
        found = to_diffusers(select_autoencoder(read_weights(source)))
    else:
        found = to_diffusers(_read_halves(source))
    wanted = model.state_dict()
    if not any(key.startswith('normalization.') for key in found):
        found |= {key: value for key, value in wanted.items() if key.startswith('normalization.')}
    problems = _differences(found, wanted)
    if problems:
        raise ValueError(
            f'{type(model).__name__}.weights: {_shown(source)} does not fit the network: {"; ".join(problems)}. '
            'Choose the file that belongs to this config, or the config that belongs to this file.'
        )
    model.load_state_dict(found)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU, running none of its code.

    Args:
        path: A `.safetensors` file or one that `torch.save` wrote; where it has an
            `ema_state_dict`, as eqzoo's training checkpoints with an average have, or else a
            `state_dict`, that is read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds pickled objects or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        command = fetch_command(path)
        remedy = f'fetch it: {command}' if command else 'correct weights=PATH.'
        raise FileNotFoundError(f'weights: there is no file {str(path)!r}; {remedy}')
    try:
        content = load_file(path) if path.suffix == '.safetensors' else _read_torch(path)
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f'weights: {str(path)!r} cannot be read: it is damaged, incomplete, or not a file of weights; '
            'accepted are safetensors and torch files that hold tensors only; fetch it again, or convert it.'
        ) from error
    state = _weights_in(content) if isinstance(content, dict) else None
    named = state.items() if isinstance(state, dict) else ()
    tensors = {key: value for key, value in named if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(
            f'weights: {str(path)!r} holds no tensors by name; accepted are a state dict, or a dict with a '
            "'state_dict'; save one of these."
        )
    return tensors


def _read_halves(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    if len(paths) != 2:
        raise ValueError(f'weights: got {len(paths)} files; accepted are one, or the pair (encoder, decoder).')
    networks = zip(('encoder', 'decoder'), paths, strict=True)
    return {f'{network}.{key}': value for network, path in networks for key, value in read_weights(path).items()}


def _shown(source: str | Path | Sequence[str | Path]) -> str:
    return repr(str(source)) if isinstance(source, str | Path) else ' and '.join(repr(str(path)) for path in source)


def _weights_in(content: dict[str, object]) -> object:
    """Return the part of a file that holds weights: the averaged ones where there are such."""
    return content.get('ema_state_dict') or content.get('state_dict', content)


def _read_torch(path: Path) -> object:
    """Read a torch file with `weights_only`, an OrderedDict standing in for each class of Lightning's.

    LDM's released files name the class `pytorch_lightning…ModelCheckpoint` beside their weights.
    """
    pickled = _pickled_names(path)
    lightning = [name for name in pickled if name.startswith('pytorch_lightning.')]
    refused = sorted(set(pickled) - set(lightning))
    if refused:
        raise ValueError(
            f'weights: {str(path)!r} holds pickled objects, which could run code: {_listed(refused)}; '
            'accepted are tensors only. If you trust the file, save its state dict as safetensors.'
        )
    with torch.serialization.safe_globals([(OrderedDict, name) for name in lightning]):
        return torch.load(path, map_location='cpu', weights_only=True)


def _pickled_names(path: Path) -> list[str]:
    """Return the classes and functions that a torch file would import, beyond torch's own."""
    with path.open('rb') as file:
        if file.read(4) != b'PK\x03\x04':  # the format before torch 1.6: `weights_only` alone judges it
            return []
    return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))


def _differences(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f'{key} {tuple(found[key].shape)}, not {tuple(wanted[key].shape)}'
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    kinds = (('missing', missing), ('unexpected', unexpected), ('of another shape', misshapen))
    return [f'{len(keys)} {kind}: {_listed(keys)}' for kind, keys in kinds if keys]


def _listed(names: list[str]) -> str:
    return ', '.join(names[:_NUM_LISTED]) + (', …' if len(names) > _NUM_LISTED else '')
