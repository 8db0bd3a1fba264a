"""Perspective: a picture seen from another viewpoint, with straight but converging lines."""

import math
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.registry.ranges import Filled, PositiveFloat, Range
from eqzoo.transforms.resampled import Resampled, centre

View = tuple[float, float]  # angle away from straight on and its direction, in degrees

_NEAREST_HORIZON = 2.0  # in half diagonals of a square; at 1 a corner would have its source at infinity


@TRANSFORMS.register_module()
class Perspective(Resampled):
    """See images or latents from another viewpoint, like a picture that you walk past; the size stays the same.

    A camera that looks at the picture's centre moves around it by `angle` degrees towards `direction` (0 is the right,
    90 the top). That side comes nearer and gets larger; the centre stays in place. The angle thus measures only the
    change of perspective. A camera that pans about itself would mostly shift the picture, and corners moved at random
    have no such measure.

    With s along the direction and t across it, both from the centre, and the camera's distance d, all in the same
    unit, a pinhole camera sees the point (s, t) of the turned plane (Hartley and Zisserman, Multiple View Geometry,
    section 6.1) at

        s' = d s cos(angle) / (d - s sin(angle)),    t' = d t / (d - s sin(angle)).

    Details alias on the far side: with the defaults, sources are at most 1.8 cells apart in the middle of its edge,
    and 2.0 in a corner.

    Args:
        max_angle: Angles are drawn uniformly from 0 to this, in degrees, in all directions.
        field_of_view: Angle that the picture's longer side fills when seen straight on, in degrees, at most 120.
            A wider one means a nearer camera and a stronger perspective.
        interpolation: See `Resampled`.
        eval_angles: Angles that an evaluation measures, in degrees, to the right; to the left if negative.

    Raises:
        ValueError: If an argument is out of range, or an angle brings the plane's horizon nearer to the centre than
            two half diagonals of a square: tan(angle) must be at most 1 / (2 √2 tan(field_of_view / 2)), which
            is 37 degrees by default.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> Perspective(interpolation='bilinear')(x, (20.0, 0.0)).round(decimals=2)
        tensor([[[[1.0000, 1.9400, 3.0100, 3.9200]]]])
        >>> list(Perspective().cases((16, 16)).items())[:2]
        [('5', (5.0, 0.0)), ('10', (10.0, 0.0))]
    """

    parameter = 'viewing angle / degrees'

    def __init__(
        self,
        max_angle: PositiveFloat = 30,
        *,
        field_of_view: Annotated[float, Range(above=0, at_most=120)] = 50,
        interpolation: Literal['bicubic', 'bilinear'] = 'bicubic',
        eval_angles: Filled[float] = (5, 10, 20, 30),
    ) -> None:
        largest = math.degrees(math.atan(1 / (_NEAREST_HORIZON * math.sqrt(2) * _half_width(field_of_view))))
        limit = f'{largest:.1f} degrees, for a field of view of {field_of_view:g}'
        if not max_angle <= largest:
            raise ValueError(f'Perspective.max_angle must be above 0 and at most {limit}, got {max_angle}.')
        if not all(0 < abs(angle) <= largest for angle in eval_angles):
            raise ValueError(
                f'Perspective.eval_angles must be one or more nonzero angles of at most {limit}, got {eval_angles!r}.'
            )
        self.max_angle = max_angle
        self.field_of_view = field_of_view
        super().__init__(interpolation)
        self.eval_angles = tuple(eval_angles)

    def sample(self, generator: Generator, grid: Grid) -> View:
        """Draw the angle and the direction in degrees, uniformly; `grid` does not matter."""
        angle, direction = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        return angle * self.max_angle, 360 * direction

    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], view: View) -> tuple[Tensor, Tensor]:
        """Return the points of the picture that are seen at `rows` (R, 1) and `columns` (C): the formula's inverse."""
        angle, direction = (math.radians(each) for each in view)
        middle = centre(size)
        rows, columns = rows - middle[0], columns - middle[1]
        cosine, sine = math.cos(direction), math.sin(direction)
        along, across = cosine * columns - sine * rows, sine * columns + cosine * rows  # rows count downwards
        distance = max(size) / 2 / _half_width(self.field_of_view)
        nearness = math.cos(angle) + along * math.sin(angle) / distance
        along, across = along / nearness, across * math.cos(angle) / nearness
        return middle[0] + cosine * across - sine * along, middle[1] + cosine * along + sine * across

    def cases(self, grid: Grid) -> dict[str, View]:
        """Return views from the right at `eval_angles`, by name."""
        return {f'{angle:g}': (float(angle), 0.0) for angle in self.eval_angles}


def _half_width(field_of_view: float) -> float:
    """Return half the longer side over the camera's distance."""
    return math.tan(math.radians(field_of_view) / 2)
