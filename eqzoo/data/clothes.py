"""Clothes: 512 photographs that come with eqzoo, for the demo and first steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqzoo.data.folder import WHOLE, ImageFolder
from eqzoo.registry import DATASETS, Requirement
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt, Probability

PHOTOGRAPHS = Path(__file__).with_name('clothes.zip')


@DATASETS.register_module()
class Clothes(ImageFolder):
    """512 photographs of clothes at 128 x 128 pixels, 64 of each of eight classes; no download.

    A balanced sample, cropped to squares and scaled down, of the Clothing Dataset that Alexey Grigorev and others
    published in 2020 and placed in the public domain (CC0 1.0). Items are those of `ImageFolder`.

    Args:
        size: Side of the square images, in pixels; above 128 they are enlarged.
        crop: See `ImageFolder`, also for the next four.
        flip: Whether to mirror left and right with probability 0.5.
        part: The share (from, to) of the photographs to use, after a fixed shuffle.
        limit: Use at most this many of the part.
        seed: Seed of the random crops and flips.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> Clothes(64, limit=3)[2]['image'].shape
        torch.Size([3, 64, 64])
    """

    def __init__(
        self,
        size: PositiveInt = 128,
        *,
        crop: str = 'center',
        flip: bool = False,
        part: tuple[Probability, Probability] = WHOLE,
        limit: PositiveInt | None = None,
        seed: NonNegativeInt = 0,
    ) -> None:
        super().__init__(PHOTOGRAPHS, size, crop=crop, flip=flip, part=part, limit=limit, seed=seed)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return nothing: the photographs come with the package."""
        return []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for a few small photographs."""
        return {**arguments, 'limit': min(arguments.get('limit') or 16, 16), 'size': min(arguments.get('size', 64), 64)}
