"""What every vision encoder offers: tokens of images, on a square grid, without gradients."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from eqzoo.precision import full_precision


class VisionEncoder(ABC):
    """A frozen network from images to a grid of features, one for each token of a generator.

    A subclass sets what is declared here and offers `encode`.
    """

    key: str
    """Which network with which weights this is."""

    num_features: int
    """D."""

    network: nn.Module

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return features (B, T, D), float32, the tokens row by row.

        Args:
            images: (B, 3, H, W), uint8.

        Raises:
            TypeError: If they are not uint8.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f'{type(self).__name__}: images must be uint8, got {images.dtype}.')
        if next(self.network.parameters()).device != images.device:
            self.network.to(images.device)
        with torch.autocast(images.device.type, enabled=False), full_precision():
            return self.encode(images.float())

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return features (B, T, D) of `images` (B, 3, H, W), float in [0, 255]."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Say how features are made, in JSON's types."""
