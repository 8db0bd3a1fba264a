"""Read a file of weights without running any code in it."""

import argparse
import json
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from eqzoo.zip_damage import zip_damage
from eqzoo.zoo import located

# Where safetensors' metadata, which is text only, has what eqzoo says of a file.
METADATA_KEY = 'eqzoo'

_NUM_LISTED = 5

# What readers raise at damaged bytes: torch's unpickler checks neither its stack nor its text.
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


class _RefusedError(ValueError):
    """A file would run code."""


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a file holds, on the CPU, and what eqzoo noted in its metadata.

    Args:
        path: A `.safetensors` file, whose content is flat, or one that `torch.save` wrote,
            whose content may be nested. Only safetensors have metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds pickled objects, or is no dict.
    """
    path = located(path)
    try:
        content, notes = _read_safetensors(path) if path.suffix == '.safetensors' else (_read_torch(path), {})
    except _RefusedError:
        raise
    except _DAMAGE as error:
        raise ValueError(
            f'weights: {str(path)!r} cannot be read: it is damaged, incomplete, or not a file of weights; '
            'accepted are safetensors and torch files that hold tensors only; fetch it again, or convert it.'
        ) from error
    return (content if isinstance(content, dict) else {}), notes


def listed(names: Iterable[str]) -> str:
    """Return the first few of `names` for a message."""
    names = list(names)
    return ', '.join(names[:_NUM_LISTED]) + (', …' if len(names) > _NUM_LISTED else '')


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with safe_open(path, framework='pt') as file:
        notes = json.loads((file.metadata() or {}).get(METADATA_KEY, '{}'))
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, notes


def _read_torch(path: Path) -> object:
    """Read a torch file with `weights_only`, an OrderedDict standing in for each class of Lightning's.

    LDM's released files name the class `pytorch_lightning…ModelCheckpoint` beside their
    weights; DiT's and its successors' hold their command line as an `argparse.Namespace`.
    """
    damage = zip_damage(path) if _is_zip(path) else None
    if damage is not None:
        raise ValueError(damage)
    pickled = _pickled_names(path)
    lightning = [name for name in pickled if name.startswith('pytorch_lightning.')]
    refused = sorted(set(pickled) - set(lightning) - {'argparse.Namespace'})
    if refused:
        raise _would_run_code(path, refused)
    with torch.serialization.safe_globals([argparse.Namespace, *((OrderedDict, name) for name in lightning)]):
        try:
            return torch.load(path, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError as error:
            # files in the format before torch 1.6 are judged here
            found = re.search(r'(?:GLOBAL|function) (\S+)', str(error))
            if 'nsupported' not in str(error) or found is None:
                raise
            raise _would_run_code(path, [found.group(1)]) from error


def _would_run_code(path: Path, names: list[str]) -> _RefusedError:
    return _RefusedError(
        f'weights: {str(path)!r} holds pickled objects, which could run code: {listed(names)}; '
        'accepted are tensors only. If you trust the file, save its state dict as safetensors.'
    )


def _pickled_names(path: Path) -> list[str]:
    """Return the classes and functions that a torch file would import, beyond torch's own."""
    if not _is_zip(path):  # the format before torch 1.6: `weights_only` alone judges it
        return []
    return torch.serialization.get_unsafe_globals_in_checkpoint(str(path))


def _is_zip(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(4) == b'PK\x03\x04'
