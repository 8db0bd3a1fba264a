"""Gaussian diffusion in discrete steps (arXiv 2006.11239, 2102.09672), and DiT, which learns to reverse it."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.generators.base import Generator, drop_labels
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS, PROCESSES
from eqzoo.registry.ranges import PositiveInt, Probability

_HALF_BIN = 1 / 255  # half the step of 8-bit pixels in [-1, 1]; ADM and DiT keep it for latents
_MIN_PROBABILITY = 1e-12  # as ADM clamps before the logarithm
_MIN_STEPS = {'linear': 21, 'cosine': 2}  # with fewer, the last beta of the linear schedule reaches 1


class Respaced(NamedTuple):
    """A process of S steps that visits a subset of another process's noise levels.

    Args:
        times: The steps that are kept (S,), ascending.
        betas: Their variances (S,): cumulative products of 1 - beta equal those of the full process at `times`.
    """

    times: np.ndarray
    betas: np.ndarray


@PROCESSES.register_module()
class GaussianDiffusion:
    """Noise added in T steps, x_t = sqrt(a_t) x + sqrt(1 - a_t) noise, and the loss of a network that predicts it.

    If the output has twice the channels of the latents, the second half interpolates the log-variance
    of the reverse step between its lower and upper bound (arXiv 2102.09672, Eq. 15).

    Args:
        num_steps: T, at least 2, or at least 21 for the linear schedule.
        schedule: 'linear', betas from 1e-4 to 0.02 for T = 1000, scaled by 1000 / T for other T; or 'cosine'
            (arXiv 2102.09672, Eq. 17).

    Raises:
        ValueError: If there are too few steps, or the schedule is unknown.
    """

    def __init__(self, num_steps: PositiveInt = 1000, schedule: Literal['linear', 'cosine'] = 'linear') -> None:
        least = _MIN_STEPS[schedule]
        if num_steps < least:
            raise ValueError(f'GaussianDiffusion.num_steps: got {num_steps}; expected at least {least}.')
        self.num_steps, self.schedule = num_steps, schedule
        self.betas = _betas(schedule, num_steps)
        # the posterior q(x_{t-1} | x_t, x) of arXiv 2006.11239, Eq. 6-7; in float64, as 1 - products cancels at small t
        products = np.cumprod(1 - self.betas)
        before = np.append(1.0, products[:-1])
        variance = self.betas * (1 - before) / (1 - products)
        self.products = products
        tables = {
            'signal': np.sqrt(products),
            'noise': np.sqrt(1 - products),
            'start_from_noisy': 1 / np.sqrt(products),
            'start_from_noise': np.sqrt(1 / products - 1),
            'mean_from_start': self.betas * np.sqrt(before) / (1 - products),
            'mean_from_noisy': (1 - before) * np.sqrt(1 - self.betas) / (1 - products),
            # the variance at t = 0 is 0, whose logarithm is not finite: ADM uses that of t = 1
            'log_variance': np.log(np.append(variance[1], variance[1:])),
            'log_beta': np.log(self.betas),
        }
        self._tables = {name: torch.from_numpy(table).float() for name, table in tables.items()}

    def sample_times(self, uniform: Tensor) -> Tensor:
        """Return steps (B,), int64, for numbers (B,) uniform in [0, 1)."""
        return (uniform * self.num_steps).long().clamp_max(self.num_steps - 1)

    def noised(self, x: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return x_t (B, C, h, w) at `times` (B,), int64."""
        return self._at('signal', times) * x + self._at('noise', times) * noise

    def losses(self, output: Tensor, x: Tensor, noise: Tensor, noisy: Tensor, times: Tensor) -> dict[str, Tensor]:
        """Return the loss of each sample and its parts, (B,) each.

        `loss` is `mse`, the mean squared error of the predicted noise. With a learned variance `vb` is added:
        the variational bound in bits per dimension, whose gradient reaches only the variance (the hybrid
        loss of arXiv 2102.09672, Eq. 16).

        Args:
            output: The network's output (B, C or 2C, h, w).
            x: Latents (B, C, h, w).
            noise: (B, C, h, w).
            noisy: x_t (B, C, h, w).
            times: (B,), int64.
        """
        channels = x.shape[1]
        output = output.float()
        mse = _mean(F.mse_loss(output[:, :channels], noise, reduction='none'))
        if output.shape[1] == channels:
            return {'loss': mse}
        # one term of the bound's T: its factor of 1 is the paper's lambda = 0.001 on their sum, for T = 1000
        vb = self._variational_bound(output[:, :channels].detach(), output[:, channels:], x, noisy, times)
        return {'loss': mse + vb, 'mse': mse, 'vb': vb}

    def respaced(self, steps: int) -> Respaced:
        """Return the process of `steps` evenly spread, rounded steps, including the first and the last.

        Raises:
            ValueError: If there are fewer than 2 steps, or more than were trained.
        """
        if not 2 <= steps <= self.num_steps:
            raise ValueError(f'steps: got {steps}; expected 2 to {self.num_steps}, the number of trained steps.')
        # ADM accumulates the stride instead of multiplying it, which decides how halves are rounded
        strides = np.full(steps - 1, (self.num_steps - 1) / (steps - 1))
        times = np.round(np.append(0.0, strides.cumsum())).astype(np.int64)
        products = self.products[times]
        return Respaced(times, 1 - products / np.append(1.0, products[:-1]))

    def _variational_bound(self, noise: Tensor, fraction: Tensor, x: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """Return the KL divergence of the reverse step, at t = 0 the negative log-likelihood, (B,), in bits."""
        start = self._at('start_from_noisy', times) * noisy - self._at('start_from_noise', times) * noise
        of_start, of_noisy = self._at('mean_from_start', times), self._at('mean_from_noisy', times)
        true_mean, mean = (of_start * each + of_noisy * noisy for each in (x, start))
        true_log = self._at('log_variance', times)
        share = (fraction + 1) / 2  # outputs -1 and 1 are the lower and the upper bound
        log_variance = share * self._at('log_beta', times) + (1 - share) * true_log
        # KL of two Gaussians, with exp of differences of logarithms in place of ratios of tiny variances
        gap = (true_mean - mean).square() * (-log_variance).exp()
        divergence = 0.5 * (log_variance - true_log - 1 + (true_log - log_variance).exp() + gap)
        likelihood = _log_likelihood(x, mean, 0.5 * log_variance)
        return torch.where(times == 0, _mean(-likelihood), _mean(divergence)) / math.log(2)

    def _at(self, name: str, times: Tensor) -> Tensor:
        """Return the values of a table at `times` as (B, 1, 1, 1) float32."""
        table = self._tables[name]
        if table.device != times.device:  # copied once, not in every step
            table = self._tables[name] = table.to(times.device)
        return table[times].view(-1, 1, 1, 1)


@GENERATORS.register_module()
class DiT(Generator):
    """A network that predicts the noise of Gaussian diffusion (arXiv 2212.09748).

    Args:
        network: For instance a `DiffusionTransformer`. Its output has C channels, or 2C with a learned variance.
        process: The diffusion that the network undoes.
        p_unconditional: Probability that a label is replaced by no class.

    Raises:
        ValueError: If `process` is of another kind, or the probability is outside [0, 1].
    """

    def __init__(self, network: nn.Module, process: GaussianDiffusion, *, p_unconditional: Probability = 0.1) -> None:
        super().__init__(network)
        if not isinstance(process, GaussianDiffusion):
            raise ValueError(f'DiT.process: got {type(process).__name__}; expected GaussianDiffusion; see also SiT.')
        self.process, self.p_unconditional = process, p_unconditional

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss' and, with a learned variance, its parts 'mse' and 'vb'; see `Generator.loss`.

        Each sample's stream gives its time, then its noise, then whether its label is dropped.
        """
        x = batch['latents']
        times = self.process.sample_times(streams.uniform(device=x.device))
        noise = streams.normal(x)
        labels = drop_labels(batch['labels'], streams.uniform(), self.p_unconditional, self.num_classes)
        noisy = self.process.noised(x, noise, times)
        losses = self.process.losses(self.network(noisy, times, labels), x, noise, noisy, times)
        return {name: value.mean() for name, value in losses.items()}


def _betas(schedule: str, num_steps: int) -> np.ndarray:
    if schedule == 'linear':
        scale = 1000 / num_steps
        return np.linspace(scale * 1e-4, scale * 0.02, num_steps)
    levels = np.cos((np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - levels[1:] / levels[:-1], 0.999)


def _log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log-probability of each value's 8-bit bin under a Gaussian (arXiv 2006.11239, Eq. 13).

    The outermost bins reach to infinity. ADM's `discretized_gaussian_log_likelihood`, with its approximate normal CDF.
    """
    inverse = (-log_scale).exp()
    below, above = (_normal_cdf(inverse * (x - mean + edge)) for edge in (-_HALF_BIN, _HALF_BIN))
    inside = torch.where(x > 0.999, 1 - below, above - below)
    return torch.where(x < -0.999, above, inside).clamp_min(_MIN_PROBABILITY).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """Approximate the normal distribution function, as ADM does; to 3e-4."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(dim=1)
