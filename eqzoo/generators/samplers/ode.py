"""Dormand and Prince's method of order five, with steps of its own for each sample.

Libraries choose one step for the whole batch, so that a sample would depend on its neighbours.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.guidance import Guidance
from eqzoo.generators.interpolant import Interpolant
from eqzoo.generators.samplers.base import Sampler, check_steps
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS

# J. R. Dormand and P. J. Prince, A family of embedded Runge-Kutta formulae (1980), table 2.
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
_WEIGHTS = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
# fifth order less fourth
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_ORDER = 5

# Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section II.4: how steps follow errors.
# Differs from their 10, and torchdiffeq's: the error of a short first step is the rounding of a float32 network, which
# depends on the batch; it would choose the next step. Growth by at most 3 makes errors below 0.0024 all the same.
_SAFETY, _SLOWEST, _FASTEST = 0.9, 0.2, 3.0

_MOST_STEPS = 10_000


def solve_adaptively(
    flow: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    start: float,
    end: float,
    *,
    rtol: float,
    atol: float,
) -> Tensor:
    """Return the solutions (B, ...) at `end` of dx/dt = flow, from `x` at `start`.

    Args:
        flow: (x (A, ...), times (A,) on the CPU, places (A,) of these samples in the batch on the CPU) → dx/dt.
        x: (B, ...), float64.
        start: Time at which `x` is.
        end: May be before `start`.
        rtol: An error is accepted if its root mean square, each value over `atol` plus `rtol` times
            the value, is at most 1.
        atol: Likewise.

    Raises:
        RuntimeError: If the flow is not finite, or so rough that a sample takes more than 10,000 steps.
    """
    x = x.clone()
    places = torch.arange(len(x))
    times = torch.full((len(x),), start, dtype=torch.float64)
    slopes = flow(x, times, places)
    direction = 1.0 if end > start else -1.0
    steps = _first_steps(flow, x, times, places, slopes, direction, (rtol, atol)).clamp_max(abs(end - start))
    for _ in range(_MOST_STEPS):
        active = places[(end - times) * direction > 0]
        if not len(active):
            return x
        size = torch.minimum(steps[active], (end - times[active]).abs())
        is_last = size == (end - times[active]).abs()
        here = active.to(x.device)
        moved, slope, error = _step(flow, x[here], times[active], active, slopes[here], direction * size)
        ratio = _norm(error, torch.maximum(x[here].abs(), moved.abs()), rtol, atol)
        if not ratio.isfinite().all():
            raise RuntimeError('dopri5: the network gives values that are not finite.')
        accepted = ratio <= 1
        kept, kept_here = active[accepted], here[accepted.to(x.device)]
        x[kept_here], slopes[kept_here] = moved[accepted.to(x.device)], slope[accepted.to(x.device)]
        reached = torch.where(is_last, torch.full_like(size, end), times[active] + direction * size)
        times[kept] = reached[accepted]
        growth = (_SAFETY * ratio.clamp_min(1e-10) ** (-1 / _ORDER)).clamp(_SLOWEST, _FASTEST)
        steps[active] = size * torch.where(accepted, growth.clamp_min(1.0), growth.clamp_max(1.0))
    raise RuntimeError(f'dopri5: more than {_MOST_STEPS:,} steps; rtol and atol are too small for the network.')


def _step(
    flow: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    times: Tensor,
    places: Tensor,
    slope: Tensor,
    sizes: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return where a step of `sizes` (A,) leads, the slope there and the error."""
    scale = sizes.to(x.device).view(-1, *[1] * (x.ndim - 1))
    slopes = [slope]
    for node, weights in zip(_NODES, _WEIGHTS, strict=True):
        inner = x + scale * sum(weight * each for weight, each in zip(weights, slopes, strict=True))
        slopes.append(flow(inner, times + node * sizes, places))
    error = scale * sum(weight * each for weight, each in zip(_ERROR, slopes, strict=True))
    return inner, slopes[-1], error


