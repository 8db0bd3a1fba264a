"""ODE samplers of interpolants: Euler, Heun, and Dormand and Prince's method with its own steps for each sample.

A sample must not depend on the other samples of its batch, so torchdiffeq, which has one step size for the whole batch,
cannot be used. torchode chooses steps for each sample, but needs sympy ~= 1.10 and torchtyping; hence this solver.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.guidance import Guidance
from eqzoo.generators.interpolant import Interpolant, shifted
from eqzoo.generators.samplers.base import Sampler
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS
from eqzoo.registry.ranges import PositiveFloat, PositiveInt

# x (A, ...), times (A,) on the CPU, indices (A,) of these samples in the batch on the CPU -> dx/dt (A, ...)
Flow = Callable[[Tensor, Tensor, Tensor], Tensor]

_INSIDE = 1e-9  # time that a solver stays inside a part where guidance is on or off

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
# the weights of order five minus those of order four
_ERROR = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_ORDER = 5

# Step control of Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, section II.4.
# Differs from: their largest growth of 10, which torchdiffeq uses too. The error of a short first step is the rounding
# of a float32 network, which depends on the batch, and would choose the next step. With growth by at most 3, all
# errors below 0.0024 give the same next step.
_SAFETY, _SLOWEST, _FASTEST = 0.9, 0.2, 3.0
_MOST_STEPS = 10_000


@SAMPLERS.register_module()
class ODE(Sampler):
    """Follow the velocity from noise to data, without further noise (arXiv 2401.08740).

    Args:
        method: 'dopri5', used for SiT's published numbers, chooses steps for each sample by `rtol` and `atol`. 'euler'
            and 'heun' take `steps` equal steps, of one and two evaluations each.
        steps: Number of steps of Euler and Heun.
        rtol: Relative tolerance of dopri5.
        atol: Absolute tolerance of dopri5.
        guidance: See `Sampler`.

    Raises:
        ValueError: If the method is unknown, there are no steps, or a tolerance is not positive.
    """

    process = Interpolant

    def __init__(
        self,
        method: Literal['euler', 'heun', 'dopri5'] = 'dopri5',
        *,
        steps: PositiveInt = 50,
        rtol: PositiveFloat = 1e-3,
        atol: PositiveFloat = 1e-6,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(guidance)
        self.method, self.steps, self.rtol, self.atol = method, steps, rtol, atol

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps, or for coarse ones of dopri5."""
        return {**arguments, 'steps': 2, 'rtol': 0.5, 'atol': 0.5}

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Turn `noise` (B, C, h, w) into latents."""
        process, network = generator.process, generator.network
        end, start = process.interval()

        def flow(x: Tensor, times: Tensor, places: Tensor, within: tuple[float, float] = (0.0, 1.0)) -> Tensor:
            """Return dx/dt of the samples with the indices `places`; guidance sees `times` clamped to `within`."""
            at = times.to(x.device, non_blocking=True)
            inputs = process.network_times(at.float())
            own = labels[places.to(labels.device, non_blocking=True)]
            output = self.predict(network, x, inputs, own, times.clamp(*within))
            return process.velocity(output, x, at)

        x = noise.double()  # states and times are float64; the network sees float32
        if self.method != 'dopri5':
            return _solve_evenly(flow, x, self.step_times(start, end), self.method)
        for now, then in pairwise(self._smooth_parts(start, end)):
            part = partial(flow, within=(then + _INSIDE, now - _INSIDE))
            x = solve_adaptively(part, x, now, then, rtol=self.rtol, atol=self.atol)
        return x

    def step_times(self, start: float, end: float) -> Tensor:
        """Return the times (S + 1,), float64, between which Euler and Heun step."""
        return torch.linspace(start, end, self.steps + 1, dtype=torch.float64)

    def _smooth_parts(self, start: float, end: float) -> list[float]:
        """Return `start`, `end` and the times between where guidance starts or stops: the velocity jumps there."""
        jumps = () if self.guidance is None or self.guidance.scale == 1 else self.guidance.interval
        return [start, *sorted((time for time in jumps if end < time < start), reverse=True), end]


@SAMPLERS.register_module()
class ShiftedODE(ODE):
    """Euler's or Heun's method with steps that are shorter where there is more noise, as LightningDiT and FLUX sample.

    Args:
        method: As of `ODE`. dopri5 chooses its own steps.
        steps: Number of steps. LightningDiT's `num_sampling_steps` counts the times between them, one more.
        shift: Shift of the times; see `shifted`. LightningDiT's `timestep_shift`, 0.3, is 1 / shift.
        guidance: See `Sampler`.
    """

    def __init__(
        self,
        method: Literal['euler', 'heun'] = 'euler',
        *,
        steps: PositiveInt = 249,
        shift: PositiveFloat = 1 / 0.3,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(method, steps=steps, guidance=guidance)
        self.shift = shift

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps."""
        return {**arguments, 'steps': 2}

    def step_times(self, start: float, end: float) -> Tensor:
        """Return the shifted times (S + 1,), float64, from `start` to `end`."""
        even = torch.linspace(1, 0, self.steps + 1, dtype=torch.float64)
        return end + (start - end) * shifted(even, self.shift)


