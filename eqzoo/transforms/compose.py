"""Transforms made of transforms: a sequence of them, or one of several."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, EquivarianceTransform, Grid
from eqzoo.registry.ranges import PositiveFloat
from eqzoo.transforms.base import Transform, require_transform, valid_area


@TRANSFORMS.register_module()
class Compose(Transform):
    """Apply several transforms, the first one first. EQ-VAE's release scales, then rotates.

    An evaluation measures a few fixed draws.

    Args:
        transforms: One or more.

    Raises:
        ValueError: If there are none, or one is not a transform.
    """

    def __init__(self, transforms: Sequence[EquivarianceTransform]) -> None:
        self.transforms = _require_transforms('Compose', transforms)

    def sample(self, generator: Generator, grid: Grid) -> tuple[Any, ...]:
        """Draw all parameters, each for the grid (h, w) that earlier transforms leave of `grid`."""
        # a meta tensor goes through the transforms for its size alone
        cells = torch.empty(1, 1, *grid, device='meta')
        params = []
        for transform in self.transforms:
            params.append(transform.sample(generator, tuple(cells.shape[2:])))
            cells = transform(cells, params[-1])
        return tuple(params)

    def __call__(self, x: Tensor, params: tuple[Any, ...]) -> Tensor:
        """Transform `x` (B, C, H, W) by each transform with its parameters."""
        for transform, own in zip(self.transforms, params, strict=True):
            x = transform(x, own)
        return x

    def mask(self, size: tuple[int, int], params: tuple[Any, ...]) -> Tensor:
        """Return where none of the transforms filled in values: bool, of the transformed size."""
        valid = torch.ones(size, dtype=torch.bool)
        for transform, own in zip(self.transforms, params, strict=True):
            area = valid_area(transform, tuple(valid.shape), own)
            valid = _transform_area(transform, valid, own)
            valid = valid if area is None else valid & area
        return valid


@TRANSFORMS.register_module()
class Choice(Transform):
    """Apply one of several transforms, drawn each time.

    An evaluation measures the cases of all of them.

    Args:
        transforms: One or more.
        weights: Relative probability of each; equal by default.

    Raises:
        ValueError: If there are no transforms, one is not a transform, or there is not one positive weight for each.
    """

    def __init__(
        self, transforms: Sequence[EquivarianceTransform], weights: Sequence[PositiveFloat] | None = None
    ) -> None:
        self.transforms = _require_transforms('Choice', transforms)
        self.weights = (1.0,) * len(self.transforms) if weights is None else tuple(weights)
        if len(self.weights) != len(self.transforms):
            raise ValueError(f'Choice.weights must be {len(self.transforms)} positive numbers, got {self.weights}.')

    def sample(self, generator: Generator, grid: Grid) -> tuple[int, Any]:
        """Draw the transform, and its parameters for a latent `grid` (h, w)."""
        index = int(torch.multinomial(torch.tensor(self.weights, dtype=torch.float64), 1, generator=generator))
        return index, self.transforms[index].sample(generator, grid)

    def __call__(self, x: Tensor, params: tuple[int, Any]) -> Tensor:
        """Transform `x` (B, C, H, W) by the drawn transform."""
        index, own = params
        return self.transforms[index](x, own)

    def mask(self, size: tuple[int, int], params: tuple[int, Any]) -> Tensor | None:
        """Return the drawn transform's mask; None for everywhere."""
        index, own = params
        return valid_area(self.transforms[index], size, own)

    def cases(self, grid: Grid) -> dict[str, tuple[int, Any]]:
        """Return every transform's cases, named by class and case, and by index if two are of one class."""
        classes = [type(transform).__name__ for transform in self.transforms]
        count = Counter(classes)
        names = [f'{each}[{index}]' if count[each] > 1 else each for index, each in enumerate(classes)]
        return {
            f'{names[index]} {case}': (index, own)
            for index, transform in enumerate(self.transforms)
            for case, own in transform.cases(grid).items()
        }


def _transform_area(transform: EquivarianceTransform, valid: Tensor, params: Any) -> Tensor:
    """Transform an area (H, W), then erode it by one cell, into which resampling may have mixed the outside."""
    moved = transform(valid[None, None].float(), params) > 0.5
    return F.max_pool2d((~moved).float(), 3, stride=1, padding=1)[0, 0] == 0


def _require_transforms(name: str, transforms: Sequence[EquivarianceTransform]) -> tuple[EquivarianceTransform, ...]:
    """Return `transforms` as a tuple, after checking that there is one and that all are transforms."""
    if not isinstance(transforms, Iterable):
        raise ValueError(f'{name}.transforms must be a list of transforms, got {transforms!r}; put it in brackets.')
    transforms = tuple(transforms)
    if not transforms:
        raise ValueError(f'{name}.transforms must hold at least one transform, got none.')
    for index, transform in enumerate(transforms):
        require_transform(f'{name}.transforms[{index}]', transform)
    return transforms
