"""The latent store's files: the index, the shards, the checksums of rows."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

_WORD = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def row_checksums(labels: np.ndarray, fields: Sequence[np.ndarray]) -> np.ndarray:
    """Return a 64-bit checksum of each row, (B,) uint64: of its label, then of its fields in order.

    Bytes are taken as little-endian words of 64 bits, padded with zeros, and summed modulo 2^64
    with fixed odd weights (multilinear hashing: Carter & Wegman 1979). A change within one word,
    such as a flipped bit, is always found, since odd weights can be inverted; other changes are
    missed with a chance of about 2^-64, but for two words that change in their first bit alone.
    It takes a fifth of the time of zlib's CRC-32, which takes longer than reading the row.

    Args:
        labels: (B,), int64.
        fields: (B, bytes of a row), uint8 each.
    """
    words = [labels[:, None].view(np.uint64), *map(_words, fields)]
    weights = _weights(sum(each.shape[1] for each in words))
    total, start = np.zeros(len(labels), np.uint64), 0
    for each in words:
        total += np.einsum('bi,i->b', each, weights[start : start + each.shape[1]])
        start += each.shape[1]
    return total


def coins(seed: int, draws: np.ndarray) -> np.ndarray:
    """Return True with probability 0.5 for each of `draws` (B,), as a function of (seed, draw).

    A generator for each draw would take longer than reading its latents.

    Example:
        >>> coins(0, np.arange(6)).tolist() == [bool(coins(0, np.array([draw]))[0]) for draw in range(6)]
        True
    """
    start = _mix(np.array([seed], np.uint64) + np.uint64(1))
    return (_mix(start + _GOLDEN * draws.astype(np.uint64)) >> np.uint64(63)).astype(bool)


def _words(rows: np.ndarray) -> np.ndarray:
    lacking = -rows.shape[1] % _WORD
    return (np.pad(rows, ((0, 0), (0, lacking))) if lacking else rows).view(np.uint64)


@lru_cache(maxsize=8)
def _weights(count: int) -> np.ndarray:
    return _mix(_GOLDEN * np.arange(1, count + 1, dtype=np.uint64)) | np.uint64(1)


def _mix(value: np.ndarray) -> np.ndarray:
    """Mix the bits of each 64-bit number: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


FORMAT = 'eqzoo latent store'
VERSION = 1
PLAN, INDEX = 'plan.json', 'index.json'
STORAGE_TYPES = ('float32', 'float16', 'bfloat16')

_BYTES = {'float32': 4, 'float16': 2, 'bfloat16': 2, 'uint16': 2, 'int64': 8}


@dataclass(frozen=True)
class Field:
    """What a row of a store has under one name.

    Args:
        dtype: Its type as torch names it.
        shape: Its shape, that of one image's.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of one row."""
        size = _BYTES[self.dtype]
        for side in self.shape:
            size *= side
        return size


