"""Gaussian diffusion in discrete steps, as ADM and DiT train it (arXiv 2006.11239, 2102.09672)."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.generators.base import Generator
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS, PROCESSES

_BIN = 1 / 255  # half of a pixel's step in [-1, 1], which ADM's decoder likelihood keeps for latents too
_LEAST = 1e-12  # of a probability before its logarithm
_LEAST_STEPS = {'linear': 21, 'cosine': 2}  # with fewer the last step of the linear schedule leaves nothing


class Respaced(NamedTuple):
    """A process of fewer steps through the same noise levels.

    Args:
        times: The steps of the whole process that are kept (S,), rising.
        betas: Their variances (S,), such that the products of 1 - beta are those of the whole.
    """

    times: np.ndarray
    betas: np.ndarray


@PROCESSES.register_module()
class GaussianDiffusion:
    """Noise added in steps, x_t = sqrt(a_t) x + sqrt(1 - a_t) noise, and the loss of the network that undoes it.

    The network predicts the noise; with twice the channels also where between its least and
    largest value the logarithm of each reverse step's variance is.

    Args:
        num_steps: T, at least 2, or 21 where the linear schedule is stretched to so few.
        schedule: 'linear', betas from 1e-4 to 0.02 where T is 1000; or 'cosine', of arXiv 2102.09672.

    Raises:
        ValueError: If there are fewer steps, or no such schedule.
    """

    def __init__(self, num_steps: int = 1000, schedule: Literal['linear', 'cosine'] = 'linear') -> None:
        least = _LEAST_STEPS.get(schedule, 2)
        if num_steps < least:
            raise ValueError(f'GaussianDiffusion.num_steps: got {num_steps}; accepted is at least {least}.')
        self.num_steps, self.schedule = num_steps, schedule
        self.betas = _betas(schedule, num_steps)
        products = np.cumprod(1 - self.betas)
        before = np.append(1.0, products[:-1])
        variance = self.betas * (1 - before) / (1 - products)
        self.products = products
        # at t = 0 the variance is 0: ADM takes that of t = 1
        tables = {
            'signal': np.sqrt(products),
            'noise': np.sqrt(1 - products),
            'start_from_noisy': 1 / np.sqrt(products),
            'start_from_noise': np.sqrt(1 / products - 1),
            'mean_from_start': self.betas * np.sqrt(before) / (1 - products),
            'mean_from_noisy': (1 - before) * np.sqrt(1 - self.betas) / (1 - products),
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

        `loss` is the mean squared error of the predicted noise, `mse`; with a learned variance
        plus `vb`, the variational bound in bits per dimension, whose gradient reaches the
        variance alone (the hybrid loss of arXiv 2102.09672).

        Args:
            output: Of the network, (B, C or 2C, h, w).
            x: Latents (B, C, h, w).
            noise: As large.
            noisy: x_t.
            times: (B,), int64.
        """
        channels = x.shape[1]
        output = output.float()
        mse = _mean(F.mse_loss(output[:, :channels], noise, reduction='none'))
        if output.shape[1] == channels:
            return {'loss': mse}
        vb = self._variational_bound(output[:, :channels].detach(), output[:, channels:], x, noisy, times)
        return {'loss': mse + vb, 'mse': mse, 'vb': vb}

    def respaced(self, steps: int) -> Respaced:
        """Return the process of `steps` steps, spread evenly and rounded, the first and the last among them.

        Raises:
            ValueError: If there are not so many, or less than these two.
        """
        if not 2 <= steps <= self.num_steps:
            raise ValueError(f'steps: got {steps}; accepted are 2 to {self.num_steps}, as many as were trained.')
        # added up, not multiplied, so that halves are rounded as ADM rounds them
        strides = np.full(steps - 1, (self.num_steps - 1) / (steps - 1))
        times = np.round(np.append(0.0, strides.cumsum())).astype(np.int64)
        products = self.products[times]
        return Respaced(times, 1 - products / np.append(1.0, products[:-1]))

    def _variational_bound(self, noise: Tensor, fraction: Tensor, x: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """Return the KL divergence of the reverse step, at t = 0 the negative log-likelihood, (B,)."""
        start = self._at('start_from_noisy', times) * noisy - self._at('start_from_noise', times) * noise
        of_start, of_noisy = self._at('mean_from_start', times), self._at('mean_from_noisy', times)
        true_mean, mean = (of_start * each + of_noisy * noisy for each in (x, start))
        true_log = self._at('log_variance', times)
        share = (fraction + 1) / 2
        log_variance = share * self._at('log_beta', times) + (1 - share) * true_log
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


def _betas(schedule: str, num_steps: int) -> np.ndarray:
    if schedule == 'linear':
        scale = 1000 / num_steps
        return np.linspace(scale * 1e-4, scale * 0.02, num_steps)
    if schedule == 'cosine':
        levels = np.cos((np.arange(num_steps + 1) / num_steps + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - levels[1:] / levels[:-1], 0.999)
    raise ValueError(f"GaussianDiffusion.schedule: got {schedule!r}; accepted are 'linear' and 'cosine'.")


def _log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log-probability of each value's bin of 8 bits under a Gaussian, as ADM approximates it."""
    inverse = (-log_scale).exp()
    below, above = (_normal_cdf(inverse * (x - mean + edge)) for edge in (-_BIN, _BIN))
    inside = torch.where(x > 0.999, 1 - below, above - below)
    return torch.where(x < -0.999, above, inside).clamp_min(_LEAST).log()


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(dim=1)


def check_probability(where: str, probability: float) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: Naming `where`.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f'{where} must be in [0, 1], got {probability}.')


def drop_labels(labels: Tensor, uniform: Tensor, probability: float, num_classes: int) -> Tensor:
    """Return `labels` (B,), with `num_classes`, no class, where `uniform` (B,) is below `probability`."""
    return labels.masked_fill(uniform.to(labels.device) < probability, num_classes)


@GENERATORS.register_module()
class DiT(Generator):
    """A network that predicts the noise of Gaussian diffusion.

    Args:
        network: Such as a `DiffusionTransformer`, whose outputs have C channels, or 2C for the
            variance too.
        process: What is undone.
        p_unconditional: How often a label is replaced by no class.

    Raises:
        ValueError: If process or probability are not such.
    """

    def __init__(self, network: nn.Module, process: GaussianDiffusion, *, p_unconditional: float = 0.1) -> None:
        super().__init__(network)
        if not isinstance(process, GaussianDiffusion):
            raise ValueError(f'DiT.process: got {type(process).__name__}; accepted is GaussianDiffusion; see SiT.')
        check_probability('DiT.p_unconditional', p_unconditional)
        self.process, self.p_unconditional = process, p_unconditional

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss' and, with a learned variance, its parts 'mse' and 'vb'; see `Generator.loss`.

        A sample's stream gives its time, then its noise, then whether its label is left out.
        """
        x = batch['latents']
        times = self.process.sample_times(streams.uniform(device=x.device))
        noise = streams.normal(x)
        labels = drop_labels(batch['labels'], streams.uniform(), self.p_unconditional, self.num_classes)
        noisy = self.process.noised(x, noise, times)
        losses = self.process.losses(self.network(noisy, times, labels), x, noise, noisy, times)
        return {name: value.mean() for name, value in losses.items()}
