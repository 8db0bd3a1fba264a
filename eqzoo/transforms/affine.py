"""Affine maps: zoom, stretch, shear, rotation and translation in one resampling."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.transforms.resampled import Resampled, centre

_LIMITS = dict(
    max_angle=(0, 180), min_zoom=(0.5, 1), max_zoom=(1, 2), max_stretch=(1, 2), max_shear=(0, 45), max_shift=(0, 0.5)
)
_CASES = dict(max_angle='angle', min_zoom='zoom', max_zoom='zoom', max_stretch='stretch', max_shear='shear')


class Motion(NamedTuple):
    """Parameters of `Affine`, applied in this order about the centre; by default the identity.

    Args:
        zoom: Above 1 objects get larger.
        stretch: Height over width of a transformed square, at constant area.
        shear: Angle in degrees by which upright lines lean to the right, as in italics.
        angle: Turn in degrees, counter-clockwise.
        shift: Down and to the right, as parts of height and width.
    """

    zoom: float = 1.0
    stretch: float = 1.0
    shear: float = 0.0
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)


@TRANSFORMS.register_module()
class Affine(Resampled):
    """Zoom, stretch, shear, rotate and translate images or latents, in this order, about their centre.

    The size stays the same.

    By the QR decomposition these are all affine maps that do not mirror. Angles are in pixels, on rectangles, too.

    Details alias where objects get smaller: with the defaults, sources are at most 1.45 cells apart, and without
    stretch and shear 1 / `min_zoom`. To scale to less than half the size, use `IsotropicScale`, which can filter.

    Args:
        max_angle: Turns are drawn from ± this, in degrees, at most 180.
        min_zoom: The smallest zoom, 0.5 to 1; zooms are drawn uniformly in their logarithm.
        max_zoom: The largest zoom, 1 to 2.
        max_stretch: Stretches are drawn from 1/this to this, uniformly in their logarithm; 1 (none) to 2.
        max_shear: Shears are drawn from ± this, in degrees, at most 45.
        max_shift: Shifts are drawn from ± this, as a part of each side, at most 0.5.
        interpolation: See `Resampled`.

    Raises:
        ValueError: If an argument is out of range, or only the identity could be drawn.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> Affine()(x, Motion(shift=(0.0, 0.25)))
        tensor([[[[1., 1., 2., 3.]]]])
        >>> list(Affine(max_stretch=1, max_shear=0).cases((16, 16)))
        ['angle 30', 'zoom 0.8', 'zoom 1.25', 'shift 0.125']
    """

    def __init__(
        self,
        max_angle: float = 30,
        *,
        min_zoom: float = 0.8,
        max_zoom: float = 1.25,
        max_stretch: float = 1.25,
        max_shear: float = 10,
        max_shift: float = 0.125,
        interpolation: Literal['bicubic', 'bilinear'] = 'bicubic',
    ) -> None:
        self.max_angle = max_angle
        self.min_zoom, self.max_zoom = min_zoom, max_zoom
        self.max_stretch = max_stretch
        self.max_shear = max_shear
        self.max_shift = max_shift
        for name, (low, high) in _LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f'Affine.{name} must be in [{low}, {high}], got {getattr(self, name)}.')
        super().__init__(interpolation)
        if not self.cases((1, 1)):
            raise ValueError('Affine: only the identity can be drawn; expected a range for at least one argument.')

    def sample(self, generator: Generator, grid: Grid) -> Motion:
        """Draw all parts independently and uniformly, zoom and stretch in the logarithm; `grid` does not matter."""
        zoom, stretch, shear, angle, down, right = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
        return Motion(
            zoom=self.min_zoom * (self.max_zoom / self.min_zoom) ** zoom,
            stretch=self.max_stretch ** (2 * stretch - 1),
            shear=(2 * shear - 1) * self.max_shear,
            angle=(2 * angle - 1) * self.max_angle,
            shift=((2 * down - 1) * self.max_shift, (2 * right - 1) * self.max_shift),
        )

    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], motion: Motion) -> tuple[Tensor, Tensor]:
        """Return the sources of `rows` (R, 1) and `columns` (C): all motions undone, the last one first."""
        zoom, stretch, shear, angle, (down, right) = motion
        middle = centre(size)
        rows, columns = rows - middle[0] - down * size[0], columns - middle[1] - right * size[1]
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # rows count downwards: after the turn, the top came from the right; sheared, the top leans to the right
        rows, columns = cosine * rows + sine * columns, cosine * columns - sine * rows
        columns = columns + math.tan(math.radians(shear)) * rows
        taller, wider = zoom * math.sqrt(stretch), zoom / math.sqrt(stretch)
        return middle[0] + rows / taller, middle[1] + columns / wider

    def cases(self, grid: Grid) -> dict[str, Motion]:
        """Return each motion by itself at its largest, by name; without motions that are never drawn."""
        cases = {
            f'{part} {getattr(self, limit):g}': Motion(**{part: float(getattr(self, limit))})
            for limit, part in _CASES.items()
        }
        cases[f'shift {self.max_shift:g}'] = Motion(shift=(float(self.max_shift),) * 2)
        return {name: motion for name, motion in cases.items() if motion != Motion()}