def _solve_evenly(flow: Flow, x: Tensor, times: Tensor, method: str) -> Tensor:
    """Solve dx/dt = flow through `times` (S + 1,) by 'euler' or 'heun'."""
    places = torch.arange(len(x))
    for now, then in pairwise(times):
        step = float(then - now)
        slope = flow(x, now.expand(len(x)), places)
        moved = x + step * slope
        if method == 'heun':
            moved = x + step / 2 * (slope + flow(moved, then.expand(len(x)), places))
        x = moved
    return x


def solve_adaptively(
    flow: Flow,
    x: Tensor,
    start: float,
    end: float,
    *,
    rtol: float,
    atol: float,
) -> Tensor:
    """Solve dx/dt = flow from `x` at `start` to `end`, with step sizes of its own for each sample.

    A step is accepted if the root mean square of its error / (atol + rtol * |x|) is at most 1.

    Args:
        flow: Called with the samples that have not arrived yet.
        x: (B, ...), float64.
        start: Time of `x`.
        end: Time of the solutions; may be before `start`.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Returns:
        The solutions (B, ...) at `end`.

    Raises:
        FloatingPointError: If the flow is not finite, or a sample takes more than 10,000 steps.
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
            raise FloatingPointError(
                'dopri5: the network gives values that are not finite. The weights are damaged, training diverged, or '
                'the guidance is too large.'
            )
        accepted = ratio <= 1
        kept, kept_here = active[accepted], here[accepted.to(x.device)]
        x[kept_here], slopes[kept_here] = moved[accepted.to(x.device)], slope[accepted.to(x.device)]
        # the last step sets the time to `end` itself: the sum may be rounded to before it
        reached = torch.where(is_last, torch.full_like(size, end), times[active] + direction * size)
        times[kept] = reached[accepted]
        growth = (_SAFETY * ratio.clamp_min(1e-10) ** (-1 / _ORDER)).clamp(_SLOWEST, _FASTEST)
        # accepted steps never shrink the next one, rejected steps never grow it
        steps[active] = size * torch.where(accepted, growth.clamp_min(1.0), growth.clamp_max(1.0))
    raise FloatingPointError(f'dopri5: more than {_MOST_STEPS:,} steps; rtol and atol are too small for the network.')


def _step(
    flow: Flow,
    x: Tensor,
    times: Tensor,
    places: Tensor,
    slope: Tensor,
    sizes: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the states after a step of `sizes` (A,), the slopes there and the error estimates."""
    scale = sizes.to(x.device).view(-1, *[1] * (x.ndim - 1))
    slopes = [slope]
    for node, weights in zip(_NODES, _WEIGHTS, strict=True):
        inner = x + scale * sum(weight * each for weight, each in zip(weights, slopes, strict=True))
        slopes.append(flow(inner, times + node * sizes, places))
    # the last stage is the solution itself, so its slope is the first one of the next step
    error = scale * sum(weight * each for weight, each in zip(_ERROR, slopes, strict=True))
    return inner, slopes[-1], error


def _first_steps(
    flow: Flow,
    x: Tensor,
    times: Tensor,
    places: Tensor,
    slopes: Tensor,
    direction: float,
    tolerances: tuple[float, float],
) -> Tensor:
    """Return the first step sizes (B,) by the rule of Hairer, Norsett and Wanner, section II.4."""
    large, steep = (_norm(each, x.abs(), *tolerances) for each in (x, slopes))
    small = torch.where((large < 1e-5) | (steep < 1e-5), torch.full_like(large, 1e-6), 0.01 * large / steep)
    sizes = (direction * small).to(x.device).view(-1, *[1] * (x.ndim - 1))
    bent = flow(x + sizes * slopes, times + direction * small, places)
    curved = _norm(bent - slopes, x.abs(), *tolerances) / small
    largest = torch.maximum(steep, curved)
    flat = torch.maximum(torch.full_like(small, 1e-6), 1e-3 * small)
    return torch.minimum(100 * small, torch.where(largest <= 1e-15, flat, (0.01 / largest) ** (1 / _ORDER)))


def _norm(values: Tensor, sizes: Tensor, rtol: float, atol: float) -> Tensor:
    """Return the root mean square (B,) of `values` / (atol + rtol * `sizes`), on the CPU."""
    return (values / (atol + rtol * sizes)).flatten(1).square().mean(dim=1).sqrt().cpu()
