"""Interpolation at places that are no whole numbers, and a mask of what is known there."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.transforms.base import Transform

INTERPOLATIONS = ('bicubic', 'bilinear')

_TOLERANCE = 1e-6  # cells: sources that are whole numbers but for rounding


class Resampled(Transform):
    """A transform that takes each cell's value from somewhere else, between cells; the size stays.

    What comes in over the border is the mirror image of what is there, as close to images and
    latents of images as can be; `mask` leaves it out. Nothing is filtered before it is sampled: where
    sources are further apart than cells, details between them alias.

    A subclass sets `interpolation`, one of `INTERPOLATIONS`, and says where values come from in `sources`.
    """

    interpolation: str

    @abstractmethod
    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], params: Any) -> tuple[Tensor, Tensor]:
        """Return where what belongs at `rows` (R, 1) and `columns` (C) of `size` (H, W) comes from.

        Places are counted in cells from the centre of the first one, so that the outer borders are
        at -0.5 and at H - 0.5 or W - 0.5.

        Returns:
            Rows and columns, each (R, C), float64 as the arguments are.
        """

    def __call__(self, x: Tensor, params: Any) -> Tensor:
        """Transform `x` (B, C, H, W)."""
        if x.is_meta:  # asked for the size alone, as Compose does; torch would work through the whole sampling
            return torch.empty_like(x)
        # torch has no half-precision kernel for every mode on every device
        precise = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        # Apple's devices have no float64
        device = torch.device('cpu') if x.device.type == 'mps' else x.device
        size = tuple(x.shape[2:])
        rows, columns = self.sources(*_centres(size, device), size, params)
        # to torch's coordinates, in which the outer borders, not the outer centres, are at -1 and 1
        places = torch.stack([(2 * columns + 1) / size[1] - 1, (2 * rows + 1) / size[0] - 1], dim=-1)
        places = places.to(precise).expand(len(x), *places.shape)
        moved = F.grid_sample(precise, places, self.interpolation, padding_mode='reflection', align_corners=False)
        return moved.to(x.dtype)

    def mask(self, size: tuple[int, int], params: Any) -> Tensor:
        """Return where of `size` (H, W) only what was there before counts, not what came in: (H, W), bool.

        That is where the source is a cell or more away from the centres of the outermost cells: all
        sixteen that bicubic interpolation takes are inside then. The whole square of a cell, as which
        an encoder sees the image, comes from half a cell or more inside the border, too: of an image
        with four or more pixels a cell, all its pixels are in their mask.
        """
        centres = self.sources(*_centres(size), size, params)
        corners = _within(self.sources(*_corners(size), size, params), size, 0)
        whole = corners[:-1, :-1] & corners[:-1, 1:] & corners[1:, :-1] & corners[1:, 1:]
        return _within(centres, size, 1) & whole


def check_interpolation(where: str, interpolation: str) -> None:
    """Refuse what is no interpolation of a `Resampled` transform.

    Raises:
        ValueError: If it is not one of `INTERPOLATIONS`.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f'{where}.interpolation must be one of {INTERPOLATIONS}, got {interpolation!r}.')


def centre(size: tuple[int, int]) -> tuple[float, float]:
    """Return the row and the column of the middle of `size` (H, W), as `Resampled.sources` counts them."""
    return (size[0] - 1) / 2, (size[1] - 1) / 2


def _centres(size: tuple[int, int], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    rows, columns = (torch.arange(side, dtype=torch.float64, device=device) for side in size)
    return rows[:, None], columns


def _corners(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    rows, columns = _centres((size[0] + 1, size[1] + 1))
    return rows - 0.5, columns - 0.5


def _within(sources: tuple[Tensor, Tensor], size: tuple[int, int], margin: float) -> Tensor:
    """Return which sources are `margin` cells or more from the centres of the outermost cells, inwards."""
    rows, columns = (
        (places > margin - _TOLERANCE) & (places < side - 1 - margin + _TOLERANCE)
        for side, places in zip(size, sources, strict=True)
    )
    return rows & columns


@TRANSFORMS.register_module()
class Turn(Resampled):
    """Turn images or latents counter-clockwise by any angle about their centre; the size stays.

    What comes in over the border is the mirror image of what is there, as close to images and
    latents of images as can be; `mask` leaves it out. For quarter turns `Rotate` is exact.

    Args:
        maximum: Of what is drawn, in degrees, to either side.
        interpolation: 'bicubic' or 'bilinear'; the latter blurs more.
        eval_angles: What an evaluation goes through, in degrees.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> Turn()(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 90.0).round(decimals=3)
        tensor([[[[2., 4.],
                  [1., 3.]]]])
    """

    parameter = 'angle / degrees'

    def __init__(
        self,
        maximum: float = 180,
        *,
        interpolation: Literal['bicubic', 'bilinear'] = 'bicubic',
        eval_angles: Sequence[float] = (5, 15, 30, 45),
    ) -> None:
        if not 0 < maximum <= 180:
            raise ValueError(f'Turn.maximum must be in (0, 180] degrees, got {maximum}.')
        check_interpolation('Turn', interpolation)
        if (
            not isinstance(eval_angles, Sequence)
            or not eval_angles
            or not all(math.isfinite(angle) and angle % 360 for angle in eval_angles)
        ):
            raise ValueError(
                f'Turn.eval_angles must be one or more angles in degrees, no full turns, got {eval_angles!r}.'
            )
        self.maximum = maximum
        self.interpolation = interpolation
        self.eval_angles = tuple(eval_angles)

    def sample(self, generator: Generator, grid: Grid) -> float:
        """Draw the angle in degrees, uniformly; any `grid` will do."""
        drawn = torch.rand((), generator=generator, dtype=torch.float64).item()
        return (2 * drawn - 1) * self.maximum

    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], angle: float) -> tuple[Tensor, Tensor]:
        """Return where what belongs at `rows` (R, 1) and `columns` (C) was before it was turned."""
        middle = centre(size)
        rows, columns = rows - middle[0], columns - middle[1]
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # rows count downwards: what is now up came from the right
        return middle[0] + cosine * rows + sine * columns, middle[1] - sine * rows + cosine * columns

    def cases(self, grid: Grid) -> dict[str, float]:
        """Return `eval_angles` by name."""
        return {f'{angle:g}': float(angle) for angle in self.eval_angles}
