"""What every data set of latents does alike: keys to ready batches, in the units of a generator."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from eqzoo.data.keys import Key
from eqzoo.data.latent_checksums import coins

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
            sha256: Its `eqzoo.autoencoders.digest.autoencoder_digest`.
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
        for name, ours, theirs in (('shift', self._shift, shift), ('scale', self._scale, scale)):
            wanted = torch.as_tensor(ours, dtype=torch.float64)
            given = theirs.detach().double().cpu()
            if wanted.shape != given.shape or not torch.allclose(wanted, given, rtol=1e-4, atol=1e-6):
                raise ValueError(
                    f'{self._place()}: these latents are normalised with {name} {_shown(wanted)}, the autoencoder has '
                    f'{_shown(given)}; accepted is the same. {self._renormalize()}'
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
