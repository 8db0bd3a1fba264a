"""What a latent store says of itself: the plan that decides its content, and the index of what is there."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
