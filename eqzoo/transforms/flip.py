"""Mirror images: exact, no resampling."""

from collections.abc import Collection

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS
from eqzoo.transforms.base import Grid, Transform

_DIMS = {'horizontal': 3, 'vertical': 2}


@TRANSFORMS.register_module()
class Flip(Transform):
    """Mirror images or latents, left to right or top to bottom.

    Args:
        axes: What to draw from: 'horizontal' exchanges left and right, 'vertical' top and
            bottom.

    Raises:
        ValueError: If `axes` is empty or names anything else.
    """

    def __init__(self, axes: Collection[str] = ('horizontal', 'vertical')) -> None:
        if not isinstance(axes, Collection) or not axes or not all(axis in _DIMS for axis in axes):
            raise ValueError(f'Flip.axes must be a non-empty subset of {tuple(_DIMS)}, got {axes!r}.')
        # in one order, whatever was given: the order of a set of strings differs between processes
        self.axes = tuple(axis for axis in _DIMS if axis in axes)

    def sample(self, generator: Generator, grid: Grid) -> str:
        """Draw the axis; any `grid` will do."""
        return self.axes[int(torch.randint(len(self.axes), (), generator=generator))]

    def __call__(self, x: Tensor, axis: str) -> Tensor:
        """Mirror `x` (B, C, H, W)."""
        return x.flip(_DIMS[axis])

    def cases(self, grid: Grid) -> dict[str, str]:
        """Return each axis by its name."""
        return {axis: axis for axis in self.axes}
