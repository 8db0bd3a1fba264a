"""Weights files: read one without running any code in it, and find the state dicts inside."""

import argparse
import json
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eqzoo.files import zip_damage
from eqzoo.zoo import located

# safetensors' metadata is text only; this entry of it is JSON of eqzoo's.
METADATA_KEY = 'eqzoo'

_NUM_LISTED = 5

# What readers raise on damaged bytes: torch's unpickler checks neither its stack nor its text.
_DAMAGE = (
    SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    AssertionError,
    AttributeError,
    TypeError,
)

# Keys of trained weights and of their average: of eqzoo and LDM; of REPA-E, whose file also has its generator
# under `model`, hence before that; of MAR, LlamaGen and DiT.
_STATE_KEYS = (('state_dict', 'ema_state_dict'), ('vae', None), ('model', 'ema'))

# Prefixes of an autoencoder's names: eqzoo's own checkpoints, LDM's and Stable Diffusion's, merged ones.
_PREFIXES = ('autoencoder.', 'first_stage_model.', 'vae.')

# Prefixes that torch adds: DistributedDataParallel and AveragedModel, compile.
_WRAPPERS = ('module.', '_orig_mod.')

# Saved beside autoencoders: LDM's perceptual loss and discriminator, VA-VAE's vision encoder, averages' counts.
_COMPANIONS = ('loss.', 'foundation_model.', 'n_averaged')
_DISCRIMINATORS = ('loss.discriminator.', 'adversarial_loss.discriminator.')
_LOG_VARIANCES = ('loss.logvar', 'reconstruction_loss.log_variance')

_LIT_EMA = 'model_ema.'


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the content of a file, on the CPU, and eqzoo's notes in its metadata.

    Args:
        path: A `.safetensors` file, whose content is flat, or one that `torch.save` wrote,
            whose content may be nested. Only safetensors have metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a folder, is damaged, holds pickled objects, or is no dict.
    """
    path = located(path)
    if path.is_dir():
        raise ValueError(f'weights: {str(path)!r} is a folder; expected a file.')
    try:
        content, notes = _read_safetensors(path) if path.suffix == '.safetensors' else (_read_torch(path), {})
    except _RefusedError:
        raise
    except _DAMAGE as error:
        raise ValueError(
            f'weights: {str(path)!r} cannot be read: it is damaged, incomplete, or not a weights file; '
            'expected a safetensors or torch file that holds tensors only; fetch it again, or convert it.'
        ) from error
    return (content if isinstance(content, dict) else {}), notes


def find_states(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the trained weights in a file's content, and their average or an empty dict.

    Only named tensors count. If a file has nothing but an average, it is returned as the trained weights.
    """
    for trained_key, average_key in _STATE_KEYS:
        trained, average = _tensors(content.get(trained_key)), _tensors(content.get(average_key))
        if trained or average:
            return (trained, average) if trained else (average, {})
    is_nested = any(isinstance(content.get(key), Mapping) for pair in _STATE_KEYS for key in pair)
    flat = {} if is_nested else _tensors(content)
    average = below('ema_state_dict', flat)
    return {key: value for key, value in flat.items() if not key.startswith('ema_state_dict.')}, average


