"""Latents in the formats of other projects: LightningDiT's shards, and the `.npy` files of fast-DiT and EQ-VAE."""

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqzoo.data.latents.format import STORAGE_TYPES, Field, MappedTensors
from eqzoo.data.latents.store import LatentDataset, convert_rows, empty_batch
from eqzoo.registry import DATASETS, Requirement
from eqzoo.registry.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from eqzoo.text import counted

_FEATURES_SUFFIX, _LABELS_SUFFIX = '_features', '_labels'  # folders of fast-DiT and EQ-VAE
_LATENTS, _FLIPPED, _LABELS = 'latents', 'latents_flip', 'labels'  # tensors of LightningDiT
_STATISTICS = 'latents_stats.pt'
# The errors of torch.load, of missing keys and of other shapes.
_UNLOADABLE = (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError)


class _ForeignLatents(LatentDataset):
    """Latents that another project drew once: without std, checksums and the hash of the autoencoder."""

    root: Path

    def __init__(
        self,
        shift: Sequence[float],
        scale: Sequence[float],
        *,
        latent_shape: tuple[int, ...],
        num_classes: int,
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        classes = [str(label) for label in range(num_classes)]
        super().__init__(shift, scale, autoencoder={}, latent_shape=latent_shape, classes=classes, flip=flip, seed=seed)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the reason why the latents cannot be read, if there is one."""
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
                f'{place}: label {label}; expected 0 to {self.num_classes - 1}; raise num_classes of this '
                f'{type(self).__name__}, or restore the file.'
            )
        return label


@DATASETS.register_module()
class LightningDiTLatents(_ForeignLatents):
    """Shards written by LightningDiT's `extract_features.py`, read in place.

    `*.safetensors` with `latents` and `latents_flip` (N, C, h, w), raw and drawn once from
    their posteriors, and `labels` (N,); and `latents_stats.pt` with `mean` and `std`
    (1, C, 1, 1). Batches are normalised as by LightningDiT's loader, `(z - mean) / std *
    latent_multiplier`, which `autoencoder['normalization']` states.

    Args:
        root: The folder with the shards.
        num_classes: K; labels are 0 to K - 1.
        flip: Whether to use `latents_flip` with probability 0.5, as a function of (seed, draw).
            LightningDiT always does.
        latent_norm: Whether to normalise by the statistics, as for VA-VAE; otherwise `z * latent_multiplier`.
        latent_multiplier: 1 for VA-VAE, 0.18215 for SD-VAE, as in LightningDiT's configs.
        seed: Seed of the flips.

    Raises:
        FileNotFoundError: If there are no shards at `root`, or no statistics.
        ValueError: If a shard is damaged or has other tensors, the statistics have another form, or an
            argument is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        num_classes: PositiveInt = 1000,
        *,
        flip: bool = False,
        latent_norm: bool = True,
        latent_multiplier: PositiveFloat = 1.0,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.root = Path(root).expanduser()
        self._names = sorted(path.name for path in self.root.glob('*.safetensors'))
        if not self._names:
            raise FileNotFoundError(f'{self.root}: no latents of LightningDiT: the folder has no *.safetensors.')
        needed = (_LATENTS, _FLIPPED, _LABELS) if flip else (_LATENTS, _LABELS)
        shards = [_checked(MappedTensors(self.root / name), needed) for name in self._names]
        fields = {shard.field(_LATENTS) for shard in shards}
        if len(fields) > 1:
            raise ValueError(
                f'{self.root}: shards of several kinds: {sorted(map(str, fields))}; keep one set in a folder.'
            )
        self._field: Field = fields.pop()
        self._starts = np.cumsum([0] + [len(shard.tensors[_LATENTS]) for shard in shards])
        channels = self._field.shape[0]
        mean, std = _read_statistics(self.root / _STATISTICS, channels) if latent_norm else (torch.zeros(channels), 1.0)
        super().__init__(
            mean.tolist(),
            (torch.full((channels,), latent_multiplier, dtype=torch.float64) / std).tolist(),
            latent_shape=self._field.shape,
            num_classes=num_classes,
            flip=flip,
            seed=seed,
        )
        self._mapped: dict[int, MappedTensors] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_mapped': {}}  # a pickled tensor holds its bytes: all latents

    def labels(self) -> list[int]:
        """Return the label of each image, without reading a latent."""
        return torch.cat([self._shard(number).tensors[_LABELS] for number in range(len(self._names))]).tolist()

    def identity(self) -> dict[str, Any]:
        """Return the identity of these latents for metric cards: shards, rows and normalisation."""
        rows = np.diff(self._starts).tolist()
        return dict(
            kind='LightningDiTLatents',
            root=self.root.name,
            num_images=len(self),
            flip=self.flip,
            normalization=self.autoencoder['normalization'],
            sha256=_listing_hash(f'{name} {count}' for name, count in zip(self._names, rows, strict=True)),
        )

    def describe(self) -> str:
        """Return one line about this dataset."""
        shape = 'x'.join(map(str, self.latent_shape))
        flip = ', flipped at random' if self.flip else ''
        return (
            f'LightningDiTLatents: {len(self)} latents {shape} of {counted(self.num_classes, "class")} '
            f'from {self.root.name}, drawn once{flip}'
        )

    def _read(self, indices: list[int], flipped: list[bool]) -> dict[str, Tensor]:
        buffer = np.empty((len(indices), self._field.num_bytes), np.uint8)
        batch = empty_batch({'mean': self._field.shape}, len(indices))
        numbers = (np.searchsorted(self._starts, indices, side='right') - 1).tolist()
        for place, (number, index) in enumerate(zip(numbers, indices, strict=True)):
            shard = self._shard(number)
            row = index - int(self._starts[number])
            buffer[place] = shard.rows(_FLIPPED if flipped[place] else _LATENTS)[row]
            batch['labels'][place] = self._check_label(int(shard.tensors[_LABELS][row]), f'{shard.path}, row {row}')
        convert_rows(buffer, self._field, batch['mean'].numpy(), *self._units('mean'))
        return batch

    def _shard(self, number: int) -> MappedTensors:
        if number not in self._mapped:
            self._mapped[number] = MappedTensors(self.root / self._names[number])
        return self._mapped[number]


def _checked(shard: MappedTensors, needed: Sequence[str]) -> MappedTensors:
    found = {name: tuple(tensor.shape) for name, tensor in shard.tensors.items()}
    shapes = {found.get(name) for name in needed if name != _LABELS}
    latents = found.get(_LATENTS, ())
    if len(shapes) > 1 or len(latents) != 4 or found.get(_LABELS) != latents[:1]:
        raise ValueError(
            f'{shard.path}: not a shard of LightningDiT: it has {found}; expected {", ".join(needed)}, with latents '
            '(N, C, h, w) and labels (N,); give the folder that its extract_features.py wrote.'
        )
    for name in needed:
        dtype, expected = shard.field(name).dtype, ('int64',) if name == _LABELS else STORAGE_TYPES
        if dtype not in expected:
            raise ValueError(f'{shard.path}: {name} are {dtype}; expected {" or ".join(expected)}.')
    return shard


def _read_statistics(path: Path, channels: int) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f'{path}: the latents are raw, and the file with their mean and std is missing; copy it beside the '
            'shards, or set latent_norm=False.'
        )
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        mean, std = (content[name].double().reshape(channels) for name in ('mean', 'std'))
    except _UNLOADABLE as error:
        raise ValueError(
            f'{path}: no statistics of {channels} channels ({type(error).__name__}); expected tensors mean and '
            f'std of shape (1, {channels}, 1, 1); copy the file that belongs to the shards.'
        ) from None
    if not (std > 0).all():
        raise ValueError(f'{path}: std must be positive, got {std.tolist()}; copy the file that belongs to the shards.')
    return mean, std


@DATASETS.register_module()
class NpyLatents(_ForeignLatents):
    """Folders written by the `extract_features.py` of fast-DiT and EQ-VAE.

    `imagenet256_features/{step}.npy` (1, C, h, w), or `{rank}-{step}.npy`, drawn once from
    their posteriors, already scaled, with one frozen flip; and `imagenet256_labels/` with
    files (1,) of the same names. Images are in the order of the numbers in the names. Many
    small files are slow; `tools/cache_latents.py` writes a store.

    Args:
        root: The folder that contains the two folders; their names may have another beginning.
        num_classes: K; labels are 0 to K - 1.
        scale: The factor in the latents, which `autoencoder['normalization']` states; the
            default of both projects is that of SD-VAE.

    Raises:
        FileNotFoundError: If there are no such folders, or one lacks files of the other.
        ValueError: If there are several pairs of folders, or an argument is out of range.
    """

    def __init__(self, root: str | Path, num_classes: PositiveInt = 1000, *, scale: PositiveFloat = 0.18215) -> None:
        self.root = Path(root).expanduser()
        self._latents, self._labels_folder = _folders(self.root)
        self._names = _names(self._latents, self._labels_folder)
        shape = self._load(self._latents / self._names[0]).shape
        if len(shape) != 3:
            raise ValueError(
                f'{self._latents / self._names[0]}: latents (1, {", ".join(map(str, shape))}); expected '
                '(1, C, h, w); give the folder that extract_features.py wrote.'
            )
        super().__init__(
            [0.0] * shape[0],
            [scale] * shape[0],  # already in the files: `_read` changes nothing
            latent_shape=shape,
            num_classes=num_classes,
        )
        self.scale = scale

    def __len__(self) -> int:
        return len(self._names)

    def labels(self) -> list[int]:
        """Return the label of each image; this reads one small file for each."""
        return [self._label(name) for name in self._names]

    def identity(self) -> dict[str, Any]:
        """Return the identity of these latents for metric cards: the names and the scale."""
        return dict(
            kind='NpyLatents',
            root=self.root.name,
            num_images=len(self),
            normalization=self.autoencoder['normalization'],
            sha256=_listing_hash(self._names),
        )

    def describe(self) -> str:
        """Return one line about this dataset."""
        shape = 'x'.join(map(str, self.latent_shape))
        return (
            f'NpyLatents: {len(self)} latents {shape} of {counted(self.num_classes, "class")} '
            f'from {self.root.name}, drawn once, scaled by {self.scale:g}'
        )

    def _read(self, indices: list[int], flipped: list[bool]) -> dict[str, Tensor]:
        latents = np.empty((len(indices), *self.latent_shape), np.float32)
        for place, index in enumerate(indices):
            path = self._latents / self._names[index]
            latent = self._load(path)
            if latent.shape != self.latent_shape:
                raise ValueError(
                    f'{path}: {(1, *latent.shape)}; the first is {(1, *self.latent_shape)}; keep one shape in a folder.'
                )
            latents[place] = latent
        labels = [self._label(self._names[index]) for index in indices]
        return dict(mean=torch.from_numpy(latents), labels=torch.tensor(labels))

    def _label(self, name: str) -> int:
        return self._check_label(int(self._load(self._labels_folder / name)), str(self._labels_folder / name))

    @staticmethod
    def _load(path: Path) -> np.ndarray:
        """Return the only row of a file."""
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f'{path}: damaged or not a .npy file ({error}); restore it.') from None
        if values.ndim < 1 or len(values) != 1:
            raise ValueError(f'{path}: shape {values.shape}; expected one image, (1, …).')
        return values[0]


def _folders(root: Path) -> tuple[Path, Path]:
    pairs = [
        (folder, folder.with_name(f'{folder.name.removesuffix(_FEATURES_SUFFIX)}{_LABELS_SUFFIX}'))
        for folder in sorted(root.glob(f'*{_FEATURES_SUFFIX}'))
    ]
    pairs = [pair for pair in pairs if all(folder.is_dir() for folder in pair)]
    if not pairs:
        raise FileNotFoundError(
            f'{root}: no latents in .npy files: expected a pair of folders such as imagenet256_features and '
            'imagenet256_labels.'
        )
    if len(pairs) > 1:
        found = ', '.join(latents.name for latents, _ in pairs)
        raise ValueError(f'{root}: several sets of latents: {found}; move each pair to a folder of its own.')
    return pairs[0]


def _names(latents: Path, labels: Path) -> list[str]:
    names, labelled = ({path.name for path in folder.glob('*.npy')} for folder in (latents, labels))
    if not names:
        raise FileNotFoundError(f'{latents}: no .npy files.')
    lacking = sorted(names ^ labelled)
    if lacking:
        raise FileNotFoundError(
            f'{latents}: {len(lacking)} files have no partner of the same name in {labels.name}, or are missing here: '
            f'{lacking[0]}; restore them.'
        )
    return sorted(names, key=lambda name: ([int(number) for number in re.findall(r'\d+', name)], name))


def _listing_hash(lines: Iterable[str]) -> str:
    listing = ''.join(f'{line}\n' for line in lines)
    return hashlib.sha256(listing.encode(errors='surrogateescape')).hexdigest()
