"""Samplers of Gaussian diffusion: diffusers' schedulers on the noise levels of training."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.diffusion import GaussianDiffusion
from eqzoo.generators.guidance import Guidance
from eqzoo.generators.samplers.base import Sampler
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS
from eqzoo.registry.ranges import PositiveInt, Range


class _Scheduled(Sampler):
    """Base class: a loop over the steps of one of diffusers' schedulers.

    Args:
        steps: Evaluations of the network.
        guidance: See `Sampler`.
    """

    process = GaussianDiffusion
    # ADM's spacing contains the first and the last trained step, and may contain all
    unused_steps: ClassVar[int] = 0

    def __init__(self, steps: int, guidance: Guidance | None) -> None:
        super().__init__(guidance)
        self.steps = steps

    def check(self, generator: Generator) -> None:
        """Check that this sampler is for `generator`.

        Raises:
            ValueError: If the generator has another process, or one of fewer steps.
        """
        super().check(generator)
        trained = generator.process.num_steps
        if self.steps > trained - self.unused_steps:
            raise ValueError(
                f'{type(self).__name__}.steps: got {self.steps}; expected at most {trained - self.unused_steps}; the '
                f'generator was trained with {trained}.'
            )

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps."""
        return {**arguments, 'steps': 2}

    def run(
        self,
        generator: Generator,
        x: Tensor,
        labels: Tensor,
        scheduler: Any,
        times: np.ndarray,
        options: dict[str, Any],
        *,
        channels: int | None,
    ) -> Tensor:
        """Run all steps of a scheduler and return the latents (B, C, h, w).

        Args:
            generator: The generator.
            x: The first noise (B, C, h, w).
            labels: (B,).
            scheduler: One of diffusers' schedulers, with its timesteps set.
            times: The trained step for each of the scheduler's.
            options: Arguments of the scheduler's `step`.
            channels: Number of output channels that the scheduler takes, None for all.
        """
        last = generator.process.num_steps - 1
        for step in scheduler.timesteps:
            time = int(times[int(step)])
            at = torch.full((len(x),), time, dtype=torch.int64)
            output = self.predict(generator.network, x, at.to(x.device, non_blocking=True), labels, at / last)
            x = scheduler.step(output[:, :channels], step, x, **options).prev_sample
        return x


@SAMPLERS.register_module()
class DDPM(_Scheduled):
    """Ancestral sampling in fewer steps than trained (arXiv 2006.11239), with the learned variance if there is one.

    Spacing of the steps is ADM's and DiT's, and defaults reproduce DiT's numbers: 250 steps, no clipping.
    Differs from DiT's code: without a learned variance, it is the posterior's, not the larger beta.

    Args:
        steps: See `_Scheduled`.
        guidance: See `Sampler`.
    """

    def __init__(self, steps: Annotated[int, Range(at_least=2)] = 250, *, guidance: Guidance | None = None) -> None:
        super().__init__(steps, guidance)

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Turn `noise` (B, C, h, w) into latents."""
        # imported here, as in the samplers below: diffusers takes seconds to import
        from diffusers import DDPMScheduler

        learned = generator.network.out_channels == 2 * generator.latent_shape[0]
        variance = 'learned_range' if learned else 'fixed_small'
        scheduler, times = _respaced_scheduler(
            partial(DDPMScheduler, variance_type=variance), generator.process, self.steps
        )
        options = dict(generator=streams.generators)
        return self.run(generator, noise, labels, scheduler, times, options, channels=None)


@SAMPLERS.register_module()
class DDIM(_Scheduled):
    """Sampling with less noise than `DDPM`, or none, on the same spacing of steps (arXiv 2010.02502).

    Args:
        steps: See `_Scheduled`.
        eta: Factor on the standard deviation of DDPM's noise, 0 to 1 (Eq. 16).
        guidance: See `Sampler`.

    Raises:
        ValueError: If eta is out of range, or there are too few steps.
    """

    def __init__(
        self,
        steps: Annotated[int, Range(at_least=2)] = 50,
        *,
        eta: Annotated[float, Range(at_least=0, at_most=1)] = 0.0,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(steps, guidance)
        self.eta = eta

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Turn `noise` (B, C, h, w) into latents."""
        from diffusers import DDIMScheduler

        scheduler, times = _respaced_scheduler(
            partial(DDIMScheduler, set_alpha_to_one=True), generator.process, self.steps
        )
        options = dict(eta=self.eta, generator=streams.generators)
        return self.run(generator, noise, labels, scheduler, times, options, channels=generator.latent_shape[0])


@SAMPLERS.register_module()
class DPMSolver(_Scheduled):
    """DPM-Solver++(2M), which needs only about 20 steps (arXiv 2211.01095).

    Args:
        steps: See `_Scheduled`.
        guidance: See `Sampler`.
    """

    unused_steps = 1  # its spacing stops before the first trained step

    def __init__(self, steps: PositiveInt = 20, *, guidance: Guidance | None = None) -> None:
        super().__init__(steps, guidance)

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Turn `noise` (B, C, h, w) into latents."""
        from diffusers import DPMSolverMultistepScheduler

        process = generator.process
        scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=process.num_steps,
            trained_betas=process.betas,
            solver_order=2,
            algorithm_type='dpmsolver++',
            timestep_spacing='linspace',
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # diffusers passes a tensor to numpy
            scheduler.set_timesteps(self.steps)
        times = np.arange(process.num_steps)
        return self.run(generator, noise, labels, scheduler, times, {}, channels=generator.latent_shape[0])


def _respaced_scheduler(build: Callable[..., Any], process: GaussianDiffusion, steps: int) -> tuple[Any, np.ndarray]:
    """Return a scheduler of the respaced process, with all its steps set, and the trained step of each.

    A scheduler of the full process is no option: it takes `t - T / steps` for the step before t, which ADM's
    rounded spacing does not contain.
    """
    respaced = process.respaced(steps)
    scheduler = build(num_train_timesteps=steps, trained_betas=respaced.betas, clip_sample=False)
    # diffusers' tables are float32, ADM's are float64
    scheduler.betas = torch.from_numpy(respaced.betas)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.from_numpy(process.products[respaced.times])
    scheduler.set_timesteps(steps)
    return scheduler, respaced.times
