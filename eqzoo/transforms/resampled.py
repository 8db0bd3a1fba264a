"""Transforms that resample at the same size: the base class, its masks, and rotation by any angle."""

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.registry.ranges import Filled, Range
from eqzoo.transforms.base import Transform

_TOLERANCE = 1e-6  # in cells: rounding of sources that are whole numbers


class Resampled(Transform):
    """Base class: interpolate each cell's value at a source between cells; the size stays the same.

    The border is filled with the mirror image, which `mask` leaves out. Nothing is filtered before sampling:
    details alias where sources are further apart than cells. A subclass defines the `sources`.

    Args:
        interpolation: 'bicubic', or 'bilinear', which blurs more.

    Raises:
        ValueError: If the interpolation is unknown.
    """

    def __init__(self, interpolation: Literal['bicubic', 'bilinear'] = 'bicubic') -> None:
        self.interpolation = interpolation

    @abstractmethod
    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], params: Any) -> tuple[Tensor, Tensor]:
        """Return the sources of the places at `rows` (R, 1) and `columns` (C) of a tensor of `size` (H, W).

        Coordinates are in cells, 0 at the centre of the first cell: the outer borders are at -0.5, and at
        H - 0.5 or W - 0.5.

        Returns:
            Rows and columns, each (R, C), float64 as the arguments.
        """

    def __call__(self, x: Tensor, params: Any) -> Tensor:
        """Transform `x` (B, C, H, W)."""
        if x.is_meta:  # Compose asks for the size alone; torch would trace the whole sampling
            return torch.empty_like(x)
        # torch lacks half-precision kernels for some modes on some devices
        precise = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        # sources are float64, which Apple's devices lack
        device = torch.device('cpu') if x.device.type == 'mps' else x.device
        size = tuple(x.shape[2:])
        rows, columns = self.sources(*_centres(size, device), size, params)
        # grid_sample counts from -1 to 1 between the outer borders (align_corners=False), columns first
        places = torch.stack([(2 * columns + 1) / size[1] - 1, (2 * rows + 1) / size[0] - 1], dim=-1)
        places = places.to(precise).expand(len(x), *places.shape)
        moved = F.grid_sample(precise, places, self.interpolation, padding_mode='reflection', align_corners=False)
        return moved.to(x.dtype)

    def mask(self, size: tuple[int, int], params: Any) -> Tensor:
        """Return where values depend on nothing beyond the border: (H, W), bool, for `size` (H, W).

        The source is a cell or more inside the centres of the outermost cells, so that all sixteen cells of
        bicubic interpolation are inside. The corners of the cell's square, too, come from within these centres:
        an encoder sees the square's pixels, and with four or more pixels per cell all of them are in the image's mask.
        """
        centres = self.sources(*_centres(size), size, params)
        corners = _within(self.sources(*_corners(size), size, params), size, 0)
        whole = corners[:-1, :-1] & corners[:-1, 1:] & corners[1:, :-1] & corners[1:, 1:]
        return _within(centres, size, 1) & whole


@TRANSFORMS.register_module()
class Turn(Resampled):
    """Rotate images or latents counter-clockwise by any angle about their centre; the size stays the same.

    `Rotate` rotates by multiples of 90 degrees exactly.

    Args:
        maximum: Angles are drawn from ± this, in degrees, at most 180.
        interpolation: See `Resampled`.
        eval_angles: Angles that an evaluation measures, in degrees.

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
        maximum: Annotated[float, Range(above=0, at_most=180)] = 180,
        *,
        interpolation: Literal['bicubic', 'bilinear'] = 'bicubic',
        eval_angles: Filled[float] = (5, 15, 30, 45),
    ) -> None:
        if not all(angle % 360 for angle in eval_angles):
            raise ValueError(
                f'Turn.eval_angles must be one or more angles in degrees, no full turns, got {eval_angles!r}.'
            )
        self.maximum = maximum
        super().__init__(interpolation)
        self.eval_angles = tuple(eval_angles)

    def sample(self, generator: Generator, grid: Grid) -> float:
        """Draw the angle in degrees, uniformly; `grid` does not matter."""
        drawn = torch.rand((), generator=generator, dtype=torch.float64).item()
        return (2 * drawn - 1) * self.maximum

    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], angle: float) -> tuple[Tensor, Tensor]:
        """Return the sources of `rows` (R, 1) and `columns` (C): the turn undone."""
        middle = centre(size)
        rows, columns = rows - middle[0], columns - middle[1]
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # rows count downwards; after a counter-clockwise turn, the top came from the right
        return middle[0] + cosine * rows + sine * columns, middle[1] - sine * rows + cosine * columns

    def cases(self, grid: Grid) -> dict[str, float]:
        """Return `eval_angles` by name."""
        return {f'{angle:g}': float(angle) for angle in self.eval_angles}


def centre(size: tuple[int, int]) -> tuple[float, float]:
    """Return row and column of the middle of `size` (H, W), in the coordinates of `Resampled.sources`."""
    return (size[0] - 1) / 2, (size[1] - 1) / 2


def _centres(size: tuple[int, int], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    rows, columns = (torch.arange(side, dtype=torch.float64, device=device) for side in size)
    return rows[:, None], columns


def _corners(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    rows, columns = _centres((size[0] + 1, size[1] + 1))
    return rows - 0.5, columns - 0.5


def _within(sources: tuple[Tensor, Tensor], size: tuple[int, int], margin: float) -> Tensor:
    """Return which sources are `margin` cells or more inside the centres of the outermost cells."""
    rows, columns = (
        (places > margin - _TOLERANCE) & (places < side - 1 - margin + _TOLERANCE)
        for side, places in zip(size, sources, strict=True)
    )
    return rows & columns
