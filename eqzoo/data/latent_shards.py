"""Shards of latents: safetensors files, mapped into memory, with a checksum a row."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from eqzoo.data.latent_checksums import row_checksums
from eqzoo.data.latent_index import Field, Plan, shard_name

FLIPPED = '_flip'  # what the names of a mirrored image's tensors end in
LABELS, CHECKSUMS = 'labels', 'checksums'

REMEDY = 'python tools/cache_latents.py CONFIG'

_NOTES = 'eqzoo'
# safetensors' names of the types that are read here
_TYPES = {'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16', 'U16': 'uint16', 'I64': 'int64'}


class OtherStoreError(ValueError):
    """A shard that another plan made."""


class MappedTensors:
    """The tensors of a safetensors file as rows of bytes, read from the disk when looked at.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is cut off, or no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such shard.')
        self.path = path
        size = path.stat().st_size
        with path.open('rb') as file:
            length = int.from_bytes(file.read(8), 'little')
            header = file.read(length) if length < size else b''
        try:
            content = json.loads(header)
            notes = content.pop('__metadata__', {})
            self.notes: dict[str, Any] = json.loads(notes.get(_NOTES, '{}'))
            self.fields = {
                name: (Field(_TYPES[each['dtype']], tuple(each['shape'][1:])), int(each['shape'][0]))
                for name, each in content.items()
            }
            self._spans = {
                name: tuple(8 + length + offset for offset in each['data_offsets']) for name, each in content.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            cut = 'it is cut off' if length >= size else f'{type(error).__name__}: {error}'
            raise ValueError(f'{path}: damaged shard: its header cannot be read ({cut}).') from None
        whole = max((end for _, end in self._spans.values()), default=8 + length)
        if size != whole:
            raise ValueError(f'{path}: truncated shard: {size:,} bytes, {whole:,} expected.')
        for name, (field, count) in self.fields.items():
            start, end = self._spans[name]
            if not 0 <= start <= end or end - start != count * field.num_bytes:
                raise ValueError(f'{path}: damaged shard: {name!r} does not fill its place.')
        self._bytes = np.memmap(path, np.uint8, mode='r').view(np.ndarray)

    def rows(self, name: str) -> np.ndarray:
        """Return a tensor as bytes (rows, bytes of a row)."""
        (field, count), (start, end) = self.fields[name], self._spans[name]
        return self._bytes[start:end].reshape(count, field.num_bytes)


class Copy:
    """The rows of a shard of eqzoo's, as they are or of the mirrored images.

    Args:
        tensors: The shard.
        names: The fields of a row, in the order of the checksum.
        flipped: Which copy.
    """

    def __init__(self, tensors: MappedTensors, names: Sequence[str], *, flipped: bool) -> None:
        ending = FLIPPED if flipped else ''
        self.fields = [tensors.rows(f'{name}{ending}') for name in names]
        self.labels = tensors.rows(LABELS).view(np.int64).ravel()
        self.checksums = tensors.rows(f'{CHECKSUMS}{ending}').view(np.uint64).ravel()

    def damaged(self, rows: slice) -> list[int]:
        """Return which of `rows` differ from their checksums."""
        found = row_checksums(self.labels[rows].copy(), [field[rows] for field in self.fields])
        return [rows.start + int(row) for row in np.flatnonzero(found != self.checksums[rows])]


def open_shard(root: Path, number: int, plan: Plan) -> MappedTensors:
    """Map a shard.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is damaged, or belongs to another store.
    """
    tensors = MappedTensors(root / shard_name(number))
    if tensors.notes.get('plan') != plan.sha256:
        raise OtherStoreError(
            f'{tensors.path}: this shard belongs to another store (its plan is '
            f'{str(tensors.notes.get("plan"))[:12]}…, not {plan.sha256[:12]}…), or its header is damaged; move it away '
            f'and run {REMEDY}.'
        )
    word, count = Field('int64', ()), len(plan.rows_of(number))
    endings = ('', FLIPPED) if plan.flip else ('',)
    expected = {LABELS: (word, count)}
    for ending in endings:
        expected |= {f'{name}{ending}': (field, count) for name, field in plan.fields.items()}
        expected[f'{CHECKSUMS}{ending}'] = (word, count)
    if tensors.fields != expected:
        raise ValueError(
            f'{tensors.path}: damaged shard: its header does not say what the plan does; delete it and run {REMEDY}, '
            'which writes what is missing.'
        )
    return tensors


def convert_rows(
    rows: np.ndarray, field: Field, out: np.ndarray, shift: np.ndarray | None = None, scale: np.ndarray | None = None
) -> None:
    """Turn rows of bytes (B, bytes of a row) into `out` (B, …), float32 or int64: `(value - shift) * scale`.

    By numpy, which does it on this thread: torch would wake others for what takes microseconds.
    """
    if field.dtype == 'bfloat16':  # the upper half of a float32
        np.left_shift(rows.view(np.uint16).reshape(out.shape), 16, out=out.view(np.uint32), dtype=np.uint32)
        values = out
    else:
        values = rows.view(field.dtype).reshape(out.shape)
    if shift is not None:
        values = np.subtract(values, shift, out=out)
    if scale is not None:
        np.multiply(values, scale, out=out)
    elif values is not out:
        out[:] = values


def write_shard(path: Path, labels: Tensor, copies: Sequence[Mapping[str, Tensor]], notes: Mapping[str, Any]) -> None:
    """Write a shard that appears at `path` when it is whole.

    Args:
        path: Where; its folder is there.
        labels: (N,), int64.
        copies: Fields (N, …) by name; first as they are, then, if there are any, of the mirrored images.
        notes: Plain data for its header.
    """
    tensors = {LABELS: labels}
    for ending, fields in zip(('', FLIPPED), copies, strict=False):
        tensors |= {f'{name}{ending}': tensor.contiguous() for name, tensor in fields.items()}
        checksums = row_checksums(labels.numpy(), [_rows_of_bytes(tensor) for tensor in fields.values()])
        tensors[f'{CHECKSUMS}{ending}'] = torch.from_numpy(checksums.view(np.int64))
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')  # a killed launcher may have left its workers running
    # One key: safetensors writes several in an order that differs from run to run.
    save_file(tensors, temporary, metadata={_NOTES: json.dumps(notes, sort_keys=True)})
    with temporary.open('rb') as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _rows_of_bytes(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().reshape(len(tensor), -1).view(torch.uint8).numpy()
