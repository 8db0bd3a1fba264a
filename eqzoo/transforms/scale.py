"""Downscaling to sizes that are whole numbers of latent cells, and therefore of pixels."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.registry.ranges import Filled, Range
from eqzoo.transforms.base import Transform

Scales = tuple[Fraction, Fraction]  # of height and of width


class _Scale(Transform):
    """Base class: resample to smaller sizes. Subclasses draw the scales; `IsotropicScale` documents the arguments."""

    parameter = 'scale'

    def __init__(
        self,
        minimum: Annotated[float, Range(above=0, below=1)] = 0.25,
        *,
        interpolation: Literal['bilinear', 'bicubic'] = 'bilinear',
        antialias: bool = False,
        eval_scales: Filled[Annotated[float, Range(above=0, below=1)]] = (0.25, 0.5, 0.75),
    ) -> None:
        self.minimum = minimum
        self.interpolation = interpolation
        self.antialias = antialias
        self.eval_scales = tuple(eval_scales)

    def __call__(self, x: Tensor, scales: Scales) -> Tensor:
        """Scale `x` (B, C, H, W) to (H · s_h, W · s_w), pixel centres aligned at the borders.

        Raises:
            ValueError: If a scaled side is not whole.
        """
        size = [side * scale for side, scale in zip(x.shape[2:], scales, strict=True)]
        if any(side.denominator != 1 for side in size):
            raise ValueError(
                f'{type(self).__name__}: {x.shape[2]} x {x.shape[3]} scaled by {scales[0]} x {scales[1]} is not whole; '
                'use scales that are multiples of one over the latent grid.'
            )
        # torch lacks half-precision kernels for some modes on some devices
        precise = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        whole = [int(side) for side in size]
        mode = dict(mode=self.interpolation, align_corners=False, antialias=self.antialias)
        # torch has a deterministic gradient on CUDA for plain bilinear interpolation alone
        has_kernel = self.interpolation == 'bilinear' and not self.antialias
        if x.is_cuda and torch.are_deterministic_algorithms_enabled() and not has_kernel:
            return interpolated_by_products(precise, whole, **mode).to(x.dtype)
        return F.interpolate(precise, whole, **mode).to(x.dtype)

    def cases(self, grid: Grid) -> dict[str, Scales]:
        """Return `eval_scales` by name, the same for both sides; on other grids the nearest ones of whole cells."""
        cells, cases = math.gcd(*grid), {}
        for scale in map(_as_fraction, self.eval_scales):
            name = f'{float(scale):g}'
            if cells > 1 and (scale * cells).denominator != 1:
                scale = Fraction(min(max(round(scale * cells), 1), cells - 1), cells)
                name = f'{float(scale):.3g}'
            cases[name] = (scale, scale)
        return cases

    def _draw(self, generator: Generator, cells: int, grid: Grid) -> Fraction:
        """Draw k/cells, with k uniform from `minimum` of the cells to all cells but one."""
        lowest = max(1, math.ceil(_as_fraction(self.minimum) * cells))
        if lowest >= cells:
            raise ValueError(
                f'{type(self).__name__}: a latent grid of {grid[0]} x {grid[1]} has no scale k/{cells} '
                f'in [{self.minimum}, 1); use a smaller minimum, or larger or square images.'
            )
        return Fraction(int(torch.randint(lowest, cells, (), generator=generator)), cells)


@TRANSFORMS.register_module()
class IsotropicScale(_Scale):
    """Scale both sides by the same k/n < 1, where n is the number of cells along the latent grid.

    On a grid of 32 cells this draws k/32 with k = 8, ..., 31, as in EQ-VAE's release. On coarser grids it stays
    exact; the release, with k/32 on every grid, does not.

    Args:
        minimum: The smallest scale.
        interpolation: 'bilinear', as in the release, or 'bicubic', as in the paper.
        antialias: Whether to filter before sampling; not in the release.
        eval_scales: Scales that an evaluation measures; the paper's by default. On a grid in which one is no whole
            number of cells, the nearest that is, under its own name.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> IsotropicScale()(torch.ones(1, 3, 64, 64), (Fraction(1, 4), Fraction(1, 4))).shape
        torch.Size([1, 3, 16, 16])
    """

    def sample(self, generator: Generator, grid: Grid) -> Scales:
        """Draw the scale for a latent `grid` (h, w).

        Raises:
            ValueError: If the grid is too coarse for any scale.
        """
        scale = self._draw(generator, math.gcd(*grid), grid)
        return scale, scale


@TRANSFORMS.register_module()
class AnisotropicScale(_Scale):
    """Scale height and width by k/n each, drawn independently, where n is the number of cells of that side.

    EQ-VAE, Table 5. Arguments are those of `IsotropicScale`; an evaluation scales both sides equally.
    """

    def sample(self, generator: Generator, grid: Grid) -> Scales:
        """Draw both scales for a latent `grid` (h, w).

        Raises:
            ValueError: If the grid is too coarse for any scale.
        """
        return self._draw(generator, grid[0], grid), self._draw(generator, grid[1], grid)


def has_scales(transform: Any) -> bool:
    """Return whether a transform, or one that it is composed of, draws scales for the latent grid."""
    return isinstance(transform, _Scale) or any(map(has_scales, getattr(transform, 'transforms', ())))


def _as_fraction(scale: float) -> Fraction:
    """Return the decimal or ratio that a float stands for: 0.28 of 25 cells is 7, while 0.28 * 25 is slightly more."""
    return Fraction(scale).limit_denominator(1000)


def interpolated_by_products(x: Tensor, size: Sequence[int], **mode: Any) -> Tensor:
    """Return what `torch.nn.functional.interpolate` does, by one matrix product for rows and one for columns.

    Their gradients are products too, which add up in a fixed order; those of interpolation on CUDA do not.

    Args:
        x: (B, C, H, W), float32 or float64.
        size: (H', W').
        **mode: Further arguments of `interpolate`.
    """
    with torch.no_grad():
        # interpolating the unit vectors gives the weights; a whole matrix of them, since torch's antialiasing on the
        # CPU is wrong for images of one column
        units = (torch.eye(side, dtype=x.dtype, device=x.device)[None, None] for side in x.shape[2:])
        rows, columns = (
            F.interpolate(unit, (new, unit.shape[3]), **mode)[0, 0] for unit, new in zip(units, size, strict=True)
        )
    with torch.autocast(x.device.type, enabled=False):
        return rows @ x @ columns.T
