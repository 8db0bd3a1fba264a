"""How close reconstructions are to the images, as a network sees them: LPIPS and its like."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from eqzoo.evaluators.base import Evaluator
from eqzoo.evaluators.reconstruction import to_uint8
from eqzoo.evaluators.view import AutoencoderView
from eqzoo.precision import full_precision
from eqzoo.registry import EVALUATORS


@EVALUATORS.register_module()
class PerceptualMetric(Evaluator):
    """The mean over images of a perceptual distance, under the distance's own name.

    `lpips` is LPIPS on VGG, as EQ-VAE, LightningDiT and RAE report; `lpips_alex` is on AlexNet,
    torchmetrics' default. Neither is comparable with the "PSIM" of SD-VAE's model cards.

    Args:
        distance: (reconstruction, target) (B, 3, H, W) in [-1, 1] → (B,), with `key` and `card()`:
            `LPIPS` or `FeatureDistance`.
        values: 'uint8' rounds both to 8 bits, as when saved (RAE); 'float' takes what the decoder
            gives, unclamped (EQ-VAE, LightningDiT). They differ in the third digit.

    Raises:
        ValueError: If `values` is neither.
    """

    def __init__(self, distance: Any, *, values: Literal['uint8', 'float'] = 'uint8') -> None:
        super().__init__()
        if values not in ('uint8', 'float'):
            raise ValueError(f"PerceptualMetric.values must be 'uint8' or 'float', got {values!r}.")
        self.distance, self.values = distance, values
        self._key = distance.key if values == 'uint8' else f'{distance.key}_float'

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Add a batch."""
        pair = view.reconstruction, view.images
        if self.values == 'uint8':
            pair = tuple(to_uint8(each).float() / 127.5 - 1 for each in pair)
        with full_precision():
            self.add('distance', self.distance(*pair))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the mean."""
        return {self._key: (sums['distance'] / sums['count']).item()}

    def card(self) -> dict[str, Any]:
        """Name the network and the values."""
        return {'distance': self.distance.card(), 'values': self.values, 'latent': 'posterior mean'}
