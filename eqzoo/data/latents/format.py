"""Files of a latent store: plan, shards, index, and the checksum of a row.

A store is a folder. `plan.json` is written first and decides the content, the shards are
safetensors files, and `index.json` is written last. docs/latent_store.md has the tables.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import ne
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from xxhash import xxh3_64_intdigest

from eqzoo.files import replacing, write_json

FORMAT = 'eqzoo latent store'
VERSION = 2  # 1 had row checksums of another kind
PLAN, INDEX = 'plan.json', 'index.json'
STORAGE_TYPES = ('float32', 'float16', 'bfloat16')
_CODE_TYPE = 'uint16'
LABELS, CHECKSUMS = 'labels', 'checksums'
FLIPPED = '_flip'  # the suffix of the tensors of mirrored images
REMEDY = 'python tools/cache_latents.py CONFIG'

_NOTES = 'eqzoo'  # the key of a shard's metadata


@dataclass(frozen=True)
class Field:
    """Type and shape of one tensor of a row.

    Args:
        dtype: Name of its type in torch.
        shape: Its shape for one image.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of one row."""
        return getattr(torch, self.dtype).itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class StorePlan:
    """Everything that decides the content of the shards of a store.

    Args:
        autoencoder: Its `autoencoder_digest`.
        images: `identity()` of the image set, without the name of its folder.
        num_images: Rows of the store, one for each image.
        shard_images: Rows of each shard except the last.
        flip: Whether the store also has rows of the mirrored images.
        precision: 'fp32' or 'bf16', the precision of the encoder.
        fields: The tensors of a row: `mean` (C, h, w) and, with a posterior, `std`, in raw units;
            or `codes` (h, w); and `features` (T, D) of a vision encoder.
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
        """Number of shards."""
        return -(-self.num_images // self.shard_images)

    @property
    def sha256(self) -> str:
        """Hash of the plan, which each shard carries."""
        return _json_hash(self.to_json())

    def rows_of(self, shard: int) -> range:
        """Return the images of a shard."""
        start = shard * self.shard_images
        return range(start, min(start + self.shard_images, self.num_images))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> 'StorePlan':
        """Return the plan that `to_json` turned into `data`."""
        fields = {name: Field(each['dtype'], tuple(each['shape'])) for name, each in data['fields'].items()}
        numbers = [data['num_images'], data['shard_images'], *(side for each in fields.values() for side in each.shape)]
        if not all(type(number) is int and 0 < number < 1 << 40 for number in numbers):
            raise ValueError(f'sizes must be whole numbers from 1, got {numbers}')
        unknown = {each.dtype for each in fields.values()} - {*STORAGE_TYPES, _CODE_TYPE}
        if unknown:
            raise ValueError(f'unknown types of fields: {", ".join(map(repr, sorted(unknown)))}')
        return cls(**{**data, 'fields': fields})

    def differences(self, requested: 'StorePlan') -> list[str]:
        """Return one line for each value of this existing plan that differs from the requested plan."""
        existing, wanted = _flatten(self.to_json()), _flatten(requested.to_json())
        return [
            f'{name} {_abbreviate(existing.get(name))} there, {_abbreviate(wanted.get(name))} asked'
            for name in {**existing, **wanted}
            if existing.get(name) != wanted.get(name)
        ]


@dataclass(frozen=True)
class StoreIndex:
    """Content of a complete store; written last.

    Args:
        plan: The plan of the shards.
        images: `identity()` of the image set.
        classes: Names of the classes, in the order of the labels.
        autoencoder: `config`, plain data or None, and `normalization`, with `shift` and `scale` (C,).
        statistics: `mean` and `std` (C,) of raw latents drawn from their posteriors; None for codes.
        shards: Bytes of each file, by name.
        written_with: Versions of eqzoo and torch.
    """

    plan: StorePlan
    images: dict[str, Any]
    classes: list[str]
    autoencoder: dict[str, Any]
    statistics: dict[str, list[float]] | None
    shards: dict[str, int]
    written_with: dict[str, str]


def write_plan(root: Path, plan: StorePlan) -> None:
    """Write `plan.json` atomically."""
    write_json(root / PLAN, dict(format=FORMAT, version=VERSION, **plan.to_json()))


def read_plan(root: Path) -> StorePlan | None:
    """Return the plan of the store at `root`, complete or not; None if there is no store.

    Raises:
        ValueError: If the plan is damaged or of another version.
    """
    if (root / PLAN).is_file():
        return _read(root / PLAN, StorePlan.from_json)
    return read_index(root).plan if (root / INDEX).is_file() else None


def write_index(root: Path, index: StoreIndex) -> None:
    """Write `index.json` atomically."""
    content = asdict(index)
    write_json(root / INDEX, dict(format=FORMAT, version=VERSION, sha256=_json_hash(content), **content))


def read_index(root: Path) -> StoreIndex:
    """Return the index of a complete store.

    Raises:
        FileNotFoundError: If there is no index.
        ValueError: If the index is damaged, was edited, or is of another version.
    """

    def parse(data: dict[str, Any]) -> StoreIndex:
        if data.pop('sha256') != _json_hash(data):
            raise ValueError('its content differs from its own hash')
        index = StoreIndex(**{**data, 'plan': StorePlan.from_json(data['plan'])})
        expected = map(shard_name, range(index.plan.num_shards))
        # names could lead out of the folder
        if len(index.shards) != index.plan.num_shards or any(map(ne, index.shards, expected)):
            raise ValueError(f'its shards are not the {index.plan.num_shards} of the plan')
        return index

    if not (root / INDEX).is_file():
        unfinished = f', but {PLAN}: it was begun and not finished' if (root / PLAN).is_file() else ''
        raise FileNotFoundError(f'{root}: no latent store: there is no {INDEX}{unfinished}; write it: {REMEDY}.')
    return _read(root / INDEX, parse)


def _read(path: Path, parse: Callable[[dict[str, Any]], Any]) -> Any:
    try:
        data = json.loads(path.read_text())
        kind, version = data.pop('format'), data.pop('version')
        if (kind, version) == (FORMAT, VERSION):
            return parse(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: damaged or edited ({type(error).__name__}: {error}); delete it and run {REMEDY}, which keeps '
            'the shards that are whole.'
        ) from None
    raise ValueError(
        f'{path}: format {kind!r}, version {version}; expected {FORMAT!r}, version {VERSION}; remove the folder and '
        f'write the store again: {REMEDY}.'
    )


def _json_hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _flatten(data: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    flat = {}
    for key, value in data.items():
        flat |= _flatten(value, f'{prefix}{key}.') if isinstance(value, Mapping) else {f'{prefix}{key}': value}
    return flat


def _abbreviate(value: Any) -> str:
    return f'{value[:12]}…' if isinstance(value, str) and len(value) == 64 else repr(value)


def row_checksums(labels: np.ndarray, fields: Sequence[np.ndarray]) -> np.ndarray:
    """Return the 64-bit checksum of each row, (B,) uint64.

    XXH3-64 of the first field with the label as the seed, then of each next field with the sum so far
    as the seed. It takes an eighth of the time of zlib's CRC-32, which takes longer than reading the row.

    Args:
        labels: (B,), int64.
        fields: (B, bytes of a row), uint8, each.
    """
    sums = labels.view(np.uint64).tolist()
    for rows in fields:
        sums = [xxh3_64_intdigest(row, seed) for row, seed in zip(rows, sums, strict=True)]
    return np.array(sums, np.uint64)


class OtherStoreError(ValueError):
    """A shard that was written by another plan."""


class MappedTensors:
    """The tensors of a safetensors file, mapped: the system reads a page on access.

    Processes that are forked share the mapping.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is cut off or not a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such shard.')
        self.path = path
        try:
            # framework='pt' maps the file once and returns views; 'np' would copy every tensor
            with safe_open(path, framework='pt') as file:
                self.notes: dict[str, Any] = json.loads((file.metadata() or {}).get(_NOTES, '{}'))
                self.tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, ValueError) as error:
            raise ValueError(f'{path}: truncated or damaged shard ({error}).') from None

    def field(self, name: str) -> Field:
        """Return type and shape of a row of a tensor."""
        tensor = self.tensors[name]
        return Field(str(tensor.dtype).removeprefix('torch.'), tuple(tensor.shape[1:]))

    def rows(self, name: str) -> np.ndarray:
        """Return a tensor as read-only bytes (rows, bytes of a row)."""
        rows = _rows_of_bytes(self.tensors[name])
        rows.flags.writeable = False
        return rows


class ShardRows:
    """The rows of one shard, of the images or of the mirrored images.

    Args:
        shard: The shard.
        names: The fields of a row, in the order of the checksum.
        flipped: Whether the images are mirrored.
    """

    def __init__(self, shard: MappedTensors, names: Sequence[str], *, flipped: bool) -> None:
        suffix = FLIPPED if flipped else ''
        self.fields = [shard.rows(f'{name}{suffix}') for name in names]
        self.labels = shard.tensors[LABELS].numpy()
        self.checksums = shard.tensors[f'{CHECKSUMS}{suffix}'].numpy().view(np.uint64)

    def damaged(self) -> list[int]:
        """Return the rows that differ from their checksums."""
        return np.flatnonzero(row_checksums(self.labels, self.fields) != self.checksums).tolist()


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f'shard-{number:05d}.safetensors'


def open_shard(root: Path, number: int, plan: StorePlan) -> MappedTensors:
    """Map a shard.

    Raises:
        FileNotFoundError: If it does not exist.
        OtherStoreError: If it belongs to another store, or to a store of another version.
        ValueError: If it is damaged.
    """
    shard = MappedTensors(root / shard_name(number))
    found = (shard.notes.get('version'), shard.notes.get('plan'))
    if found != (VERSION, plan.sha256):
        raise OtherStoreError(
            f'{shard.path}: this shard belongs to another store (version {found[0]}, plan {str(found[1])[:12]}…; '
            f'expected version {VERSION}, plan {plan.sha256[:12]}…), or its header is damaged; move it away and run '
            f'{REMEDY}.'
        )
    expected = {LABELS: Field('int64', ())}
    for suffix in ('', FLIPPED) if plan.flip else ('',):
        expected |= {f'{name}{suffix}': field for name, field in plan.fields.items()}
        expected[f'{CHECKSUMS}{suffix}'] = expected[LABELS]
    counts = {tensor.shape[:1] for tensor in shard.tensors.values()}
    if {name: shard.field(name) for name in shard.tensors} != expected or counts != {(len(plan.rows_of(number)),)}:
        raise ValueError(
            f'{shard.path}: damaged shard: its header contradicts the plan; delete it and run {REMEDY}, which writes '
            'the missing shards.'
        )
    return shard


def write_shard(
    path: Path,
    plan: StorePlan,
    labels: Tensor,
    copies: Sequence[Mapping[str, Tensor]],
    sums: Mapping[str, Any] | None = None,
) -> None:
    """Write a shard atomically.

    Args:
        path: The file.
        plan: The plan of the store.
        labels: (N,), int64.
        copies: Fields (N, …) by name, of the images and, with `plan.flip`, of the mirrored images.
        sums: Plain data for the header: the sums that the statistics of the index are made of.
    """
    tensors = {LABELS: labels}
    for suffix, fields in zip(('', FLIPPED), copies, strict=False):
        tensors |= {f'{name}{suffix}': tensor.contiguous() for name, tensor in fields.items()}
        checksums = row_checksums(labels.numpy(), [_rows_of_bytes(tensor) for tensor in fields.values()])
        tensors[f'{CHECKSUMS}{suffix}'] = torch.from_numpy(checksums.view(np.int64))
    # One key: safetensors writes several keys in an order that differs between runs.
    notes = json.dumps(dict(version=VERSION, plan=plan.sha256, sums=sums), sort_keys=True)
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_NOTES: notes})


def _rows_of_bytes(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().reshape(len(tensor), math.prod(tensor.shape[1:])).view(torch.uint8).numpy()
