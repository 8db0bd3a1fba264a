"""Latents in the formats of fast-DiT and LightningDiT."""

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqzoo.data.latents.format import MappedTensors, convert_rows
from eqzoo.data.latents.store import LatentDataset, empty_batch
from eqzoo.registry import DATASETS, Requirement


class ForeignLatents(LatentDataset):
    """Latents that another project drew once from their posteriors: there is no std, no checksum, no autoencoder."""

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return what keeps the latents from being read."""
        root = arguments.get('root')
        remedy = f'Set root=FOLDER of this {cls.__name__}.'
        if not root:
            return [Requirement(f'{cls.__name__}: no root is given.', 'the config', remedy)]
        try:
            cls(**arguments)
        except (OSError, ValueError) as error:
            return [Requirement(f'{cls.__name__}: {error}', str(root), remedy)]
        return []

    def _check_label(self, label: int, place: str) -> int:
        if not 0 <= label < self.num_classes:
            raise ValueError(
                f'{place}: label {label}; accepted are 0 to {self.num_classes - 1}; set num_classes of this '
                f'{type(self).__name__} to more, or restore the file.'
            )
        return label


def class_names(where: str, num_classes: int) -> list[str]:
    """Return the labels' names, which are their numbers.

    Raises:
        ValueError: If there is not one.
    """
    if num_classes < 1:
        raise ValueError(f'{where}.num_classes must be at least 1, got {num_classes}.')
    return [str(label) for label in range(num_classes)]


def listing_digest(lines: Iterable[str]) -> str:
    """Return a sha256 over lines of text."""
    listing = hashlib.sha256()
    for line in lines:
        listing.update(f'{line}\n'.encode(errors='surrogateescape'))
    return listing.hexdigest()


_FEATURES, _LABELS = '_features', '_labels'


@DATASETS.register_module()
class NpyLatents(ForeignLatents):
    """Folders as fast-DiT's and EQ-VAE's `extract_features.py` write them.

    `imagenet256_features/{step}.npy` (1, C, h, w), or `{rank}-{step}.npy`, drawn once from
    their posteriors and scaled already, one frozen flip in them; and
    `imagenet256_labels/` with files (1,) of the same names. Images are in the order of the
    numbers in the names. Many small files are slow; `tools/cache_latents.py` writes a store.

    Args:
        root: The folder with the two, whose names may begin otherwise.
        num_classes: K; labels are 0 to K - 1.
        scale: The factor that is in the latents, which `autoencoder['normalization']` then
            states; both projects' default is SD-VAE's.

    Raises:
        FileNotFoundError: If there are no such folders, or files missing in one of them.
        ValueError: If there are several, or an argument is out of range.
    """

    def __init__(self, root: str, num_classes: int = 1000, *, scale: float = 0.18215) -> None:
        if not scale > 0:
            raise ValueError(f'NpyLatents.scale must be positive, got {scale}.')
        self.root = Path(root).expanduser()
        self._latents, self._labels_folder = _folders(self.root)
        self._names = _names(self._latents, self._labels_folder)
        shape = self._load(self._latents / self._names[0]).shape
        if len(shape) != 3:
            raise ValueError(
                f'{self._latents / self._names[0]}: latents (1, {", ".join(map(str, shape))}); accepted is '
                '(1, C, h, w); give the folder that extract_features.py wrote.'
            )
        super().__init__(
            [0.0] * shape[0],
            [scale] * shape[0],  # which the files have in them: `_read` leaves them as they are
            autoencoder={},
            latent_shape=shape,
            classes=class_names('NpyLatents', num_classes),
            flip=False,
            seed=0,
        )
        self.scale = scale

    def __len__(self) -> int:
        return len(self._names)

    def labels(self) -> list[int]:
        """Return each image's label; a small file is read for each."""
        return [self._label(name) for name in self._names]

    def identity(self) -> dict[str, Any]:
        """Return what tells these latents from others, for metric cards: the names and the scale."""
        return dict(
            kind='NpyLatents',
            root=self.root.name,
            num_images=len(self),
            normalization=self.autoencoder['normalization'],
            sha256=listing_digest(self._names),
        )

    def describe(self) -> str:
        """Return one line about this dataset."""
        shape = 'x'.join(map(str, self.latent_shape))
        return (
            f'NpyLatents: {len(self)} latents {shape} of {self.num_classes} classes from {self.root.name}, drawn once, '
            f'scaled by {self.scale:g}'
        )

    def _read(self, indices: list[int], flipped: list[bool]) -> dict[str, Tensor]:
        latents = np.empty((len(indices), *self.latent_shape), np.float32)
        for place, index in enumerate(indices):
            path = self._latents / self._names[index]
            latent = self._load(path)
            if latent.shape != self.latent_shape:
                raise ValueError(
                    f'{path}: {(1, *latent.shape)}; the first is {(1, *self.latent_shape)}; keep one kind.'
                )
            latents[place] = latent
        labels = [self._label(self._names[index]) for index in indices]
        return dict(mean=torch.from_numpy(latents), labels=torch.tensor(labels))

    def _label(self, name: str) -> int:
        return self._check_label(int(self._load(self._labels_folder / name)), str(self._labels_folder / name))

    @staticmethod
    def _load(path: Path) -> np.ndarray:
        """Return the one row of a file."""
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f'{path}: damaged or no .npy file ({error}); restore it.') from None
        if values.ndim < 1 or len(values) != 1:
            raise ValueError(f'{path}: shape {values.shape}; accepted is one image a file, (1, …).')
        return values[0]


