"""A picture seen from the side: straight lines stay straight, parallels do not stay parallel."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.transforms.resampled import Resampled, centre, check_interpolation

View = tuple[float, float]  # degrees away from straight on, and towards where

_NEAREST_HORIZON = 2.0  # in half diagonals: at 1 a corner would show what is infinitely far


@TRANSFORMS.register_module()
class Perspective(Resampled):
    """See images or latents from another viewpoint, as a picture by one who walks past it; the size stays.

    A camera goes round the picture's centre, at which it looks, by `angle` degrees towards
    `direction` (0 is the right, 90 the top). That side comes nearer and gets larger; the centre stays
    where it is. So the change of perspective is what is measured, by a number with a unit: a camera
    that pans about itself would mostly shift the picture, and corners moved at random have none.

    With s along the direction and t across it, both from the centre, and the camera's distance d,
    all in the same unit, the pinhole camera of a plane that is turned (Hartley and Zisserman, Multiple
    View Geometry, section 6.1) sees (s, t) at

        s' = d s cos(angle) / (d - s sin(angle)),    t' = d t / (d - s sin(angle)).

    What comes in over the border is the mirror image of what is there; `mask` leaves it out. Nothing
    is filtered before it is sampled, so that details alias on the far side: by the defaults sources
    are at worst 1.8 cells apart in the middle of its edge, and 2.0 in a corner.

    Args:
        max_angle: Angles are drawn uniformly from 0 to this, in degrees, in all directions.
        field_of_view: What the picture's longer side takes seen straight on, in degrees, at most 120.
            The wider, the nearer is the camera, and the stronger the perspective.
        interpolation: 'bicubic' or 'bilinear'; the latter blurs more.
        eval_angles: What an evaluation goes through, in degrees, to the right; to the left if negative.

    Raises:
        ValueError: If an argument is out of range, or an angle is so large that the plane's horizon
            comes nearer to the centre than two half diagonals of a square: tan(angle) is at most
            1 / (2 √2 tan(field_of_view / 2)), which is 37 degrees by default.

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
        max_angle: float = 30,
        *,
        field_of_view: float = 50,
        interpolation: Literal['bicubic', 'bilinear'] = 'bicubic',
        eval_angles: Sequence[float] = (5, 10, 20, 30),
    ) -> None:
        if not 0 < field_of_view <= 120:
            raise ValueError(f'Perspective.field_of_view must be in (0, 120] degrees, got {field_of_view}.')
        largest = math.degrees(math.atan(1 / (_NEAREST_HORIZON * math.sqrt(2) * _half_width(field_of_view))))
        accepted = f'{largest:.1f} degrees, for a field of view of {field_of_view:g}'
        if not 0 < max_angle <= largest:
            raise ValueError(f'Perspective.max_angle must be above 0 and at most {accepted}, got {max_angle}.')
        check_interpolation('Perspective', interpolation)
        if (
            not isinstance(eval_angles, Sequence)
            or not eval_angles
            or not all(0 < abs(angle) <= largest for angle in eval_angles)
        ):
            raise ValueError(
                f'Perspective.eval_angles must be one or more angles but 0, at most {accepted}, got {eval_angles!r}.'
            )
        self.max_angle = max_angle
        self.field_of_view = field_of_view
        self.interpolation = interpolation
        self.eval_angles = tuple(eval_angles)

    def sample(self, generator: Generator, grid: Grid) -> View:
        """Draw the angle and the direction in degrees, uniformly; any `grid` will do."""
        angle, direction = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        return angle * self.max_angle, 360 * direction

    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], view: View) -> tuple[Tensor, Tensor]:
        """Return where on the picture is what is seen at `rows` (R, 1) and `columns` (C): the formula's inverse."""
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
        """Return views from the right at `eval_angles` by name."""
        return {f'{angle:g}': (float(angle), 0.0) for angle in self.eval_angles}


def _half_width(field_of_view: float) -> float:
    """Return half the longer side, seen straight on, over the camera's distance."""
    return math.tan(math.radians(field_of_view) / 2)
