"""The probability-flow ODE of an interpolant, from noise to data."""

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
from eqzoo.generators.samplers.dopri5 import solve_adaptively
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS

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
