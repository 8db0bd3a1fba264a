"""Rotation by any angle: resampled, with a border that has to be left out."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS
from eqzoo.transforms.base import Grid
from eqzoo.transforms.resample import Resampled, centre, check_interpolation


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
