"""Base class of equivariance transforms, and helpers for any object with their interface."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor

from eqzoo.registry import Grid

_NUM_CASES = 3  # fixed draws of an evaluation


class Transform(ABC):
    """A transform of the plane, for images and latents.

    Parameters are plain values (numbers, fractions, tuples of them), drawn once and valid at any
    resolution: a draw for a latent grid is exact on the images, too.

    A transform that fills in values at the border has a method `mask(size, params)`, which returns where it did not,
    for a tensor of `size` (H, W): bool, of the transformed size.
    """

    parameter: str | None = None
    """Quantity and unit of numeric case names, for the axis of a plot; None if the names are words."""

    @abstractmethod
    def sample(self, generator: Generator, grid: Grid) -> Any:
        """Draw parameters for latents of `grid` (h, w) cells, and for images of any whole multiple of it."""

    @abstractmethod
    def __call__(self, x: Tensor, params: Any) -> Tensor:
        """Transform images or latents `x` (B, C, H, W) by `params`."""

    def cases(self, grid: Grid) -> dict[str, Any]:
        """Return the parameters that an evaluation measures, by name; by default a few fixed draws."""
        return {f'draw {i}': self.sample(torch.Generator().manual_seed(i), grid) for i in range(_NUM_CASES)}

    def __repr__(self) -> str:
        arguments = ', '.join(f'{name}={value!r}' for name, value in vars(self).items())
        return f'{type(self).__name__}({arguments})'


def valid_area(transform: Any, size: tuple[int, int], params: Any) -> Tensor | None:
    """Return where a transformed tensor of `size` (H, W) holds no filled-in values: bool, or None for everywhere."""
    return transform.mask(size, params) if hasattr(transform, 'mask') else None


def require_transform(where: str, value: Any) -> None:
    """Check that `value` is an equivariance transform.

    Raises:
        ValueError: If `sample`, `cases` or `__call__` is missing, or it is a class, not an instance; names `where`.
    """
    if isinstance(value, type) or not (callable(value) and hasattr(value, 'sample') and hasattr(value, 'cases')):
        raise ValueError(f'{where} must be a transform (sample, __call__, cases), got {value!r}.')
