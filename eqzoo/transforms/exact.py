"""Rotation by multiples of 90 degrees, and flips: exact, no resampling."""

from typing import Literal

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.registry.ranges import Filled
from eqzoo.transforms.base import Transform

_TURNS = (1, 2, 3)
_DIMS = {'horizontal': 3, 'vertical': 2}


@TRANSFORMS.register_module()
class Rotate(Transform):
    """Rotate images or latents counter-clockwise by `k` times 90 degrees.

    Args:
        turns: The `k` to draw from; 0, the identity, is refused.

    Raises:
        ValueError: If `turns` is empty or contains anything but 1, 2 and 3.

    Example:
        >>> Rotate()(torch.tensor([[[[1, 2], [3, 4]]]]), 1)
        tensor([[[[2, 4],
                  [1, 3]]]])
    """

    parameter = 'angle / degrees'

    def __init__(self, turns: Filled[Literal[1, 2, 3]] = _TURNS) -> None:
        self.turns = tuple(k for k in _TURNS if k in turns)

    def sample(self, generator: Generator, grid: Grid) -> int:
        """Draw `k`; `grid` does not matter."""
        return self.turns[int(torch.randint(len(self.turns), (), generator=generator))]

    def __call__(self, x: Tensor, k: int) -> Tensor:
        """Turn `x` (B, C, H, W); odd `k` exchanges H and W."""
        return x.rot90(k, dims=(2, 3))

    def cases(self, grid: Grid) -> dict[str, int]:
        """Return each rotation, named by its degrees."""
        return {str(90 * k): k for k in self.turns}


@TRANSFORMS.register_module()
class Flip(Transform):
    """Mirror images or latents, left to right or top to bottom.

    Args:
        axes: The axes to draw from: 'horizontal' exchanges left and right, 'vertical' top and bottom.

    Raises:
        ValueError: If `axes` is empty or contains anything else.
    """

    def __init__(self, axes: Filled[Literal['horizontal', 'vertical']] = ('horizontal', 'vertical')) -> None:
        # in a fixed order: a set of strings has another order in each process, which would draw another axis
        self.axes = tuple(axis for axis in _DIMS if axis in axes)

    def sample(self, generator: Generator, grid: Grid) -> str:
        """Draw the axis; `grid` does not matter."""
        return self.axes[int(torch.randint(len(self.axes), (), generator=generator))]

    def __call__(self, x: Tensor, axis: str) -> Tensor:
        """Mirror `x` (B, C, H, W)."""
        return x.flip(_DIMS[axis])

    def cases(self, grid: Grid) -> dict[str, str]:
        """Return each axis by its name."""
        return {axis: axis for axis in self.axes}
