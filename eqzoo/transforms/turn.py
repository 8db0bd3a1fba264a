"""Rotation by any angle: resampled, with a border that has to be left out."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS
from eqzoo.transforms.base import Grid, Transform

_INTERPOLATIONS = ('bicubic', 'bilinear')


@TRANSFORMS.register_module()
class Turn(Transform):
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
        if interpolation not in _INTERPOLATIONS:
            raise ValueError(f'Turn.interpolation must be one of {_INTERPOLATIONS}, got {interpolation!r}.')
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

    def __call__(self, x: Tensor, angle: float) -> Tensor:
        """Turn `x` (B, C, H, W)."""
        if x.is_meta:  # asked for the size alone, as Compose does; torch would work through the whole sampling
            return torch.empty_like(x)
        # torch has no half-precision kernel for every mode on every device
        precise = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        # Apple's devices have no float64
        device = torch.device('cpu') if x.device.type == 'mps' else x.device
        rows, columns = _sources(tuple(x.shape[2:]), angle, device)
        # to torch's coordinates, in which the outer borders, not the outer centres, are at -1 and 1
        places = torch.stack([(2 * columns + 1) / x.shape[3] - 1, (2 * rows + 1) / x.shape[2] - 1], dim=-1)
        places = places.to(precise).expand(len(x), *places.shape)
        turned = F.grid_sample(precise, places, self.interpolation, padding_mode='reflection', align_corners=False)
        return turned.to(x.dtype)

    def mask(self, size: tuple[int, int], angle: float) -> Tensor:
        """Return where of `size` (H, W) only what was there before counts, not what came in: (H, W), bool.

        That is where the source is a cell or more away from the centres of the outermost cells: all
        sixteen that bicubic interpolation takes are inside then, and so is the whole square of a
        cell, as which an encoder sees the image.
        """
        inside = [
            (places > 1 - 1e-6) & (places < side - 2 + 1e-6)
            for side, places in zip(size, _sources(size, angle), strict=True)
        ]
        return inside[0] & inside[1]

    def cases(self, grid: Grid) -> dict[str, float]:
        """Return `eval_angles` by name."""
        return {f'{angle:g}': float(angle) for angle in self.eval_angles}


def _sources(size: tuple[int, int], angle: float, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return each cell's source, as a row and a column that are no whole numbers, each (H, W), float64."""
    centre = [(side - 1) / 2 for side in size]
    rows, columns = (
        torch.arange(side, dtype=torch.float64, device=device) - middle
        for side, middle in zip(size, centre, strict=True)
    )
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # rows count downwards: what is now up came from the right
    return (
        centre[0] + cosine * rows[:, None] + sine * columns,
        centre[1] - sine * rows[:, None] + cosine * columns,
    )
