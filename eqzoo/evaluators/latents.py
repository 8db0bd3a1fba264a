"""How far latents spread."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator, to_double
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.registry import EVALUATORS


@EVALUATORS.register_module()
class LatentStatistics(Evaluator):
    """`latent_std`: the root of the latents' variance, averaged over channels, in generator units.

    Near 0 it tells of collapse, which lowers uncentred errors; far from 1 after fine-tuning
    it says that the autoencoder's scale has to be measured again.
    """

    def update(self, view: AutoencoderView) -> None:
        """Add a batch's moments per channel."""
        latents = to_double(view.latents)
        self.add('value', latents.sum(dim=(2, 3)))
        self.add('square', latents.square().sum(dim=(2, 3)))
        self.add('cells', torch.full((len(latents),), float(latents[0, 0].numel())))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the standard deviation."""
        mean = sums['value'] / sums['cells']
        variance = (sums['square'] / sums['cells'] - mean.square()).clamp_min(0)
        return {'latent_std': variance.mean().sqrt().item()}

    def card(self) -> dict[str, Any]:
        """Say what is averaged."""
        return {'latent': 'posterior mean in generator units', 'average': 'variance over channels'}
