"""Samplers of Gaussian diffusion: diffusers' schedulers, on the noise levels that were trained."""

import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.diffusion import GaussianDiffusion
from eqzoo.generators.guidance import Guidance
from eqzoo.generators.samplers.base import Sampler, check_steps
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS


class _Scheduled(Sampler):
    """A loop over a scheduler's steps.

    Args:
        steps: Evaluations of the network.
        guidance: See `Sampler`.
    """

    process = GaussianDiffusion
    # ADM's spacing has the first trained step and the last, and may have all
    least_steps: ClassVar[int] = 2
    unused_steps: ClassVar[int] = 0

    def __init__(self, steps: int, guidance: Guidance | None) -> None:
        super().__init__(guidance)
        check_steps(f'{type(self).__name__}.steps', steps, self.least_steps)
        self.steps = steps

    def check(self, generator: Generator) -> None:
        """Refuse a generator that this sampler is not for.

        Raises:
            ValueError: If it is of another process, or one of fewer steps.
        """
        super().check(generator)
        trained = generator.process.num_steps
        if self.steps > trained - self.unused_steps:
            raise ValueError(
                f'{type(self).__name__}.steps: got {self.steps}; accepted are {self.least_steps} to '
                f'{trained - self.unused_steps}; the generator was trained with {trained}.'
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
        """Return the latents after all of the scheduler's steps.

        Args:
            generator: The generator.
            x: The first noise.
            labels: Classes (B,).
            scheduler: Set to its steps.
            times: The trained step that each of the scheduler's is, by number.
            options: For the scheduler's `step`.
            channels: Of the output that the scheduler takes; None all.
        """
        last = generator.process.num_steps - 1
        for step in scheduler.timesteps:
            time = int(times[int(step)])
            at = torch.full((len(x),), time, dtype=torch.int64)
            output = self.predict(generator.network, x, at.to(x.device), labels, at / last)
            x = scheduler.step(output[:, :channels], step, x, **options).prev_sample
        return x


@SAMPLERS.register_module()
class DDPM(_Scheduled):
    """Ancestral sampling (arXiv 2006.11239) in fewer steps, with the variance that the network learned, if it did.

    Steps are spread as ADM's and DiT's, whose numbers are reproduced: 250, without clipping. A network
    without a learned variance gets the posterior's (DiT's code would take the larger one, beta).

    Args:
        steps: See `_Scheduled`.
        guidance: See `Sampler`.
    """

    def __init__(self, steps: int = 250, *, guidance: Guidance | None = None) -> None:
        super().__init__(steps, guidance)

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the latents that `noise` (B, C, h, w) becomes."""
        learned = generator.network.out_channels == 2 * generator.latent_shape[0]
        variance = 'learned_range' if learned else 'fixed_small'
        scheduler, times = _respaced(DDPMScheduler, generator.process, self.steps, variance_type=variance)
        options = dict(generator=streams.generators)
        return self.run(generator, noise, labels, scheduler, times, options, channels=None)


@SAMPLERS.register_module()
class DDIM(_Scheduled):
    """Sampling without noise on the way, or with less (arXiv 2010.02502); steps are spread as `DDPM`'s.

    Args:
        steps: See `_Scheduled`.
        eta: Share of the ancestral noise, 0 to 1.
        guidance: See `Sampler`.

    Raises:
        ValueError: If eta is out of range, or there are no steps.
    """

    def __init__(self, steps: int = 50, *, eta: float = 0.0, guidance: Guidance | None = None) -> None:
        super().__init__(steps, guidance)
        if not 0 <= eta <= 1:
            raise ValueError(f'DDIM.eta must be in [0, 1], got {eta}.')
        self.eta = eta

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the latents that `noise` (B, C, h, w) becomes."""
        scheduler, times = _respaced(DDIMScheduler, generator.process, self.steps, set_alpha_to_one=True)
        options = dict(eta=self.eta, generator=streams.generators)
        return self.run(generator, noise, labels, scheduler, times, options, channels=generator.latent_shape[0])


@SAMPLERS.register_module()
class DPMSolver(_Scheduled):
    """DPM-Solver++(2M) (arXiv 2211.01095), good within 20 steps.

    Args:
        steps: See `_Scheduled`.
        guidance: See `Sampler`.
    """

    least_steps, unused_steps = 1, 1  # the spacing ends before the first trained step

    def __init__(self, steps: int = 20, *, guidance: Guidance | None = None) -> None:
        super().__init__(steps, guidance)

    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the latents that `noise` (B, C, h, w) becomes."""
        process = generator.process
        scheduler = DPMSolverMultistepScheduler(
            num_train_timesteps=process.num_steps,
            trained_betas=process.betas,
            solver_order=2,
            algorithm_type='dpmsolver++',
            timestep_spacing='linspace',
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # of numpy, at how diffusers hands it a tensor
            scheduler.set_timesteps(self.steps)
        times = np.arange(process.num_steps)
        return self.run(generator, noise, labels, scheduler, times, {}, channels=generator.latent_shape[0])


def _respaced(kind: type, process: GaussianDiffusion, steps: int, **options: Any) -> tuple[Any, np.ndarray]:
    """Return a scheduler of the respaced process, set to all its steps, and the trained steps these are.

    A scheduler of the whole process would take `t - T / steps` for the step before t, which is not
    the one that ADM's spacing has.
    """
    respaced = process.respaced(steps)
    scheduler = kind(num_train_timesteps=steps, trained_betas=respaced.betas, clip_sample=False, **options)
    # in double precision, as ADM's tables; diffusers' are single
    scheduler.betas = torch.from_numpy(respaced.betas)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.from_numpy(process.products[respaced.times])
    scheduler.set_timesteps(steps)
    return scheduler, respaced.times