def _first_steps(
    flow: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    times: Tensor,
    places: Tensor,
    slopes: Tensor,
    direction: float,
    tolerances: tuple[float, float],
) -> Tensor:
    """Return the sizes (B,) that Hairer's rule starts with."""
    large, steep = (_norm(each, x.abs(), *tolerances) for each in (x, slopes))
    small = torch.where((large < 1e-5) | (steep < 1e-5), torch.full_like(large, 1e-6), 0.01 * large / steep)
    sizes = (direction * small).to(x.device).view(-1, *[1] * (x.ndim - 1))
    bent = flow(x + sizes * slopes, times + direction * small, places)
    curved = _norm(bent - slopes, x.abs(), *tolerances) / small
    largest = torch.maximum(steep, curved)
    flat = torch.maximum(torch.full_like(small, 1e-6), 1e-3 * small)
    return torch.minimum(100 * small, torch.where(largest <= 1e-15, flat, (0.01 / largest) ** (1 / _ORDER)))


def _norm(values: Tensor, sizes: Tensor, rtol: float, atol: float) -> Tensor:
    """Return the root mean square (B,) of values relative to the tolerance, on the CPU."""
    return (values / (atol + rtol * sizes)).flatten(1).square().mean(dim=1).sqrt().cpu()


Flow = Callable[[Tensor, Tensor, Tensor], Tensor]

_INSIDE = 1e-9  # how far from an end of the guidance's interval one is on one side of it


@SAMPLERS.register_module()
class ODE(Sampler):
    """Follow the velocity: no noise but the first (arXiv 2401.08740).

    Args:
        method: 'dopri5' chooses its steps for each sample by `rtol` and `atol`, as SiT's published
            numbers were made; 'euler' and 'heun' take `steps` equal ones, one and two evaluations each.
        steps: Of Euler and Heun.
        rtol: Relative tolerance of dopri5.
        atol: Absolute tolerance.
        guidance: See `Sampler`.

    Raises:
        ValueError: If there is no such method, no steps, or a tolerance is not positive.
    """

    process = Interpolant

    def __init__(
        self,
        method: Literal['euler', 'heun', 'dopri5'] = 'dopri5',
        *,
        steps: int = 50,
        rtol: float = 1e-3,
        atol: float = 1e-6,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(guidance)
        if method not in ('euler', 'heun', 'dopri5'):
            raise ValueError(f"ODE.method: got {method!r}; accepted are 'euler', 'heun' and 'dopri5'.")
        check_steps('ODE.steps', steps)
        if min(rtol, atol) <= 0:
            raise ValueError(f'ODE.rtol and ODE.atol must be positive, got {rtol} and {atol}.')
        self.method, self.steps, self.rtol, self.atol = method, steps, rtol, atol

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps, or coarse ones."""
        return {**arguments, 'steps': 2, 'rtol': 0.5, 'atol': 0.5}

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the latents that `noise` (B, C, h, w) becomes."""
        process, network = generator.process, generator.network
        end, start = process.interval()

        def flow(x: Tensor, times: Tensor, places: Tensor, within: tuple[float, float] = (0.0, 1.0)) -> Tensor:
            """Return dx/dt of the samples at `places`, at their `times` on the CPU, guided as `within` these times."""
            at = times.to(x.device)
            inputs = process.network_times(at.float())
            output = self.predict(network, x, inputs, labels[places.to(labels.device)], times.clamp(*within))
            return process.velocity(output, x, at)

        x = noise.double()
        if self.method != 'dopri5':
            return _solve_evenly(flow, x, torch.linspace(start, end, self.steps + 1, dtype=torch.float64), self.method)
        for now, then in pairwise(self._smooth_parts(start, end)):
            part = partial(flow, within=(then + _INSIDE, now - _INSIDE))
            x = solve_adaptively(part, x, now, then, rtol=self.rtol, atol=self.atol)
        return x

    def _smooth_parts(self, start: float, end: float) -> list[float]:
        """Return the times from `start` to `end` between which nothing jumps: guidance begins and ends at one."""
        jumps = () if self.guidance is None or self.guidance.scale == 1 else self.guidance.interval
        return [start, *sorted((time for time in jumps if end < time < start), reverse=True), end]


def _solve_evenly(flow: Flow, x: Tensor, times: Tensor, method: str) -> Tensor:
    places = torch.arange(len(x))
    for now, then in pairwise(times):
        step = float(then - now)
        slope = flow(x, now.expand(len(x)), places)
        moved = x + step * slope
        if method == 'heun':
            moved = x + step / 2 * (slope + flow(moved, then.expand(len(x)), places))
        x = moved
    return x
