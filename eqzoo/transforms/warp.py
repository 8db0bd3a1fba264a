"""Smooth bending of the plane: a few slow waves, invertible, with the border onto itself."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from eqzoo.registry import TRANSFORMS, Grid
from eqzoo.transforms.resampled import Resampled, check_interpolation

Waves = tuple[tuple[float, ...], tuple[float, ...]]  # amplitudes of the displacement down and to the right


@TRANSFORMS.register_module()
class Warp(Resampled):
    """Bend images or latents by a few slow waves, as if painted on rubber in a fixed frame; the size stays.

    With v down and u to the right, both from 0 to 1 over the picture, what is seen at (v, u) comes from

        v + Σ a_mn sin(π m v) cos(π n u),    u + Σ b_mn sin(π m u) cos(π n v),    m ≥ 1, n ≥ 0, m + n ≤ `modes`:

    a function of places, not of pixels, and hence the same at every resolution. Points of the border
    slide along it, so that nothing comes in over it: `mask` leaves out only where outermost cells are
    seen, whose interpolation takes some that are mirrored.

    The map has an inverse, and its Jacobian's determinant is positive: from one point to another
    displacements change by less than the points are apart, in the larger of |Δv| and |Δu|, as
    Σ |a_mn| π (m + n) < 1. By the way a and b are drawn that is an amplitude below
    (1 + 1/2 + … + 1 / `modes`) / (π `modes`), 0.195 for three modes.

    Nothing is filtered before it is sampled, so that details alias where things get smaller: in that
    measure sources are at most 1 + `amplitude` / that bound cells apart, 1.77 by the defaults.

    Args:
        amplitude: The most that a draw can displace, as a part of the side; usual is half of it.
        modes: The most half waves that there are over the sides, m + n.
        interpolation: 'bicubic' or 'bilinear'; the latter blurs more.
        eval_amplitudes: What an evaluation goes through: always the same pattern, every wave as large
            as it can be drawn.

    Raises:
        ValueError: If an argument is out of range, or an amplitude so large that the map might fold.
        TypeError: If `modes` is no whole number.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
        >>> Warp(modes=1, interpolation='bilinear')(x, ((0.0,), (0.1,))).round(decimals=2)
        tensor([[[[1.1500, 2.3700, 3.3700, 4.0000]]]])
    """

    parameter = 'amplitude / side'

    def __init__(
        self,
        amplitude: float = 0.15,
        *,
        modes: int = 3,
        interpolation: Literal['bicubic', 'bilinear'] = 'bicubic',
        eval_amplitudes: Sequence[float] = (0.05, 0.1, 0.15),
    ) -> None:
        if not isinstance(modes, int):
            raise TypeError(f'Warp.modes must be a whole number, got {modes!r}.')
        if modes < 1:
            raise ValueError(f'Warp.modes must be at least 1, got {modes}.')
        limit = _limit(modes)
        if not 0 < amplitude < limit:
            raise ValueError(
                f'Warp.amplitude must be above 0 and below {limit:.4g} of the side, or {modes} modes might fold, '
                f'got {amplitude}.'
            )
        check_interpolation('Warp', interpolation)
        if (
            not isinstance(eval_amplitudes, Sequence)
            or not eval_amplitudes
            or not all(0 < each < limit for each in eval_amplitudes)
        ):
            raise ValueError(
                f'Warp.eval_amplitudes must be one or more numbers above 0 and below {limit:.4g}, '
                f'got {eval_amplitudes!r}.'
            )
        self.amplitude = amplitude
        self.modes = modes
        self.interpolation = interpolation
        self.eval_amplitudes = tuple(eval_amplitudes)

    def sample(self, generator: Generator, grid: Grid) -> Waves:
        """Draw each wave's amplitude uniformly, the faster ones smaller; any `grid` will do."""
        weights = _weights(self.modes)
        drawn = 2 * torch.rand(2, len(weights), generator=generator, dtype=torch.float64) - 1
        down, right = drawn.tolist()
        return self._scaled(down, self.amplitude), self._scaled(right, self.amplitude)

    def sources(self, rows: Tensor, columns: Tensor, size: tuple[int, int], waves: Waves) -> tuple[Tensor, Tensor]:
        """Return where what is seen at `rows` (R, 1) and `columns` (C) comes from, by the formula."""
        v, u = (rows + 0.5) / size[0], (columns + 0.5) / size[1]
        down = _displacement(v, u, self.modes, waves[0])
        right = _displacement(u, v, self.modes, waves[1])
        return rows + size[0] * down, columns + size[1] * right

    def cases(self, grid: Grid) -> dict[str, Waves]:
        """Return a pattern in which every wave is as large as it can be drawn, at `eval_amplitudes`, by name."""
        ones = [1.0] * len(_weights(self.modes))
        minus = [-1.0] * len(ones)
        return {f'{each:g}': (self._scaled(ones, each), self._scaled(minus, each)) for each in self.eval_amplitudes}

    def _scaled(self, shares: Sequence[float], amplitude: float) -> tuple[float, ...]:
        return tuple(amplitude * share * weight for share, weight in zip(shares, _weights(self.modes), strict=True))


def _displacement(along: Tensor, across: Tensor, modes: int, amplitudes: Sequence[float]) -> Tensor:
    return sum(
        amplitude * torch.sin(math.pi * m * along) * torch.cos(math.pi * n * across)
        for (m, n), amplitude in zip(_numbers(modes), amplitudes, strict=True)
    )


def _numbers(modes: int) -> list[tuple[int, int]]:
    """Return all (m, n): half waves along the displacement, at least one, and across it."""
    return [(m, both - m) for both in range(1, modes + 1) for m in range(1, both + 1)]


def _weights(modes: int) -> list[float]:
    """Return what each wave contributes at most: 1 / (m + n)², as the waves of smooth fields fall off; together 1."""
    weights = [1 / (m + n) ** 2 for m, n in _numbers(modes)]
    return [weight / sum(weights) for weight in weights]


def _limit(modes: int) -> float:
    """Return the amplitude from which on slopes, at most amplitude · Σ weight · π (m + n), might reach 1."""
    slopes = sum(weight * math.pi * (m + n) for weight, (m, n) in zip(_weights(modes), _numbers(modes), strict=True))
    return 1 / slopes