def below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `state` under `prefix.`, without the prefix."""
    return {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(f'{prefix}.')}


@dataclass
class StateParts:
    """The parts of one state dict.

    Args:
        network: The autoencoder's weights, without prefix, under the file's names.
        average: The network's moving average, under the same names.
        discriminator: The state of eqzoo's `PatchGAN`.
        log_variance: The log-variance of the reconstruction loss, a scalar.
        left_out: Names of all other tensors.
    """

    network: dict[str, Tensor]
    average: dict[str, Tensor] | None = None
    discriminator: dict[str, Tensor] = field(default_factory=dict)
    log_variance: Tensor | None = None
    left_out: tuple[str, ...] = ()


def split_parts(state: Mapping[str, Tensor]) -> StateParts:
    """Separate an autoencoder and its companions from the rest of a state dict.

    Raises:
        ValueError: If a LitEma average lacks some of the network's weights.
    """
    state = {_unwrapped(key): value for key, value in state.items()}
    prefix = next((each for each in _PREFIXES if any(key.startswith(each) for key in state)), '')
    inner = {_unwrapped(key.removeprefix(prefix)): value for key, value in state.items() if key.startswith(prefix)}
    around = {**state, **inner}  # the discriminator stands inside LDM's prefix, and beside eqzoo's
    parts = StateParts({key: value for key, value in inner.items() if not key.startswith((*_COMPANIONS, _LIT_EMA))})
    parts.average = _lit_ema(parts.network, below('model_ema', inner))
    for name in _DISCRIMINATORS:
        found = {key.removeprefix(name): value for key, value in around.items() if key.startswith(name)}
        # taming's discriminator is the module `network` of eqzoo's
        parts.discriminator |= {f'network.{k}' if k.startswith('main.') else k: v for k, v in found.items()}
    parts.log_variance = next((around[name] for name in _LOG_VARIANCES if name in around), None)
    used = (*_DISCRIMINATORS, *_LOG_VARIANCES, *([_LIT_EMA] if parts.average else []))
    inside = [key for key in inner if key not in parts.network and not key.startswith(used)]
    outside = [key for key in state if not key.startswith((prefix, *used))] if prefix else []
    parts.left_out = (*inside, *outside)
    return parts


def check_tensors(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Compare the names and shapes of two state dicts.

    Raises:
        ValueError: If they differ, with the names.
    """
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f'{key} {tuple(found[key].shape)}, not {tuple(wanted[key].shape)}'
        for key in wanted
        if key in found and found[key].shape != wanted[key].shape
    ]
    kinds = (('missing', missing), ('unexpected', unexpected), ('of another shape', misshapen))
    problems = [f'{len(keys)} {kind}: {first_names(keys)}' for kind, keys in kinds if keys]
    if problems:
        raise ValueError(
            f'{where} does not fit the network: {"; ".join(problems)}. '
            'Choose the file that belongs to this config, or the config that belongs to this file.'
        )


def first_names(names: Iterable[str]) -> str:
    """Return the first few of `names` for a message."""
    names = list(names)
    return ', '.join(names[:_NUM_LISTED]) + (', …' if len(names) > _NUM_LISTED else '')


class _RefusedError(ValueError):
    """A file would run code."""


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework='pt') as file:
        notes = json.loads((file.metadata() or {}).get(METADATA_KEY, '{}'))
        return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118, it is no dict


def _read_torch(path: Path) -> object:
    """Read a torch file with `weights_only`; each class of Lightning's is read as an OrderedDict.

    LDM's released files name the class `pytorch_lightning…ModelCheckpoint` beside their
    weights; DiT's and its successors' hold their command line as an `argparse.Namespace`.
    """
    with path.open('rb') as file:
        is_zip = file.read(4) == b'PK\x03\x04'
    damage = zip_damage(path) if is_zip else None
    if damage is not None:
        raise ValueError(damage)
    # a file in the format before torch 1.6 is judged by `weights_only` alone
    pickled = torch.serialization.get_unsafe_globals_in_checkpoint(str(path)) if is_zip else []
    lightning = [name for name in pickled if name.startswith('pytorch_lightning.')]
    refused = sorted(set(pickled) - set(lightning) - {'argparse.Namespace'})
    if refused:
        raise _would_run_code(path, refused)
    with torch.serialization.safe_globals([argparse.Namespace, *((OrderedDict, name) for name in lightning)]):
        try:
            return torch.load(path, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r'(?:GLOBAL|function) (\S+)', str(error))
            if 'nsupported' not in str(error) or found is None:
                raise
            raise _would_run_code(path, [found.group(1)]) from error


def _would_run_code(path: Path, names: list[str]) -> _RefusedError:
    return _RefusedError(
        f'weights: {str(path)!r} holds pickled objects, which could run code: {first_names(names)}; '
        'expected tensors only. If you trust the file, save its state dict as safetensors.'
    )


def _lit_ema(network: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return LDM's average, which has names without dots, under the network's names.

    None if the average is of another network: Stable Diffusion's is of its denoiser.
    """
    dotless = {name: name.replace('.', '') for name in network}
    missing = [name for name, short in dotless.items() if short not in average]
    if len(missing) == len(network):
        return None
    if missing:
        raise ValueError(
            f'weights: the average in model_ema.* lacks {len(missing)} of {len(network)} weights: '
            f'{first_names(missing)}; expected a complete average or none; remove model_ema.* from the file.'
        )
    return {name: average[short] for name, short in dotless.items()}


def _unwrapped(key: str) -> str:
    while key.startswith(_WRAPPERS):
        key = key.split('.', 1)[1]
    return key


def _tensors(state: object) -> dict[str, Tensor]:
    named = state.items() if isinstance(state, Mapping) else ()
    return {key: value for key, value in named if isinstance(key, str) and isinstance(value, Tensor)}
