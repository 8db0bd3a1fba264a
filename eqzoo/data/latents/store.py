"""What every data set of latents does alike: keys to ready batches, in the units of a generator."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from eqzoo.data.latents.format import (
    INDEX,
    LABELS,
    REMEDY,
    Copy,
    Index,
    MappedTensors,
    coins,
    convert_rows,
    open_shard,
    read_index,
    row_checksums,
    shard_name,
)
from eqzoo.data.loaders import Key
from eqzoo.normalization import normalization_difference
from eqzoo.registry import DATASETS, Requirement

# What a batch calls its columns and what an item calls them.
_SINGULAR = {'labels': 'label', 'indices': 'index', 'draws': 'draw', 'images': 'image'}
_NUMBERS = ('labels', 'indices', 'draws')


class LatentDataset(Dataset):
    """Latents of images, asked with (index, draw).

    `__getitems__` makes a whole batch at once, which `collate` hands on. A batch is
    `dict(mean, labels, indices, draws, unreadable=[])` with `mean` (B, C, h, w) float32 in
    generator units, and `std` as large where the latents have a posterior; of a codebook
    `codes` (B, h, w) int64 stand for both. `features` (B, T, D) float32 and `images`
    (B, 3, H, W) uint8 come along where there are any.

    Args:
        shift: Of the normalisation `(z - shift) * scale` that batches went through, (C,); None of codes.
        scale: Likewise.
        autoencoder: What made the latents, as far as known: `sha256` and `config`.
        latent_shape: (C, h, w); (h, w) of codes.
        classes: Names of the classes.
        flip: Whether the mirrored image's latents are taken with probability 0.5, as a function of (seed, draw).
        seed: Of the flips.
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
        if seed < 0:
            raise ValueError(f'{type(self).__name__}.seed must not be negative, got {seed}.')
        self.flip, self.seed = flip, seed
        self.latent_shape, self.classes = tuple(latent_shape), list(classes)
        self._shift, self._scale = shift, scale
        self._made_by = dict(autoencoder)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _read(self, indices: list[int], flipped: list[bool]) -> dict[str, Tensor]:
        """Return `labels`, and `mean` and the like in generator units."""

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
        """What made the latents: `sha256` and `config`, None where unknown, and `normalization` (shift, scale)."""
        known = dict(shift=list(self._shift), scale=list(self._scale)) if self._scale is not None else None
        return {'sha256': None, 'config': None, **self._made_by, 'normalization': known}

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`, an index or (index, draw): a batch's columns without their first axis."""
        batch = self.__getitems__([key])
        del batch['unreadable']
        item = {_SINGULAR.get(name, name): value[0] for name, value in batch.items()}
        return item | {_SINGULAR[name]: int(batch[name][0]) for name in _NUMBERS}

    def __getitems__(self, keys: Sequence[Key]) -> dict[str, Any]:
        """Return the batch of `keys`, each an index or (index, draw).

        Raises:
            IndexError: If an index is out of range.
            ValueError: If what is stored is damaged, with its place.
        """
        pairs = np.array([key if isinstance(key, tuple) else (key, key) for key in keys], np.int64)
        indices, draws = pairs[:, 0], pairs[:, 1]
        if indices.min() < 0 or indices.max() >= len(self):
            outside = indices[(indices < 0) | (indices >= len(self))][0]
            raise IndexError(f'Index {outside} is not in 0 to {len(self) - 1}.')
        flipped = coins(self.seed, draws) if self.flip else np.zeros(len(draws), bool)
        batch: dict[str, Any] = self._read(indices.tolist(), flipped.tolist())
        numbers = dict(indices=torch.from_numpy(indices.copy()), draws=torch.from_numpy(draws.copy()))
        return {**batch, **numbers, 'unreadable': []}

    def _units(self, name: str) -> tuple[Any, Any]:
        """Return shift and scale of a stored field, as `convert_rows` takes them."""
        if self._scale is None or name not in ('mean', 'std'):
            return None, None
        shift, scale = (np.array(each, np.float32)[:, None, None] for each in (self._shift, self._scale))
        return shift if name == 'mean' and shift.any() else None, None if (scale == 1).all() else scale

    def collate(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return what `__getitems__` made, which is a batch already."""
        return batch

    def check_autoencoder(self, sha256: str, shift: Tensor, scale: Tensor) -> None:
        """Compare an autoencoder with the one that made these latents.

        Args:
            sha256: Its `eqzoo.checkpoints.autoencoder_digest`.
            shift: Of its normalisation, (C,).
            scale: Likewise.

        Raises:
            ValueError: If it is another one, or its normalisation is.
        """
        known = self._made_by.get('sha256')
        if known not in (None, sha256):
            raise ValueError(
                f'{self._place()}: these latents are of the autoencoder {known[:12]}…, the config has {sha256[:12]}…; '
                'accepted is the same weights; set model.autoencoder.weights to those that made them, or write a '
                'store of these: python tools/cache_latents.py CONFIG --out NEW_FOLDER.'
            )
        if self._scale is None:
            return
        stored, given = dict(shift=self._shift, scale=self._scale), dict(shift=shift, scale=scale)
        name = normalization_difference(stored, given)
        if name is not None:
            raise ValueError(
                f'{self._place()}: these latents are normalised with {name} {_shown(torch.tensor(stored[name]))}, the '
                f'autoencoder has {_shown(given[name])}; accepted is the same. {self._renormalize()}'
            )

    def _place(self) -> str:
        return type(self).__name__

    def _renormalize(self) -> str:
        return 'Set shift and scale, or mean and std, of model.autoencoder to those.'


def empty_batch(shapes: Mapping[str, tuple[int, ...]], count: int) -> dict[str, Tensor]:
    """Return uninitialised `labels` (B,) and tensors (B, …): float32, and int64 of codes; one piece of memory.

    In a loader's worker it is memory that the main process shares, as in torch's `default_collate`: what is
    made elsewhere would be copied there.
    """
    kinds = {'labels': (torch.int64, ())}
    kinds |= {name: (torch.int64 if name == 'codes' else torch.float32, shape) for name, shape in shapes.items()}
    sizes = [count * math.prod(shape) * dtype.itemsize for dtype, shape in kinds.values()]
    if get_worker_info() is None:
        memory = torch.from_numpy(np.empty(sum(sizes), np.uint8))  # numpy asks for huge pages
    else:
        memory = torch.tensor([], dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(sum(sizes)))
    pieces = zip(kinds.items(), memory.split(sizes), strict=True)
    return {name: piece.view(dtype).view(count, *shape) for (name, (dtype, shape)), piece in pieces}


def _shown(values: Tensor) -> str:
    return (
        '('
        + ', '.join(f'{value:.5g}' for value in values.flatten()[:4].tolist())
        + (', …)' if len(values) > 4 else ')')
    )


_ROWS_AT_ONCE = 32


@DATASETS.register_module()
class LatentStore(LatentDataset):
    """The latents of a set of images, or their codes, read in any order without loading them.

    Shards are mapped into memory; each row is checked against its CRC-32 when it is read. The
    store knows the autoencoder's normalisation, so batches are in generator units.

    Args:
        root: The folder that `tools/cache_latents.py` wrote.
        flip: Whether to take the mirrored image's latents with probability 0.5, as a function of
            (seed, draw). They have to be in the store.
        images: The data set that the latents are of; its pixels then come along, mirrored where
            the latents are.
        seed: Of the flips.

    Raises:
        FileNotFoundError: If there is no store at `root`, or a shard of it is missing.
        ValueError: If it is damaged or of another version, has no mirrored copy to flip to, or
            `images` are not those that it was made of.
    """

    def __init__(self, root: str, *, flip: bool = False, images: Dataset | None = None, seed: int = 0) -> None:
        self.root = Path(root).expanduser()
        self.index = read_index(self.root)
        self.plan = self.index.plan
        _check_files(self.root, self.index)
        if flip and not self.plan.flip:
            raise ValueError(
                f'LatentStore.flip: {self.root} has no mirrored copy; accepted is flip=False; or write a store that '
                f'has one: {REMEDY} --flip --out NEW_FOLDER.'
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
        self._copies: dict[tuple[int, bool], Copy] = {}
        self._rows: list[np.ndarray] | None = None

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return what keeps the latents from being read: no store, or a damaged one."""
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
        """Size of the codebook, if the store is of codes."""
        return self.plan.num_codes

    def __len__(self) -> int:
        return self.plan.num_images

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_copies': {}, '_rows': None}  # else all latents would be in the pickle

    def labels(self) -> list[int]:
        """Return each image's label, without reading a latent."""
        columns = (MappedTensors(self.root / name).rows(LABELS) for name in self.index.shards)
        return np.concatenate([column.view(np.int64).ravel() for column in columns]).tolist()

    def identity(self) -> dict[str, Any]:
        """Return what tells these latents from others, for metric cards; no latent is read."""
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
            f'LatentStore: {len(self)} {what} of {self.num_classes} classes from {self.root.name}, '
            f'autoencoder {self.plan.autoencoder[:8]}{flip}'
        )

    def damaged_rows(self, shard: int) -> list[str]:
        """Read a whole shard and return the places of the rows whose checksum fails."""
        first, count = self.plan.rows_of(shard).start, len(self.plan.rows_of(shard))
        return [
            self._row_of(first + row, flipped)
            for flipped in ((False, True) if self.plan.flip else (False,))
            for start in range(0, count, _ROWS_AT_ONCE)
            for row in self._copy(shard, flipped).damaged(slice(start, min(start + _ROWS_AT_ONCE, count)))
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
        """Copy a few rows, check them, and turn them into `batch`, while they are in the processor's cache."""
        scratch = [rows[: len(indices)] for rows in self._scratch()]
        labels, checksums = np.empty(len(indices), np.int64), np.empty(len(indices), np.uint64)
        for place, index in enumerate(indices):
            shard, row = divmod(index, self.plan.shard_images)
            copy = self._copy(shard, flipped[place])
            for target, rows in zip(scratch, copy.fields, strict=True):
                target[place] = rows[row]
            labels[place], checksums[place] = copy.labels[row], copy.checksums[row]
        damaged = np.flatnonzero(row_checksums(labels, scratch) != checksums)
        if len(damaged):
            raise ValueError(
                f'{self._row_of(indices[damaged[0]], flipped[damaged[0]])}: its checksum differs: the file is damaged; '
                f'delete it and run {REMEDY}, which writes what is missing.'
            )
        batch['labels'].numpy()[:] = labels
        for (name, field), rows in zip(self.plan.fields.items(), scratch, strict=True):
            convert_rows(rows, field, batch[name].numpy(), *self._units(name))

    def _scratch(self) -> list[np.ndarray]:
        if self._rows is None:
            self._rows = [np.empty((_ROWS_AT_ONCE, field.num_bytes), np.uint8) for field in self.plan.fields.values()]
        return self._rows

    def _copy(self, shard: int, flipped: bool) -> Copy:
        if (shard, flipped) not in self._copies:
            tensors = open_shard(self.root, shard, self.plan)
            self._copies[shard, flipped] = Copy(tensors, list(self.plan.fields), flipped=flipped)
        return self._copies[shard, flipped]

    def _image(self, index: int, flipped: bool) -> Tensor:
        # As it was cached, whatever the draw: a random crop would be another.
        item = self.images[index, index]
        if 'unreadable' in item:
            raise ValueError(f'LatentStore.images: {item["unreadable"]} cannot be read any more; restore it.')
        return item['image'].flip(2) if flipped else item['image']

    def _row_of(self, index: int, flipped: bool) -> str:
        shard, row = divmod(index, self.plan.shard_images)
        return f'{self.root / shard_name(shard)}, row {row} (image {index}{", mirrored" if flipped else ""})'

    def _place(self) -> str:
        return f'LatentStore {self.root}'

    def _renormalize(self) -> str:
        return f'Let the store know: {REMEDY}, which takes seconds where the weights are the same.'


def _check_files(root: Path, index: Index) -> None:
    for name, size in index.shards.items():
        path = root / name
        if not path.is_file():
            raise FileNotFoundError(
                f'{path}: missing shard of {len(index.shards)}; run {REMEDY}, which writes what is missing.'
            )
        if path.stat().st_size != size:
            raise ValueError(
                f'{path}: truncated shard: {path.stat().st_size:,} bytes, {size:,} expected; delete it and run '
                f'{REMEDY}, which writes what is missing.'
            )


def _check_images(images: Any, index: Index) -> None:
    given, wanted = dict(images.identity()), dict(index.images)
    differences = [
        f'{key} {given.get(key)!r}, not {wanted.get(key)!r}'
        for key in {**wanted, **given}
        if key != 'root' and given.get(key) != wanted.get(key)
    ]
    if differences:
        raise ValueError(
            f'LatentStore.images: not the images that the latents are of: {"; ".join(differences)}; accepted is the '
            'very data set that was cached; describe it as the config did that wrote the store.'
        )
