"""Rotation by quarter turns: exact, no resampling."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS
from eqzoo.transforms.base import Grid, Transform


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

    def __init__(self, turns: Sequence[int] = (1, 2, 3)) -> None:
        if not turns or not set(turns) <= {1, 2, 3}:
            raise ValueError(f'Rotate.turns must be a non-empty subset of (1, 2, 3), got {tuple(turns)}.')
        self.turns = tuple(turns)

    def sample(self, generator: Generator, grid: Grid) -> int:
        """Draw `k`; any `grid` will do."""
        return self.turns[int(torch.randint(len(self.turns), (), generator=generator))]

    def __call__(self, x: Tensor, k: int) -> Tensor:
        """Turn `x` (B, C, H, W); odd `k` exchanges H and W."""
        return x.rot90(k, dims=(2, 3))

    def cases(self, grid: Grid) -> dict[str, int]:
        """Return each turn, named by its degrees."""
        return {str(90 * k): k for k in self.turns}
