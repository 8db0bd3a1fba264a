"""The built-in dataset: pictures of shapes, drawn when asked for, the same everywhere."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from eqzoo.data.keys import Key, split_key
from eqzoo.data.outlines import OUTLINES
from eqzoo.data.scene import render
from eqzoo.registry import DATASETS

# Raise when `render` changes what it draws: results on other pictures are not comparable.
RECIPE = 1

_FLIP = 0x5E  # keeps the flips' random numbers apart from the scenes'


class _Drawn:
    """Pictures drawn in this process, by the arguments of `render`; the oldest make way for new ones."""

    def __init__(self) -> None:
        self.pictures: dict[tuple[int, int, int, int], np.ndarray] = {}
        self.num_bytes = 0

    def get(self, *arguments: int, limit: int) -> np.ndarray:
        """Return a picture, drawn unless it is here, and keep it if there is room within `limit` bytes."""
        pixels = self.pictures.get(arguments) if limit else None
        if pixels is None:
            pixels = render(*arguments)
            if pixels.nbytes <= limit:
                self._keep(arguments, pixels, limit)
        return pixels

    def _keep(self, arguments: tuple[int, int, int, int], pixels: np.ndarray, limit: int) -> None:
        while self.num_bytes + pixels.nbytes > limit:
            self.num_bytes -= self.pictures.pop(next(iter(self.pictures))).nbytes
        self.pictures[arguments] = pixels
        self.num_bytes += pixels.nbytes


# Shared: runs of one process, such as a study's, look at the same pictures again and again.
_DRAWN = _Drawn()


@DATASETS.register_module()
class Shapes(Dataset):
    """Textured shapes with shadows in front of natural-looking backgrounds, without any download.

    Picture i is a function of (seed, i), at every size the same scene; other seeds give other pictures.
    Its label is the outline of its main object, the largest and foremost; labels go round, so
    classes are of equal size. Most objects stand upright and light falls from above, so that
    a rotated picture is an unusual one.

    An item is `dict(image, label, index, draw)`: the image (3, size, size) uint8.

    Args:
        num_images: How many.
        size: Side of the pictures in pixels, at least 16.
        num_classes: How many outlines the main object may have, 1 to 10.
        seed: Which set of pictures, and of the flips.
        flip: Whether to mirror left and right with probability 0.5, as a function of (seed, draw).
        cache_bytes: Drawn pictures are kept, for all sets of a process together, up to this many bytes.

    Example:
        >>> Shapes(100, 32)[3]['image'].shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        num_images: int = 10_000,
        size: int = 64,
        *,
        num_classes: int = len(OUTLINES),
        seed: int = 0,
        flip: bool = False,
        cache_bytes: int = 512 * 2**20,
    ) -> None:
        if num_images < 1:
            raise ValueError(f'Shapes.num_images must be at least 1, got {num_images}.')
        if size < 16:
            raise ValueError(f'Shapes.size must be at least 16 pixels, got {size}.')
        if not 1 <= num_classes <= len(OUTLINES):
            raise ValueError(f'Shapes.num_classes must be in 1 to {len(OUTLINES)}, got {num_classes}.')
        if seed < 0:
            raise ValueError(f'Shapes.seed must not be negative, got {seed}.')
        self.num_images, self.size, self.seed, self.flip = num_images, size, seed, flip
        self.classes = list(OUTLINES)[:num_classes]
        self.cache_bytes = cache_bytes

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for a few small pictures."""
        smaller = dict(num_images=min(arguments.get('num_images', 16), 16), size=min(arguments.get('size', 64), 64))
        return {**arguments, **smaller}

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`, an index or (index, draw)."""
        index, draw = split_key(key, len(self))
        label = index % len(self.classes)
        pixels = _DRAWN.get(self.seed, index, self.size, label, limit=self.cache_bytes)
        if self.flip and np.random.default_rng([_FLIP, self.seed, draw]).random() < 0.5:
            pixels = pixels[:, :, ::-1]
        return dict(image=torch.from_numpy(pixels.copy()), label=label, index=index, draw=draw)

    def labels(self) -> list[int]:
        """Return each picture's label, without drawing it."""
        return [index % len(self.classes) for index in range(self.num_images)]

    def identity(self) -> dict[str, Any]:
        """Return what tells this set of pictures from others, for metric cards."""
        parameters = dict(
            kind='Shapes',
            recipe=RECIPE,
            num_images=self.num_images,
            size=self.size,
            num_classes=len(self.classes),
            seed=self.seed,
            flip=self.flip,
        )
        return {**parameters, 'sha256': hashlib.sha256(json.dumps(parameters).encode()).hexdigest()}

    def describe(self) -> str:
        """Return one line about this dataset."""
        flip = ', flipped at random' if self.flip else ''
        return (
            f'Shapes: {self.num_images} built-in pictures of {len(self.classes)} shapes, seed {self.seed}, '
            f'{self.size} px{flip}'
        )
