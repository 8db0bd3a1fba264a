"""Datasets of latents: the base class of all, and the latent store, read in any order."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from eqzoo.data.latents.format import (
    INDEX,
    LABELS,
    REMEDY,
    Field,
    MappedTensors,
    ShardRows,
    StoreIndex,
    open_shard,
    read_index,
    row_checksums,
    shard_name,
)
from eqzoo.data.loaders import Key
from eqzoo.data.workers import batch_memory
from eqzoo.normalization import normalization_difference
from eqzoo.registry import DATASETS, Requirement
from eqzoo.registry.ranges import NonNegativeInt
from eqzoo.text import counted

# The columns of a batch and their names in an item.
_SINGULAR = {'labels': 'label', 'indices': 'index', 'draws': 'draw', 'images': 'image'}
_NUMBERS = ('labels', 'indices', 'draws')

_ROWS_AT_ONCE = 32  # rows that are copied, verified and converted while they are in the cache of the processor
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class LatentDataset(Dataset):
    """Base class of datasets of latents; keys are an index or (index, draw).

    `__getitems__` returns a whole batch, which `collate` passes on. A batch is
    `dict(mean, labels, indices, draws, unreadable=[])` with `mean` (B, C, h, w) float32 in
    generator units, and `std` of the same shape if the latents have a posterior; with a codebook,
    `codes` (B, h, w) int64 replace both. `features` (B, T, D) float32 and `images`
    (B, 3, H, W) uint8 are added if there are any.

    Args:
        shift: Shift of the normalisation `(z - shift) * scale` of the batches, (C,); None for codes.
        scale: Its scale, (C,); None for codes.
        autoencoder: The autoencoder of the latents, as far as known: `sha256` and `config`.
        latent_shape: (C, h, w); (h, w) of codes.
        classes: Names of the classes.
        flip: Whether to use the latents of the mirrored image with probability 0.5, as a function of (seed, draw).
        seed: Seed of the flips.
    """

    def __init__(
        self,
        shift: Sequence[float] | None,
        scale: Sequence[float] | None,
        *,
        autoencoder: Mapping[str, Any],
        latent_shape: tuple[int, ...],
        classes: Sequence[str],
        flip: bool,
        seed: int,
    ) -> None:
        self.flip, self.seed = flip, seed
        self.latent_shape, self.classes = tuple(latent_shape), list(classes)
        self._shift, self._scale = shift, scale
        self._made_by = dict(autoencoder)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _read(self, indices: list[int], flipped: list[bool]) -> dict[str, Tensor]:
        """Return `labels` and the latents in generator units, as the columns of a batch."""

    @property
    def kind(self) -> str:
        """'moments', or 'codes' of a codebook."""
        return 'moments' if self._scale is not None else 'codes'

    @property
    def num_classes(self) -> int:
        """K: labels are 0 to K - 1."""
        return len(self.classes)

    @property
    def autoencoder(self) -> dict[str, Any]:
        """The autoencoder of the latents: `sha256` and `config`, None if unknown, and `normalization`."""
        known = dict(shift=list(self._shift), scale=list(self._scale)) if self._scale is not None else None
        return {'sha256': None, 'config': None, **self._made_by, 'normalization': known}

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`, an index or (index, draw)."""
        batch = self.__getitems__([key])
        del batch['unreadable']
        item = {_SINGULAR.get(name, name): value[0] for name, value in batch.items()}
        return item | {_SINGULAR[name]: int(batch[name][0]) for name in _NUMBERS}

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        """Return the batch of `keys`, each an index or (index, draw).

        Raises:
            IndexError: If an index is out of range.
            ValueError: If a row is damaged, with its place.
        """
        pairs = np.array([key if isinstance(key, tuple) else (key, key) for key in keys], np.int64)
        indices, draws = pairs[:, 0], pairs[:, 1]
        if indices.min() < 0 or indices.max() >= len(self):
            outside = indices[(indices < 0) | (indices >= len(self))][0]
            raise IndexError(f'Index {outside} is not in 0 to {len(self) - 1}.')
        flipped = draw_flips(self.seed, draws) if self.flip else np.zeros(len(draws), bool)
        batch: dict[str, Any] = self._read(indices.tolist(), flipped.tolist())
        numbers = dict(indices=torch.from_numpy(indices.copy()), draws=torch.from_numpy(draws.copy()))
        return {**batch, **numbers, 'unreadable': []}

    def _units(self, name: str) -> tuple[Any, Any]:
        """Return the shift and the scale of a stored field for `convert_rows`; None where they change nothing."""
        if self._scale is None or name not in ('mean', 'std'):
            return None, None
        shift, scale = (np.array(each, np.float32)[:, None, None] for each in (self._shift, self._scale))
        return shift if name == 'mean' and shift.any() else None, None if (scale == 1).all() else scale

    def collate(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch that `__getitems__` returned."""
        return batch

    def check_autoencoder(self, sha256: str, shift: Tensor, scale: Tensor) -> None:
        """Refuse an autoencoder that did not encode these latents.

        Args:
            sha256: Its `eqzoo.checkpoints.autoencoder_digest`.
            shift: Shift of its normalisation, (C,).
            scale: Scale of its normalisation, (C,).

        Raises:
            ValueError: If its weights or its normalisation differ.
        """
        known = self._made_by.get('sha256')
        if known not in (None, sha256):
            raise ValueError(
                f'{self._place()}: these latents are of the autoencoder {known[:12]}…, the config has {sha256[:12]}…; '
                'expected the same weights; set model.autoencoder.weights to those of the latents, or write a '
                f'store with the weights of the config: {REMEDY} --out NEW_FOLDER.'
            )
        if self._scale is None:
            return
        stored, given = dict(shift=self._shift, scale=self._scale), dict(shift=shift, scale=scale)
        name = normalization_difference(stored, given)
        if name is not None:
            raise ValueError(
                f'{self._place()}: these latents are normalised with {name} '
                f'{_first_values(torch.as_tensor(stored[name]))}, the autoencoder has {_first_values(given[name])}; '
                f'expected equal values. {self._normalization_remedy()}'
            )

    def _place(self) -> str:
        return type(self).__name__

    def _normalization_remedy(self) -> str:
        return 'Set shift and scale, or mean and std, of model.autoencoder to those of the latents.'


@DATASETS.register_module()
class LatentStore(LatentDataset):
    """Latents or codes of a set of images, read in any order without loading the store.

    Shards are mapped into memory, and each row is verified against its checksum when it is read.
    The store has the normalisation of the autoencoder, so batches are in generator units.

    Args:
        root: The folder that `tools/cache_latents.py` wrote.
        flip: Whether to use the latents of the mirrored image with probability 0.5, as a function
            of (seed, draw). The store must have them.
        images: The dataset of the encoded images; adds its pixels to the batches, mirrored
            where the latents are.
        seed: Seed of the flips.

    Raises:
        FileNotFoundError: If there is no store at `root`, or a shard is missing.
        ValueError: If the store is damaged or of another version, `flip` is set but the store has
            no mirrored copy, or `images` are not the encoded ones.
    """

    def __init__(
        self, root: str | Path, *, flip: bool = False, images: Dataset | None = None, seed: NonNegativeInt = 0
    ) -> None:
        self.root = Path(root).expanduser()
        self.index = read_index(self.root)
        self.plan = self.index.plan
        _check_files(self.root, self.index)
        if flip and not self.plan.flip:
            raise ValueError(
                f'LatentStore.flip: {self.root} has no mirrored copy; expected flip=False; or write a store with '
                f'one: {REMEDY} --flip --out NEW_FOLDER.'
            )
        fields = self.plan.fields
        is_codes = 'codes' in fields
        normalization = self.index.autoencoder['normalization']
        super().__init__(
            None if is_codes else normalization['shift'],
            None if is_codes else normalization['scale'],
            autoencoder=dict(sha256=self.plan.autoencoder, config=self.index.autoencoder['config']),
            latent_shape=fields['codes' if is_codes else 'mean'].shape,
            classes=self.index.classes,
            flip=flip,
            seed=seed,
        )
        if images is not None:
            _check_images(images, self.index)
        self.images = images
        self._shards: dict[tuple[int, bool], ShardRows] = {}
        self._scratch: list[np.ndarray] | None = None

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the reason why the latents cannot be read: no store, or a damaged one."""
        root = arguments.get('root')
        if not root:
            return [Requirement('LatentStore: no root is given.', 'the config', 'Set root=FOLDER of this dataset.')]
        try:
            cls(root, flip=arguments.get('flip', False), seed=arguments.get('seed', 0))
        except FileNotFoundError as error:
            what = f'LatentStore: {error}' if (Path(root).expanduser() / INDEX).is_file() else 'latent store'
            return [Requirement(what, str(root), REMEDY)]
        except (OSError, ValueError) as error:
            return [Requirement(f'LatentStore: {error}', str(root), REMEDY)]
        return []

    @property
    def num_codes(self) -> int | None:
        """Size of the codebook, if the store has codes."""
        return self.plan.num_codes

    def __len__(self) -> int:
        return self.plan.num_images

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_shards': {}, '_scratch': None}  # a pickled array holds its bytes: all latents

    def labels(self) -> list[int]:
        """Return the label of each image, without reading a latent."""
        return torch.cat([MappedTensors(self.root / name).tensors[LABELS] for name in self.index.shards]).tolist()

    def identity(self) -> dict[str, Any]:
        """Return the identity of these latents for metric cards; no latent is read."""
        return dict(
            kind='LatentStore',
            root=self.root.name,
            num_images=len(self),
            flip=self.flip,
            images=self.index.images,
            autoencoder=self.autoencoder['sha256'],
            normalization=self.autoencoder['normalization'],
            sha256=self.plan.sha256,
        )

    def describe(self) -> str:
        """Return one line about this dataset."""
        shape = 'x'.join(map(str, self.latent_shape))
        what = f'codes {shape} of {self.num_codes}' if self.kind == 'codes' else f'latents {shape}'
        flip = ', flipped at random' if self.flip else ''
        return (
            f'LatentStore: {len(self)} {what} of {counted(self.num_classes, "class")} from {self.root.name}, '
            f'autoencoder {self.plan.autoencoder[:8]}{flip}'
        )

    def damaged_rows(self, shard: int) -> list[str]:
        """Read a whole shard and return the places of the rows whose checksum fails."""
        return [
            self._row_name(self.plan.rows_of(shard)[row], flipped)
            for flipped in ((False, True) if self.plan.flip else (False,))
            for row in self._shard(shard, flipped).damaged()
        ]

    def _read(self, indices: list[int], flipped: list[bool]) -> dict[str, Tensor]:
        batch = empty_batch({name: field.shape for name, field in self.plan.fields.items()}, len(indices))
        for start in range(0, len(indices), _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, len(indices))
            piece = {name: tensor[start:stop] for name, tensor in batch.items()}
            self._read_rows(indices[start:stop], flipped[start:stop], piece)
        if self.images is not None:
            batch['images'] = torch.stack([self._image(*each) for each in zip(indices, flipped, strict=True)])
        return batch

    def _read_rows(self, indices: list[int], flipped: list[bool], batch: dict[str, Tensor]) -> None:
        """Copy up to `_ROWS_AT_ONCE` rows, verify them and convert them into `batch`."""
        if self._scratch is None:
            self._scratch = [np.empty((_ROWS_AT_ONCE, each.num_bytes), np.uint8) for each in self.plan.fields.values()]
        scratch = [rows[: len(indices)] for rows in self._scratch]
        labels, checksums = np.empty(len(indices), np.int64), np.empty(len(indices), np.uint64)
        for place, index in enumerate(indices):
            shard, row = divmod(index, self.plan.shard_images)
            stored = self._shard(shard, flipped[place])
            for target, rows in zip(scratch, stored.fields, strict=True):
                target[place] = rows[row]
            labels[place], checksums[place] = stored.labels[row], stored.checksums[row]
        damaged = np.flatnonzero(row_checksums(labels, scratch) != checksums)
        if len(damaged):
            raise ValueError(
                f'{self._row_name(indices[damaged[0]], flipped[damaged[0]])}: its checksum differs: the file is '
                f'damaged; delete it and run {REMEDY}, which writes the missing shards.'
            )
        batch['labels'].numpy()[:] = labels
        for (name, field), rows in zip(self.plan.fields.items(), scratch, strict=True):
            convert_rows(rows, field, batch[name].numpy(), *self._units(name))

    def _shard(self, number: int, flipped: bool) -> ShardRows:
        if (number, flipped) not in self._shards:
            shard = open_shard(self.root, number, self.plan)
            self._shards[number, flipped] = ShardRows(shard, list(self.plan.fields), flipped=flipped)
        return self._shards[number, flipped]

    def _image(self, index: int, flipped: bool) -> Tensor:
        # With draw = index, as it was cached: another draw may crop another part.
        item = self.images[index, index]
        if 'unreadable' in item:
            reason = f' ({item["reason"]})' if 'reason' in item else ''
            raise ValueError(f'LatentStore.images: {item["unreadable"]} cannot be read any more{reason}; restore it.')
        return item['image'].flip(2) if flipped else item['image']

    def _row_name(self, index: int, flipped: bool) -> str:
        shard, row = divmod(index, self.plan.shard_images)
        return f'{self.root / shard_name(shard)}, row {row} (image {index}{", mirrored" if flipped else ""})'

    def _place(self) -> str:
        return f'LatentStore {self.root}'

    def _normalization_remedy(self) -> str:
        return (
            f'Update the store: {REMEDY}, which takes seconds if the weights are the same. If they were measured again '
            'and written to a file, set model.autoencoder.weights to that file instead.'
        )


def _check_files(root: Path, index: StoreIndex) -> None:
    for name, size in index.shards.items():
        path = root / name
        if not path.is_file():
            raise FileNotFoundError(
                f'{path}: missing shard of {len(index.shards)}; run {REMEDY}, which writes the missing shards.'
            )
        if path.stat().st_size != size:
            raise ValueError(
                f'{path}: truncated shard: {path.stat().st_size:,} bytes, {size:,} expected; delete it and run '
                f'{REMEDY}, which writes the missing shards.'
            )


def _check_images(images: Any, index: StoreIndex) -> None:
    given, wanted = dict(images.identity()), dict(index.images)
    differences = [
        f'{key} {given.get(key)!r}, not {wanted.get(key)!r}'
        for key in {**wanted, **given}
        if key != 'root' and given.get(key) != wanted.get(key)
    ]
    if differences:
        raise ValueError(
            f'LatentStore.images: not the images of these latents: {"; ".join(differences)}; expected the dataset '
            'that was cached; copy its settings from the config that wrote the store.'
        )


def draw_flips(seed: int, draws: np.ndarray) -> np.ndarray:
    """Return True with probability 0.5 for each of `draws` (B,), as a function of (seed, draw).

    The top bit of SplitMix64 (Steele, Lea and Flood 2014), which numpy computes for a whole batch. A
    generator for each draw would take longer than reading its latents, and numpy's counter-based Philox
    would give other flips than earlier runs drew.

    Example:
        >>> draw_flips(0, np.arange(6)).tolist() == [bool(draw_flips(0, np.array([draw]))[0]) for draw in range(6)]
        True
    """
    start = _split_mix(np.array([seed], np.uint64) + np.uint64(1))
    return (_split_mix(start + _GOLDEN * draws.astype(np.uint64)) >> np.uint64(63)).astype(bool)


def _split_mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def convert_rows(
    rows: np.ndarray, field: Field, out: np.ndarray, shift: np.ndarray | None = None, scale: np.ndarray | None = None
) -> None:
    """Convert rows of bytes (B, bytes of a row) into `out` (B, …), float32 or int64: `(value - shift) * scale`.

    Done by numpy on this thread: torch would wake other threads for microseconds of work.
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


def empty_batch(shapes: Mapping[str, tuple[int, ...]], count: int) -> dict[str, Tensor]:
    """Return uninitialised `labels` (B,) and tensors (B, …), float32 or, for codes, int64, in one `batch_memory`."""
    kinds = {'labels': (torch.int64, ())}
    kinds |= {name: (torch.int64 if name == 'codes' else torch.float32, shape) for name, shape in shapes.items()}
    sizes = [count * math.prod(shape) * dtype.itemsize for dtype, shape in kinds.values()]
    pieces = zip(kinds.items(), batch_memory(sum(sizes)).split(sizes), strict=True)
    return {name: piece.view(dtype).view(count, *shape) for (name, (dtype, shape)), piece in pieces}


def _first_values(values: Tensor) -> str:
    shown = ', '.join(f'{value:.5g}' for value in values.flatten()[:4].tolist())
    return f'({shown}{", …" if len(values) > 4 else ""})'
