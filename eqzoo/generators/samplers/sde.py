"""SDE sampler of interpolants: the reverse SDE, solved by Euler and Maruyama."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.guidance import Guidance
from eqzoo.generators.interpolant import Coefficients, Interpolant
from eqzoo.generators.samplers.base import Sampler
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS
from eqzoo.registry.ranges import NonNegativeFloat, Range

_MARGIN = 1e-3  # distance from pure noise if diffusion or score divide by zero there


@SAMPLERS.register_module()
class SDE(Sampler):
    """Follow velocity and score from noise to data, adding noise in each step (arXiv 2401.08740, Sec. 2.4).

    A step of length dt moves x by (w score - velocity) dt + sqrt(2 w dt) noise; the last step adds no noise.
    Defaults are SiT's and REPA's, whose w is written as twice this one.

    Args:
        steps: Evaluations of the network, including the last step's.
        diffusion: w(t) with t = 1 at noise: 'sigma', sigma(t); 'linear', t; 'sbdm', as of the SDE along the path;
            'constant', 1; 'decreasing', (1 - cos(pi t))^2 / 4; 'increasing-decreasing', sin(pi t)^2.
        diffusion_scale: Factor of w; in 'decreasing', of the cosine, as in SiT's code.
        last_step: 'mean', the step without its noise; 'tweedie', the denoised latents; 'euler', a step of the ODE;
            None for no such step.
        last_step_size: Time that is left for the last step.
        guidance: See `Sampler`.

    Raises:
        ValueError: If an option is unknown or out of range.
    """

    process = Interpolant

    def __init__(
        self,
        steps: Annotated[int, Range(at_least=2)] = 250,
        *,
        diffusion: Literal['sigma', 'linear', 'sbdm', 'constant', 'decreasing', 'increasing-decreasing'] = 'sigma',
        diffusion_scale: NonNegativeFloat = 1.0,
        last_step: Literal['mean', 'tweedie', 'euler'] | None = 'mean',
        last_step_size: Annotated[float, Range(above=0, below=1)] = 0.04,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(guidance)
        self.steps, self.diffusion, self.diffusion_scale = steps, diffusion, diffusion_scale
        self.last_step, self.last_step_size = last_step, last_step_size

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps."""
        return {**arguments, 'steps': 2}

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Turn `noise` (B, C, h, w) into latents."""
        process = generator.process
        least, largest = process.interval()
        is_singular = process.prediction != 'velocity' or self.diffusion == 'sbdm'
        start = largest if process.path == 'vp' or not is_singular else min(largest, 1 - _MARGIN)
        has_last = self.last_step is not None
        end = self.last_step_size if has_last else least
        x = noise.double()
        # `steps` evaluations: a step between each two times, and the last step if there is one
        times = torch.linspace(start, end, self.steps + (not has_last), dtype=torch.float64)
        for now, then in pairwise(times.tolist()):
            size = now - then
            velocity, score, path = self._fields(generator, x, now, labels)
            weight = self._weight(path, now)
            x = x + size * (weight * score - velocity) + (2 * weight * size).sqrt() * streams.normal(noise)
        if not has_last:
            return x
        velocity, score, path = self._fields(generator, x, end, labels)
        if self.last_step == 'tweedie':  # Tweedie's formula: the expected data given x
            return (x + path.sigma.square() * score) / path.alpha
        drift = -velocity if self.last_step == 'euler' else self._weight(path, end) * score - velocity
        return x + end * drift

    def _fields(
        self, generator: Generator, x: Tensor, time: float, labels: Tensor
    ) -> tuple[Tensor, Tensor, Coefficients]:
        """Return velocity and score (B, C, h, w), and the path's coefficients."""
        process = generator.process
        at = torch.full((len(x),), time, dtype=x.dtype)
        inputs = process.network_times(at.float()).to(x.device, non_blocking=True)
        output = self.predict(generator.network, x, inputs, labels, at)
        at = at.to(x.device, non_blocking=True)
        return process.velocity(output, x, at), process.score(output, x, at), process.at(at)

    def _weight(self, path: Coefficients, time: float) -> Tensor:
        """Return w at `time`, (B, 1, 1, 1)."""
        scale = self.diffusion_scale
        forms = {
            'sigma': lambda: scale * path.sigma,
            'linear': lambda: scale * time,
            'sbdm': lambda: scale * path.diffusion,
            'constant': lambda: scale,
            'decreasing': lambda: 0.25 * (1 - scale * math.cos(math.pi * time)) ** 2,
            'increasing-decreasing': lambda: scale * math.sin(math.pi * time) ** 2,
        }
        return torch.ones_like(path.sigma) * forms[self.diffusion]()