def _folders(root: Path) -> tuple[Path, Path]:
    pairs = [
        (folder, folder.with_name(f'{folder.name.removesuffix(_FEATURES)}{_LABELS}'))
        for folder in sorted(root.glob(f'*{_FEATURES}'))
    ]
    pairs = [pair for pair in pairs if all(folder.is_dir() for folder in pair)]
    if not pairs:
        raise FileNotFoundError(
            f'{root}: no latents in .npy files: there is no pair of folders such as imagenet256_features and '
            'imagenet256_labels here.'
        )
    if len(pairs) > 1:
        found = ', '.join(latents.name for latents, _ in pairs)
        raise ValueError(f'{root}: several sets of latents: {found}; move each pair to a folder of its own.')
    return pairs[0]


def _names(latents: Path, labels: Path) -> list[str]:
    names, labelled = ({path.name for path in folder.glob('*.npy')} for folder in (latents, labels))
    if not names:
        raise FileNotFoundError(f'{latents}: no .npy files here.')
    lacking = sorted(names ^ labelled)
    if lacking:
        raise FileNotFoundError(
            f'{latents}: {len(lacking)} files have no partner of the same name in {labels.name}, or are missing here: '
            f'{lacking[0]}; restore them.'
        )
    return sorted(names, key=lambda name: ([int(number) for number in re.findall(r'\d+', name)], name))


STATISTICS = 'latents_stats.pt'
_LATENTS, _FLIPPED, _LABELS = 'latents', 'latents_flip', 'labels'


