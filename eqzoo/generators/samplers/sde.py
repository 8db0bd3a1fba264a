"""The reverse SDE of an interpolant, by Euler and Maruyama."""

import math
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.guidance import Guidance
from eqzoo.generators.interpolant import Coefficients, Interpolant
from eqzoo.generators.samplers.base import Sampler, check_steps
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS

_FORMS = ('sigma', 'linear', 'sbdm', 'constant', 'decreasing', 'increasing-decreasing')
_LAST_STEPS = ('mean', 'tweedie', 'euler', None)
_MARGIN = 1e-3  # where the diffusion or the score divides by zero at pure noise


@SAMPLERS.register_module()
class SDE(Sampler):
    """Follow velocity and score, with noise on the way (arXiv 2401.08740, section 2.4).

    From noise to data, x moves by (-velocity + w score) dt + sqrt(2 w dt) noise; the last step has
    no noise. The defaults are SiT's and REPA's (whose w is twice this one, for other units).

    Args:
        steps: Evaluations of the network, the last step's among them.
        diffusion: w(t) with t = 1 at noise: 'sigma', sigma(t); 'linear', t; 'sbdm', that of the SDE along the path;
            'constant', 1; 'decreasing', (1 - cos(pi t))^2 / 4; 'increasing-decreasing', sin(pi t)^2.
        diffusion_scale: Factor of w; of the cosine in 'decreasing', as SiT's code has it.
        last_step: 'mean', without noise; 'tweedie', the denoised latents; 'euler', along the ODE;
            None for no such step.
        last_step_size: The time that is left for it.
        guidance: See `Sampler`.

    Raises:
        ValueError: If one of these is not among those named, or out of range.
    """

    process = Interpolant

    def __init__(
        self,
        steps: int = 250,
        *,
        diffusion: Literal['sigma', 'linear', 'sbdm', 'constant', 'decreasing', 'increasing-decreasing'] = 'sigma',
        diffusion_scale: float = 1.0,
        last_step: Literal['mean', 'tweedie', 'euler'] | None = 'mean',
        last_step_size: float = 0.04,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(guidance)
        check_steps('SDE.steps', steps, 2)
        if diffusion not in _FORMS:
            raise ValueError(f'SDE.diffusion: got {diffusion!r}; accepted are {", ".join(map(repr, _FORMS))}.')
        if last_step not in _LAST_STEPS:
            raise ValueError(f'SDE.last_step: got {last_step!r}; accepted are {", ".join(map(repr, _LAST_STEPS))}.')
        if not 0 < last_step_size < 1:
            raise ValueError(f'SDE.last_step_size must be in (0, 1), got {last_step_size}.')
        if diffusion_scale < 0:
            raise ValueError(f'SDE.diffusion_scale must not be negative, got {diffusion_scale}.')
        self.steps, self.diffusion, self.diffusion_scale = steps, diffusion, diffusion_scale
        self.last_step, self.last_step_size = last_step, last_step_size

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps."""
        return {**arguments, 'steps': 2}

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the latents that `noise` (B, C, h, w) becomes."""
        process = generator.process
        least, largest = process.interval()
        is_singular = process.prediction != 'velocity' or self.diffusion == 'sbdm'
        start = largest if process.path == 'vp' or not is_singular else min(largest, 1 - _MARGIN)
        has_last = self.last_step is not None
        end = self.last_step_size if has_last else least
        x = noise.double()
        times = torch.linspace(start, end, self.steps + (not has_last), dtype=torch.float64)
        for now, then in pairwise(times.tolist()):
            size = now - then
            velocity, score, path = self._fields(generator, x, now, labels)
            weight = self._weight(path, now)
            x = x + size * (weight * score - velocity) + (2 * weight * size).sqrt() * streams.normal(noise)
        if not has_last:
            return x
        velocity, score, path = self._fields(generator, x, end, labels)
        if self.last_step == 'tweedie':
            return (x + path.sigma.square() * score) / path.alpha
        drift = -velocity if self.last_step == 'euler' else self._weight(path, end) * score - velocity
        return x + end * drift

    def _fields(
        self, generator: Generator, x: Tensor, time: float, labels: Tensor
    ) -> tuple[Tensor, Tensor, Coefficients]:
        """Return velocity and score (B, C, h, w), and the path's coefficients."""
        process = generator.process
        at = torch.full((len(x),), time, dtype=x.dtype)
        inputs = process.network_times(at.float()).to(x.device)
        output = self.predict(generator.network, x, inputs, labels, at)
        at = at.to(x.device)
        return process.velocity(output, x, at), process.score(output, x, at), process.at(at)

    def _weight(self, path: Coefficients, time: float) -> Tensor:
        """Return w, (B, 1, 1, 1)."""
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
