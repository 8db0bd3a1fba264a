"""Transforms made of transforms: one after the other, or one of several."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, EquivarianceTransform
from eqzoo.transforms.base import Grid, Transform, require_transform


@TRANSFORMS.register_module()
class Compose(Transform):
    """Apply several transforms, the first one first. The release scales, then rotates.

    An evaluation goes through a few fixed draws.

    Args:
        transforms: One or more.

    Raises:
        ValueError: If there are none.
        TypeError: If one is no transform.
    """

    def __init__(self, transforms: Sequence[EquivarianceTransform]) -> None:
        _require_transforms('Compose', transforms)
        self.transforms = tuple(transforms)

    def sample(self, generator: Generator, grid: Grid) -> tuple[Any, ...]:
        """Draw all parameters, each for the grid that the transforms before leave of `grid` (h, w)."""
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


@TRANSFORMS.register_module()
class Choice(Transform):
    """Apply one of several transforms, drawn anew each time.

    An evaluation goes through the cases of all of them.

    Args:
        transforms: One or more.
        weights: How often each is drawn, relatively; equally often by default.

    Raises:
        ValueError: If there are none, or the weights are not one positive number for each.
        TypeError: If one is no transform.
    """

    def __init__(self, transforms: Sequence[EquivarianceTransform], weights: Sequence[float] | None = None) -> None:
        _require_transforms('Choice', transforms)
        weights = (1.0,) * len(transforms) if weights is None else tuple(weights)
        if len(weights) != len(transforms) or min(weights) <= 0:
            raise ValueError(f'Choice.weights must be {len(transforms)} positive numbers, got {weights}.')
        self.transforms = tuple(transforms)
        self.weights = weights

    def sample(self, generator: Generator, grid: Grid) -> tuple[int, Any]:
        """Draw which transform, and its parameters for a latent `grid` (h, w)."""
        index = int(torch.multinomial(torch.tensor(self.weights, dtype=torch.float64), 1, generator=generator))
        return index, self.transforms[index].sample(generator, grid)

    def __call__(self, x: Tensor, params: tuple[int, Any]) -> Tensor:
        """Transform `x` (B, C, H, W) by the drawn transform."""
        index, own = params
        return self.transforms[index](x, own)

    def cases(self, grid: Grid) -> dict[str, tuple[int, Any]]:
        """Return every transform's cases, named by transform and case."""
        return {
            f'{type(transform).__name__} {name}': (index, own)
            for index, transform in enumerate(self.transforms)
            for name, own in transform.cases(grid).items()
        }


def _require_transforms(name: str, transforms: Sequence[EquivarianceTransform]) -> None:
    if not transforms:
        raise ValueError(f'{name}.transforms must hold at least one transform, got none.')
    for index, transform in enumerate(transforms):
        require_transform(f'{name}.transforms[{index}]', transform)