@dataclass(frozen=True)
class Plan:
    """All that decides what the shards of a store hold.

    Args:
        autoencoder: Its `autoencoder_digest`.
        images: The image set's `identity()`, without the name of its folder.
        num_images: Rows of the store, one an image.
        shard_images: Rows of each shard but the last.
        flip: Whether each row has a copy encoded from the mirrored image.
        precision: 'fp32' or 'bf16': how the encoder computed.
        fields: What a row has: `mean` (C, h, w) and, where there is a posterior, `std`, in raw
            units; or `codes` (h, w); and `features` (T, D) of a vision encoder.
        num_codes: Size of the codebook, if there is one.
        encoder: Card of the vision encoder, if there is one.
    """

    autoencoder: str
    images: dict[str, Any]
    num_images: int
    shard_images: int
    flip: bool
    precision: str
    fields: dict[str, Field]
    num_codes: int | None = None
    encoder: dict[str, Any] | None = None

    @property
    def num_shards(self) -> int:
        """How many shards."""
        return -(-self.num_images // self.shard_images)

    @property
    def sha256(self) -> str:
        """The hash that each shard carries."""
        return _hash(self.to_json())

    def rows_of(self, shard: int) -> range:
        """Return the images of a shard."""
        start = shard * self.shard_images
        return range(start, min(start + self.shard_images, self.num_images))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> 'Plan':
        """Return the plan of what `to_json` returned."""
        fields = {name: Field(each['dtype'], tuple(each['shape'])) for name, each in data['fields'].items()}
        return cls(**{**data, 'fields': fields})

    def differences(self, asked: 'Plan') -> list[str]:
        """Return what this plan, the one that is there, has otherwise than the one asked for."""
        there, wanted = _flat(self.to_json()), _flat(asked.to_json())
        names = [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]
        return [f'{name} {_short(there.get(name))} there, {_short(wanted.get(name))} asked' for name in names]


@dataclass(frozen=True)
class Index:
    """What a whole store has; written last.

    Args:
        plan: What decided the content.
        images: The image set's `identity()`.
        classes: Names of the classes, in the order of the labels.
        autoencoder: `config`, plain data or None, and `normalization`, `shift` and `scale` (C,) each.
        statistics: Of raw latents drawn from their posteriors: `mean` and `std` (C,); None of codes.
        shards: Bytes of each file, by name.
        written_with: Versions of eqzoo and torch.
    """

    plan: Plan
    images: dict[str, Any]
    classes: list[str]
    autoencoder: dict[str, Any]
    statistics: dict[str, list[float]] | None
    shards: dict[str, int]
    written_with: dict[str, str]


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f'shard-{number:05d}.safetensors'


def write_plan(root: Path, plan: Plan) -> None:
    """Write `plan.json`, whole or not at all."""
    write_json(root / PLAN, dict(format=FORMAT, version=VERSION, **plan.to_json()))


def read_plan(root: Path) -> Plan | None:
    """Return the plan of a store, or None if nothing was begun there.

    Raises:
        ValueError: If it cannot be read, or is of another version.
    """
    if not (root / PLAN).is_file():
        return None
    return _parsed(root / PLAN, lambda data: Plan.from_json({k: v for k, v in data.items() if k not in _HEAD}))


def write_index(root: Path, index: Index) -> None:
    """Write `index.json`, whole or not at all."""
    content = json.loads(json.dumps(asdict(index)))
    write_json(root / INDEX, dict(format=FORMAT, version=VERSION, sha256=_hash(content), **content))


def read_index(root: Path) -> Index:
    """Return the index of a whole store.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it cannot be read, was changed, or is of another version.
    """
    if not (root / INDEX).is_file():
        begun = f', but {PLAN}: it was begun and not finished' if (root / PLAN).is_file() else ''
        raise FileNotFoundError(
            f'{root}: no latent store: there is no {INDEX}{begun}; write it: python tools/cache_latents.py CONFIG.'
        )

    def parse(data: dict[str, Any]) -> Index:
        content = {key: value for key, value in data.items() if key not in _HEAD}
        if _hash(content) != data['sha256']:
            raise ValueError('its content differs from its own hash')
        return Index(**{**content, 'plan': Plan.from_json(content['plan'])})

    return _parsed(root / INDEX, parse)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file that appears at `path` when it is whole."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    with temporary.open('w') as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


_HEAD = ('format', 'version', 'sha256')


def _parsed(path: Path, parse: Any) -> Any:
    try:
        data = json.loads(path.read_text())
        is_ours = data['format'] == FORMAT
        version = data['version'] if is_ours else None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None
    if version != VERSION:
        raise ValueError(
            f'{path}: format {data["format"]!r}, version {version}; this eqzoo reads {FORMAT!r}, version {VERSION}; '
            'write the store again, or use the eqzoo that wrote it.'
        )
    try:
        return parse(data)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f'{path}: damaged or edited ({type(error).__name__}: {error}); delete it and run '
        'python tools/cache_latents.py CONFIG, which keeps the shards that are whole.'
    )


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _flat(data: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat = {}
    for key, value in data.items():
        flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {f'{prefix}{key}': value}
    return flat


def _short(value: Any) -> str:
    return f'{value[:12]}…' if isinstance(value, str) and len(value) == 64 else repr(value)


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
