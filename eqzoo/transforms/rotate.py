"""Rotation by quarter turns: exact, no resampling."""

from collections.abc import Collection

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS
from eqzoo.transforms.base import Grid, Transform

_TURNS = (1, 2, 3)


@TRANSFORMS.register_module()
class Rotate(Transform):
    """Turn images or latents counter-clockwise by `k` quarter turns.

    Args:
        turns: The `k` to draw from. 0 is refused, being the identity.

    Raises:
        ValueError: If `turns` is empty or holds anything but 1, 2 and 3.

    Example:
        >>> Rotate()(torch.tensor([[[[1, 2], [3, 4]]]]), 1)
        tensor([[[[2, 4],
                  [1, 3]]]])
    """

    parameter = 'angle / degrees'

    def __init__(self, turns: Collection[int] = _TURNS) -> None:
        if not isinstance(turns, Collection) or not turns or not all(k in _TURNS for k in turns):
            raise ValueError(f'Rotate.turns must be a non-empty subset of {_TURNS}, got {turns!r}.')
        self.turns = tuple(k for k in _TURNS if k in turns)

    def sample(self, generator: Generator, grid: Grid) -> int:
        """Draw `k`; any `grid` will do."""
        return self.turns[int(torch.randint(len(self.turns), (), generator=generator))]

    def __call__(self, x: Tensor, k: int) -> Tensor:
        """Turn `x` (B, C, H, W); odd `k` exchanges H and W."""
        return x.rot90(k, dims=(2, 3))

    def cases(self, grid: Grid) -> dict[str, int]:
        """Return each turn, named by its degrees."""
        return {str(90 * k): k for k in self.turns}
