"""How latents are spread: deviation, normality, and each channel's mean and deviation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator, to_double
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.registry import EVALUATORS


@EVALUATORS.register_module()
class LatentStatistics(Evaluator):
    """`latent_std` and `latent_kurtosis`, in generator units; `curves` has each channel.

    `latent_std` is the root of the variance, averaged over channels. Near 0 it tells of collapse,
    which lowers uncentred errors; far from 1 after fine-tuning it says that the autoencoder's
    scale has to be measured again.

    `latent_kurtosis` is the excess kurtosis, averaged over channels: 0 for a normal
    distribution, -1.2 for a uniform one, above 0 where few values are far out. Channels that do
    not vary have none; if no channel varies it is NaN.
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
        # the fourth moment about the mean, from moments about 0: latents are near 0, and sums in float64
        central = fourth - 4 * mean * cube + 6 * mean.square() * square - 3 * mean.pow(4)
        # rounding leaves about 1e-16 of the squares, which is no variance
        kurtosis = (central / variance.square() - 3)[variance > 1e-12 * square]
        self.curves = [_of_channels(mean, variance.sqrt())]
        return {
            'latent_std': variance.mean().sqrt().item(),
            'latent_kurtosis': kurtosis.mean().item(),  # of none: NaN
        }

    def card(self) -> dict[str, Any]:
        """Say what is averaged."""
        return {'latent': 'posterior mean in generator units', 'average': 'variance and kurtosis over channels'}


def _of_channels(mean: Tensor, std: Tensor) -> dict[str, Any]:
    series = {
        'label': 'mean ± standard deviation',
        'x': list(range(len(mean))),
        'y': mean.tolist(),
        'low': (mean - std).tolist(),
        'high': (mean + std).tolist(),
    }
    return {'title': 'Latent channels', 'x': 'channel', 'y': 'latents', 'log': False, 'series': [series]}
