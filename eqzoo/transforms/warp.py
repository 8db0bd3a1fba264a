"""Warp: smooth deformation by a few slow waves, invertible, with the border kept in place."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.registry.ranges import Filled, PositiveFloat, PositiveInt
from eqzoo.transforms.resampled import Resampled

Waves = tuple[tuple[float, ...], tuple[float, ...]]  # amplitudes of the displacement down and to the right


@TRANSFORMS.register_module()
class Warp(Resampled):
    """Deform images or latents by a few slow waves, like rubber in a fixed frame; the size stays the same.

    With v down and u to the right, both from 0 to 1 over the picture, the source of the place (v, u) is

        v + Σ a_mn sin(π m v) cos(π n u),    u + Σ b_mn sin(π m u) cos(π n v),    m ≥ 1, n ≥ 0, m + n ≤ `modes`:

    a function of places, not of pixels, and hence the same at every resolution. Points of the border slide along it,
    so nothing enters from outside: `mask` leaves out only the outermost cells, whose interpolation takes some mirrored
    ones.

    The map is invertible and its Jacobian's determinant is positive, because displacements of two points differ by
    less than the points themselves, in the larger of |Δv| and |Δu|: Σ |a_mn| π (m + n) < 1. For the distribution of a
    and b this means an amplitude below (1 + 1/2 + … + 1 / `modes`) / (π `modes`), 0.195 for three modes.

    Details alias where objects get smaller: sources are at most 1 + `amplitude` / that bound cells apart, in the same
    measure; 1.77 with the defaults.

    Args:
        amplitude: Largest possible displacement, as a part of the side; half of it is usual.
        modes: Largest number of half waves over the sides, m + n.
        interpolation: See `Resampled`.
        eval_amplitudes: Amplitudes that an evaluation measures, of a fixed pattern in which every wave is as
            large as it can be drawn.

    Raises:
        ValueError: If an argument is out of range, or an amplitude is so large that the map might fold.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> Warp(modes=1, interpolation='bilinear')(x, ((0.0,), (0.1,))).round(decimals=2)
        tensor([[[[1.1500, 2.3700, 3.3700, 4.0000]]]])
    """

    parameter = 'amplitude / side'

    def __init__(
        self,
        amplitude: PositiveFloat = 0.15,
        *,
        modes: PositiveInt = 3,
        interpolation: Literal['bicubic', 'bilinear'] = 'bicubic',
        eval_amplitudes: Filled[PositiveFloat] = (0.05, 0.1, 0.15),
    ) -> None:
        limit = _limit(modes)
        if not amplitude < limit:
            raise ValueError(
                f'Warp.amplitude must be above 0 and below {limit:.4g} of the side, or {modes} modes might fold, '
                f'got {amplitude}.'
            )
        if not all(each < limit for each in eval_amplitudes):
            raise ValueError(
                f'Warp.eval_amplitudes must be one or more numbers above 0 and below {limit:.4g}, '
                f'got {eval_amplitudes!r}.'
            )
        self.amplitude = amplitude
        self.modes = modes
        super().__init__(interpolation)
        self.eval_amplitudes = tuple(eval_amplitudes)

    def sample(self, generator: Generator, grid: Grid) -> Waves:
        """Draw each wave's amplitude uniformly, smaller for faster waves; `grid` does not matter."""
        weights = _weights(self.modes)
        drawn = 2 * torch.rand(2, len(weights), generator=generator, dtype=torch.float64) - 1
        down, right = drawn.tolist()
        return self._amplitudes(down, self.amplitude), self._amplitudes(right, self.amplitude)

    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], waves: Waves) -> tuple[Tensor, Tensor]:
        """Return the sources of `rows` (R, 1) and `columns` (C), by the formula."""
        v, u = (rows + 0.5) / size[0], (columns + 0.5) / size[1]
        down = _displacement(v, u, self.modes, waves[0])
        right = _displacement(u, v, self.modes, waves[1])
        return rows + size[0] * down, columns + size[1] * right

    def cases(self, grid: Grid) -> dict[str, Waves]:
        """Return the pattern with every wave as large as it can be drawn, at `eval_amplitudes`, by name."""
        ones = [1.0] * len(_weights(self.modes))
        minus = [-1.0] * len(ones)
        return {
            f'{each:g}': (self._amplitudes(ones, each), self._amplitudes(minus, each)) for each in self.eval_amplitudes
        }

    def _amplitudes(self, shares: Sequence[float], amplitude: float) -> tuple[float, ...]:
        """Return each wave's amplitude, for its share in [-1, 1] of the largest one."""
        return tuple(amplitude * share * weight for share, weight in zip(shares, _weights(self.modes), strict=True))


def _displacement(along: Tensor, across: Tensor, modes: int, amplitudes: Sequence[float]) -> Tensor:
    """Return the displacement along one side, as a part of it, at places in [0, 1]."""
    return sum(
        amplitude * torch.sin(math.pi * m * along) * torch.cos(math.pi * n * across)
        for (m, n), amplitude in zip(_numbers(modes), amplitudes, strict=True)
    )


def _numbers(modes: int) -> list[tuple[int, int]]:
    """Return all (m, n): half waves along the displacement, at least one, and across it."""
    return [(m, both - m) for both in range(1, modes + 1) for m in range(1, both + 1)]


def _weights(modes: int) -> list[float]:
    """Return each wave's largest share of the amplitude: proportional to 1 / (m + n)², with a sum of 1."""
    weights = [1 / (m + n) ** 2 for m, n in _numbers(modes)]
    return [weight / sum(weights) for weight in weights]


def _limit(modes: int) -> float:
    """Return the amplitude at which slopes, at most amplitude · Σ weight · π (m + n), might reach 1."""
    slopes = sum(weight * math.pi * (m + n) for weight, (m, n) in zip(_weights(modes), _numbers(modes), strict=True))
    return 1 / slopes
