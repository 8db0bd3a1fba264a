"""Latent statistics: spread and kurtosis; and the base class of evaluators that keep latents."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import AutoencoderView, Evaluator
from eqzoo.precision import to_double
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS

_SEED = 0


class LatentSample(Evaluator):
    """Base class that keeps the latents of at most `max_images`, drawn once, the same for any batches and processes.

    In `compute`, `latents` returns them (N, C, h, w), float32, in the order of the data set, on the GPU if
    they were computed there.

    Args:
        max_images: How many are kept.
        min_images: Fewer images in the data set are refused.
    """

    def __init__(self, max_images: int, min_images: int) -> None:
        super().__init__()
        if not 0 < min_images <= max_images:
            raise ValueError(
                f'{type(self).__name__}: max_images must be at least min_images, '
                f'got max_images={max_images}, min_images={min_images}.'
            )
        self.max_images, self.min_images = max_images, min_images
        self._chosen: Tensor | None = None
        self._device = torch.device('cpu')

    def check(self, num_images: int) -> None:
        """Draw which images are kept."""
        self._chosen = torch.zeros(num_images, dtype=torch.bool)
        self._chosen[torch.randperm(num_images, generator=seeded(_SEED, num_images))[: self.max_images]] = True

    def update(self, view: AutoencoderView) -> None:
        """Keep the latents of the drawn images of a batch; of all images if `check` was not called."""
        numbers, latents = view.numbers.cpu(), view.latents.float()
        chosen = torch.ones(len(numbers), dtype=torch.bool) if self._chosen is None else self._chosen[numbers]
        if latents.is_cuda:
            self._device = latents.device
        self.keep('latents', latents.cpu()[chosen], numbers[chosen])

    def latents(self) -> Tensor:
        """Return the kept latents of all processes."""
        return self.kept['latents'].to(self._device)

    def card(self) -> dict[str, Any]:
        """Return the kind of latents."""
        return {'latent': 'posterior mean in generator units', 'max_images': self.max_images}


@EVALUATORS.register_module()
class LatentStatistics(Evaluator):
    """`latent_std` and `latent_kurtosis`, in generator units; `curves` has each channel.

    `latent_std` is the root of the variance, averaged over channels. A value near 0 is a collapse, which
    lowers uncentred errors; a value far from 1 after fine-tuning means that the autoencoder's scale must be
    measured again.

    `latent_kurtosis` is the excess kurtosis, averaged over channels: 0 for a normal distribution, -1.2 for a
    uniform one, above 0 with heavy tails. Channels that do not vary are left out; if no channel varies it is
    NaN.
    """

    def update(self, view: AutoencoderView) -> None:
        """Add a batch's moments per channel."""
        latents = to_double(view.latents)
        for power in (1, 2, 3, 4):
            self.add(f'power {power}', latents.pow(power).sum(dim=(2, 3)))
        self.add('cells', torch.full((len(latents),), float(latents[0, 0].numel())))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return both; set `curves`."""
        mean, square, cube, fourth = (sums[f'power {power}'] / sums['cells'] for power in (1, 2, 3, 4))
        variance = (square - mean.square()).clamp_min(0)
        # the fourth central moment from raw moments: safe, because latents are near 0 and sums are in float64
        central = fourth - 4 * mean * cube + 6 * mean.square() * square - 3 * mean.pow(4)
        # rounding leaves about 1e-16 of the squares: less than 1e-12 of them is a constant channel
        kurtosis = (central / variance.square() - 3)[variance > 1e-12 * square]
        self.curves = [_channel_curve(mean, variance.sqrt())]
        return {
            'latent_std': variance.mean().sqrt().item(),
            'latent_kurtosis': kurtosis.mean().item(),  # NaN if no channel varies
        }

    def card(self) -> dict[str, Any]:
        """Return the kind of latents and of averages."""
        return {'latent': 'posterior mean in generator units', 'average': 'variance and kurtosis over channels'}


def _channel_curve(mean: Tensor, std: Tensor) -> dict[str, Any]:
    series = {
        'label': 'mean ± standard deviation',
        'x': list(range(len(mean))),
        'y': mean.tolist(),
        'low': (mean - std).tolist(),
        'high': (mean + std).tolist(),
    }
    return {'title': 'Latent channels', 'x': 'channel', 'y': 'latents', 'log': False, 'series': [series]}
