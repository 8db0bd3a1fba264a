"""The images of an npz file of samples, as ADM's evaluator reads them, as a dataset."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from eqzoo.data.keys import Key, split_key
from eqzoo.npz import NpzArchive, write_npz
from eqzoo.registry import DATASETS, Requirement

IMAGES, LABELS = 'arr_0', 'arr_1'


@DATASETS.register_module()
class NpzImages(Dataset):
    """Square images in the layout of ADM's sample files, read in place: `arr_0` (N, size, size, 3), uint8.

    An item is `dict(image, label, index, draw)`: the image (3, size, size) uint8, the label of
    `arr_1` (N,), or 0 where the file has none. Nothing else in the file is looked at. In
    particular `mu` and `sigma` are not: ADM's evaluator takes them for the samples' statistics.

    A stored array is mapped; a deflated one is first unpacked to a nameless temporary file, in
    each process that is spawned, not forked.

    Args:
        path: The npz file.
        size: What the images must have for a side, in pixels. Default: what they have.
        limit: Use at most this many images, the first.

    Raises:
        FileNotFoundError: If nothing is at `path`.
        ValueError: If it is no readable npz, or has no images, or not such.
    """

    def __init__(self, path: str, size: int | None = None, *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f'NpzImages.limit must be at least 1 or None, got {limit}.')
        self._archive = NpzArchive(path)
        self._mapped: np.ndarray | None = None
        num_images, *sides = _checked_shape(self._archive, self._pixels, size)
        self.size, self.limit = sides[0], limit
        self._labels = _labels(self._archive, num_images)[:limit]

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return what keeps the images from being read: a missing, damaged or unfitting file."""
        path = arguments.get('path')
        remedy = 'Set path=FILE of this dataset to an npz file of samples.'
        if not path:
            return [Requirement('NpzImages: no path is given.', 'the config', remedy)]
        try:
            cls(path, arguments.get('size'), limit=arguments.get('limit'))
        except (OSError, ValueError) as error:
            return [Requirement(f'NpzImages: {error}', str(path), remedy)]
        return []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Stand in with a few built-in pictures."""
        return dict(type='Shapes', num_images=16, size=64)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`, an index or (index, draw)."""
        index, draw = split_key(key, len(self))
        pixels = np.array(self._pixels[index].transpose(2, 0, 1), order='C')
        return dict(image=torch.from_numpy(pixels), label=int(self._labels[index]), index=index, draw=draw)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_mapped': None}  # else all images would be in the pickle

    def labels(self) -> list[int]:
        """Return each image's label, without reading an image."""
        return self._labels.tolist()

    def identity(self) -> dict[str, Any]:
        """Return what tells this set of images from others, for metric cards; no image is read.

        The hash is over the checksums that the file has of its images and labels: a stored file
        and a deflated one agree.
        """
        names = [name for name in (IMAGES, LABELS) if name in self._archive]
        return dict(
            kind='NpzImages',
            root=self._archive.path.name,
            num_images=len(self),
            size=self.size,
            sha256=self._archive.fingerprint(names),
        )

    def describe(self) -> str:
        """Return one line about this dataset."""
        images = '1 image' if len(self) == 1 else f'{len(self)} images'
        return f'NpzImages: {images} of {self.size} px from {self._archive.path.name}'

    @property
    def classes(self) -> list[str]:
        """The labels' names, which are their numbers."""
        return [str(label) for label in range(int(self._labels.max()) + 1)]

    @property
    def _pixels(self) -> np.ndarray:
        if self._mapped is None:
            self._mapped = self._archive.map(IMAGES)
        return self._mapped


def write_npz_images(
    path: str | Path, batches: Iterable[Tensor], count: int, *, labels: Sequence[int] | Tensor | None = None
) -> None:
    """Write a file of samples that ADM's evaluator and `NpzImages` read, holding one batch at a time.

    Args:
        path: It appears there when it is whole.
        batches: Images (B, 3, size, size), uint8.
        count: N, of all batches.
        labels: The images' classes (N,), for `arr_1`.

    Raises:
        ValueError: If the images are not 8-bit or of several sizes, or there are not `count`
            images or labels.
    """
    classes = None if labels is None else np.asarray(labels, np.int64)
    if classes is not None and classes.shape != (count,):
        raise ValueError(f'write_npz_images: labels {classes.shape} for {count} images; accepted are ({count},).')
    with write_npz(path) as npz:
        npz.add_images(IMAGES, batches, count)
        if classes is not None:
            npz.add(LABELS, classes)


def _checked_shape(archive: NpzArchive, pixels: np.ndarray, size: int | None) -> tuple[int, ...]:
    shape = pixels.shape
    is_square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3 and 0 not in shape
    if not is_square or pixels.dtype != np.uint8:
        raise ValueError(
            f'{archive.path}: {IMAGES} is {shape} of {pixels.dtype}; accepted is (N, size, size, 3) of uint8; '
            'write the samples so, with values 0 to 255.'
        )
    if size is not None and shape[1] != size:
        raise ValueError(f'{archive.path}: images of {shape[1]} pixels; {size} were asked for; set size={shape[1]}.')
    return shape


def _labels(archive: NpzArchive, num_images: int) -> np.ndarray:
    if LABELS not in archive:
        return np.zeros(num_images, np.int64)
    labels = archive.read(LABELS)
    if labels.shape != (num_images,) or labels.dtype.kind not in 'iu' or labels.min() < 0:
        raise ValueError(
            f'{archive.path}: {LABELS} is {labels.shape} of {labels.dtype}; accepted are the {num_images} '
            'classes of the images, whole numbers from 0.'
        )
    return labels.astype(np.int64)
