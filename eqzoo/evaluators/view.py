"""What an autoencoder makes of one batch, computed once for all evaluators."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor


class AutoencoderView:
    """One batch of images as an autoencoder sees and returns them.

    Args:
        autoencoder: In evaluation mode.
        images: (B, 3, H, W), float in [-1, 1], on the autoencoder's device.
    """

    def __init__(self, autoencoder: Any, images: Tensor) -> None:
        self.autoencoder = autoencoder
        self.images = images

    @cached_property
    def latents(self) -> Tensor:
        """The posterior mean (B, C, h, w) in generator units."""
        with torch.no_grad():
            return self.autoencoder.latents(self.images)

    @cached_property
    def reconstruction(self) -> Tensor:
        """The images decoded from the posterior mean, (B, 3, H, W), unclamped."""
        with torch.no_grad():
            return self.autoencoder.decode(self._raw_latents)

    @cached_property
    def indices(self) -> Tensor | None:
        """The codes (B, h, w) chosen, if there is a codebook."""
        with torch.no_grad():
            return self.autoencoder.bottleneck(self._raw_latents).indices

    @property
    def _raw_latents(self) -> Tensor:
        return self.autoencoder.normalization.denormalize(self.latents)