@DATASETS.register_module()
class LightningDiTLatents(ForeignLatents):
    """Shards as LightningDiT's `extract_features.py` writes them, read where they are.

    `*.safetensors` with `latents` and `latents_flip` (N, C, h, w), raw and drawn once from
    their posteriors, and `labels` (N,); and `latents_stats.pt` with `mean` and `std`
    (1, C, 1, 1). Batches are normalised as LightningDiT's loader does: `(z - mean) / std *
    latent_multiplier`; `autoencoder['normalization']` states it.

    Args:
        root: The folder with the shards.
        num_classes: K; labels are 0 to K - 1.
        flip: Whether to take `latents_flip` with probability 0.5, as a function of (seed, draw).
            LightningDiT always does.
        latent_norm: Whether to normalise by the statistics, as for VA-VAE; else `z * latent_multiplier`.
        latent_multiplier: 1 for VA-VAE, 0.18215 for SD-VAE, as LightningDiT's configs have it.
        seed: Of the flips.

    Raises:
        FileNotFoundError: If there are no shards at `root`, or no statistics.
        ValueError: If a shard is cut off or has other tensors, the statistics are not such, or an
            argument is out of range.
    """

    def __init__(
        self,
        root: str,
        num_classes: int = 1000,
        *,
        flip: bool = False,
        latent_norm: bool = True,
        latent_multiplier: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not latent_multiplier > 0:
            raise ValueError(f'LightningDiTLatents.latent_multiplier must be positive, got {latent_multiplier}.')
        self.root = Path(root).expanduser()
        self._names = sorted(path.name for path in self.root.glob('*.safetensors'))
        if not self._names:
            raise FileNotFoundError(f'{self.root}: no latents of LightningDiT: there are no *.safetensors here.')
        needed = (_LATENTS, _FLIPPED, _LABELS) if flip else (_LATENTS, _LABELS)
        shards = [_checked(MappedTensors(self.root / name), needed) for name in self._names]
        fields = {shard.fields[_LATENTS][0] for shard in shards}
        if len(fields) > 1:
            raise ValueError(
                f'{self.root}: shards of several kinds: {sorted(map(str, fields))}; keep one set a folder.'
            )
        self._field = fields.pop()
        self._starts = np.cumsum([0] + [shard.fields[_LATENTS][1] for shard in shards])
        channels = self._field.shape[0]
        mean, std = _statistics(self.root / STATISTICS, channels) if latent_norm else (torch.zeros(channels), 1.0)
        super().__init__(
            mean.tolist(),
            (torch.full((channels,), latent_multiplier, dtype=torch.float64) / std).tolist(),
            autoencoder={},
            latent_shape=self._field.shape,
            classes=class_names('LightningDiTLatents', num_classes),
            flip=flip,
            seed=seed,
        )
        self._mapped: dict[int, MappedTensors] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_mapped': {}}  # else all latents would be in the pickle

    def labels(self) -> list[int]:
        """Return each image's label, without reading a latent."""
        shards = (self._shard(number) for number in range(len(self._names)))
        return np.concatenate([shard.rows(_LABELS).view(np.int64).ravel() for shard in shards]).tolist()

    def identity(self) -> dict[str, Any]:
        """Return what tells these latents from others, for metric cards: shards, rows and normalisation."""
        rows = np.diff(self._starts).tolist()
        return dict(
            kind='LightningDiTLatents',
            root=self.root.name,
            num_images=len(self),
            flip=self.flip,
            normalization=self.autoencoder['normalization'],
            sha256=listing_digest(f'{name} {count}' for name, count in zip(self._names, rows, strict=True)),
        )

    def describe(self) -> str:
        """Return one line about this dataset."""
        shape = 'x'.join(map(str, self.latent_shape))
        flip = ', flipped at random' if self.flip else ''
        return (
            f'LightningDiTLatents: {len(self)} latents {shape} of {self.num_classes} classes from {self.root.name}, '
            f'drawn once{flip}'
        )

    def _read(self, indices: list[int], flipped: list[bool]) -> dict[str, Tensor]:
        buffer = np.empty((len(indices), self._field.num_bytes), np.uint8)
        batch = empty_batch({'mean': self._field.shape}, len(indices))
        numbers = (np.searchsorted(self._starts, indices, side='right') - 1).tolist()
        for place, (number, index) in enumerate(zip(numbers, indices, strict=True)):
            shard = self._shard(number)
            row = index - int(self._starts[number])
            buffer[place] = shard.rows(_FLIPPED if flipped[place] else _LATENTS)[row]
            label = int(shard.rows(_LABELS)[row].view(np.int64)[0])
            batch['labels'][place] = self._check_label(label, f'{shard.path}, row {row}')
        convert_rows(buffer, self._field, batch['mean'].numpy(), *self._units('mean'))
        return batch

    def _shard(self, number: int) -> MappedTensors:
        if number not in self._mapped:
            self._mapped[number] = MappedTensors(self.root / self._names[number])
        return self._mapped[number]


def _checked(shard: MappedTensors, needed: Sequence[str]) -> MappedTensors:
    found = {name: (count, *field.shape) for name, (field, count) in shard.fields.items()}
    shapes = {found.get(name) for name in needed if name != _LABELS}
    latents = found.get(_LATENTS, ())
    if len(shapes) > 1 or len(latents) != 4 or found.get(_LABELS) != latents[:1]:
        raise ValueError(
            f'{shard.path}: no shard of LightningDiT: it has {found}; accepted are {", ".join(needed)}, with latents '
            '(N, C, h, w) and as many labels (N,); give the folder that its extract_features.py wrote.'
        )
    if shard.fields[_LABELS][0].dtype != 'int64':
        raise ValueError(f'{shard.path}: labels are {shard.fields[_LABELS][0].dtype}; accepted is int64.')
    return shard


def _statistics(path: Path, channels: int) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: the latents are raw, and the file with their mean and std is not here; copy it beside the '
            'shards, or set latent_norm=False.'
        )
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        mean, std = (content[name].double().reshape(channels) for name in ('mean', 'std'))
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
    ) as error:
        raise ValueError(
            f'{path}: no statistics of {channels} channels ({type(error).__name__}); accepted are tensors mean and '
            f'std of shape (1, {channels}, 1, 1); copy the file that belongs to the shards.'
        ) from None
    if not (std > 0).all():
        raise ValueError(f'{path}: std must be positive, got {std.tolist()}; copy the file that belongs to the shards.')
    return mean, std
