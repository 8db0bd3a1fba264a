"""What all equivariance transforms share."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor

from eqzoo.registry import Grid

_NUM_CASES = 3


class Transform(ABC):
    """A transform of the plane that acts on images and on latents alike.

    Parameters are plain values (numbers, fractions, tuples of them), drawn once and then
    used at any resolution: what is drawn for a latent grid is exact on the images too.

    One that fills in something at the border has a method `mask(size, params)` that says where of
    a tensor of `size` (H, W), transformed, it did not: bool, of the transformed size.
    """

    parameter: str | None = None
    """What the names of its cases are numbers of, with the unit: a curve's axis; None if they are words."""

    @abstractmethod
    def sample(self, generator: Generator, grid: Grid) -> Any:
        """Draw parameters for latents of `grid` (h, w) cells and images of any whole multiple."""

    @abstractmethod
    def __call__(self, x: Tensor, params: Any) -> Tensor:
        """Transform images or latents `x` (B, C, H, W) by `params`."""

    def cases(self, grid: Grid) -> dict[str, Any]:
        """Return the parameters an evaluation goes through, by name: here, a few fixed draws."""
        return {f'draw {i}': self.sample(torch.Generator().manual_seed(i), grid) for i in range(_NUM_CASES)}

    def __repr__(self) -> str:
        arguments = ', '.join(f'{name}={value!r}' for name, value in vars(self).items())
        return f'{type(self).__name__}({arguments})'


def valid_area(transform: Any, size: tuple[int, int], params: Any) -> Tensor | None:
    """Return where of a tensor of `size` (H, W), transformed, there is nothing filled in: bool; None for everywhere."""
    return transform.mask(size, params) if hasattr(transform, 'mask') else None


def require_transform(where: str, value: Any) -> None:
    """Refuse what is not an equivariance transform.

    Raises:
        TypeError: If `sample`, `cases` or the call is missing, or it is a class, not yet built.
    """
    if isinstance(value, type) or not (callable(value) and hasattr(value, 'sample') and hasattr(value, 'cases')):
        raise TypeError(f'{where} must be a transform (sample, __call__, cases), got {value!r}.')
