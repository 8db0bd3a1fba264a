"""Translation by fractions of a latent cell, like that of a crop that is a few pixels off."""

from fractions import Fraction
from typing import Literal

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.registry.ranges import Filled, PositiveFloat, PositiveInt
from eqzoo.transforms.base import Transform

Shifts = tuple[Fraction, Fraction]  # down and to the right, as parts of height and width


@TRANSFORMS.register_module()
class Shift(Transform):
    """Translate images or latents down and to the right, by fractions of their sides.

    The border is filled with the mirror image. Shifts by whole cells are exact with either interpolation. Between
    cells, 'fourier' shifts the phase of the mirrored rows and columns; mirroring avoids ringing from a jump at the
    border (AF-LDM shifts without mirroring). It is exact for signals below the Nyquist frequency; 'bilinear', a
    weighted mean of neighbours, blurs those, too. With either, average pooling of photographs, whose frequencies
    go beyond Nyquist's, is 0.008 off (docs/metrics.md).

    Args:
        maximum: Largest shift that is drawn, in latent cells, in all four directions.
        steps: Draws are whole multiples of 1/`steps` cell; 8 gives whole pixels at f8, f16 and f32.
        interpolation: 'fourier' or 'bilinear'.
        eval_shifts: Shifts that an evaluation measures, in cells, the same down and to the right.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> Shift()(torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]]), (Fraction(0), Fraction(1, 4)))
        tensor([[[[1., 1., 2., 3.]]]])
    """

    parameter = 'shift / latent cells'

    def __init__(
        self,
        maximum: PositiveFloat = 1,
        *,
        steps: PositiveInt = 8,
        interpolation: Literal['fourier', 'bilinear'] = 'fourier',
        eval_shifts: Filled[float] = (0.25, 0.5, 0.75, 1),
    ) -> None:
        if not maximum * steps >= 1:
            raise ValueError(f'Shift.maximum must be at least 1/{steps} cell, the smallest step, got {maximum}.')
        if not all(shift != 0 for shift in eval_shifts):
            raise ValueError(f'Shift.eval_shifts must be one or more nonzero numbers of cells, got {eval_shifts!r}.')
        self.maximum = maximum
        self.steps = steps
        self.interpolation = interpolation
        self.eval_shifts = tuple(eval_shifts)

    def sample(self, generator: Generator, grid: Grid) -> Shifts:
        """Draw both shifts for a latent `grid` (h, w), uniformly from all pairs but (0, 0)."""
        most = int(self.maximum * self.steps)
        side = 2 * most + 1
        drawn = int(torch.randint(side * side - 1, (), generator=generator))
        drawn += drawn >= side * side // 2  # skip the middle one, which is no shift
        down, right = drawn // side - most, drawn % side - most
        return Fraction(down, self.steps * grid[0]), Fraction(right, self.steps * grid[1])

    def __call__(self, x: Tensor, shifts: Shifts) -> Tensor:
        """Shift `x` (B, C, H, W).

        Raises:
            ValueError: If a shift is as long as the side or longer.
        """
        # torch has no half-precision FFT on the CPU, and means in half precision lose digits
        moved = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        for dim, shift in zip((2, 3), shifts, strict=True):
            if not -1 < shift < 1:
                raise ValueError(f'Shift: {shift} of the side; shifts must be shorter than it. Use fewer cells.')
            moved = self._along(moved, dim, shift * x.shape[dim])
        return moved.to(x.dtype)

    def mask(self, size: tuple[int, int], shifts: Shifts) -> Tensor:
        """Return where values depend on nothing beyond the border: (H, W), bool, for `size` (H, W)."""
        rows, columns = (_inside(side, shift * side) for side, shift in zip(size, shifts, strict=True))
        return rows[:, None] & columns

    def cases(self, grid: Grid) -> dict[str, Shifts]:
        """Return `eval_shifts` by name, the same down and to the right."""
        exact = {f'{float(cells):g}': Fraction(cells).limit_denominator(1000) for cells in self.eval_shifts}
        return {name: (cells / grid[0], cells / grid[1]) for name, cells in exact.items()}

    def _along(self, x: Tensor, dim: int, shift: Fraction) -> Tensor:
        whole = shift.numerator // shift.denominator
        part = float(shift - whole)
        if not part:
            return _mirrored(x, dim, whole)
        if self.interpolation == 'bilinear':
            return torch.lerp(_mirrored(x, dim, whole), _mirrored(x, dim, whole + 1), part)
        return _fourier(x, dim, float(shift))


def _mirrored(x: Tensor, dim: int, shift: int) -> Tensor:
    """Shift by whole cells; beyond the border the sequence is mirrored, with the last cell repeated."""
    side = x.shape[dim]
    places = (torch.arange(side, device=x.device) - shift) % (2 * side)
    return x.index_select(dim, torch.minimum(places, 2 * side - 1 - places))


def _fourier(x: Tensor, dim: int, shift: float) -> Tensor:
    """Shift the phase of the mirrored sequence.

    It is twice as long, has no jump at its ends, and nothing at Nyquist's frequency, whose phase would be ambiguous.
    """
    side = x.shape[dim]
    spectrum = torch.fft.rfft(torch.cat([x, x.flip(dim)], dim), dim=dim)
    frequencies = torch.arange(side + 1, device=x.device, dtype=x.dtype)
    phase = torch.polar(torch.ones_like(frequencies), -torch.pi * shift / side * frequencies)
    phase = phase.view([-1 if each == dim else 1 for each in range(4)])
    return torch.fft.irfft(spectrum * phase, 2 * side, dim=dim).narrow(dim, 0, side)


def _inside(side: int, shift: Fraction) -> Tensor:
    """Return which of `side` cells have their source and its two neighbours inside."""
    first, last = max(0, -(-shift // 1)), min(side - 1, side - 1 + shift // 1)
    places = torch.arange(side)
    return (places >= first) & (places <= last)
