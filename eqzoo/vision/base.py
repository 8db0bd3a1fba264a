"""Frozen vision networks: for metrics, losses and alignment."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eqzoo.precision import full_precision

_CPU_CHUNK = 3  # images: activations stay in the cache, and the allocator keeps their memory (docs/metrics.md)


class Features(NamedTuple):
    """What an extractor says of a batch.

    Args:
        pooled: (B, D), one vector an image.
        spatial: (B, S), a flattened map that keeps places, where the extractor has one.
        logits: (B, K) of a classifier, where the extractor has one.
    """

    pooled: Tensor
    spatial: Tensor | None = None
    logits: Tensor | None = None


class FeatureExtractor(ABC):
    """A frozen network that turns images into features to compare sets of images by.

    It is no module: it is trained by nobody, and would else get into checkpoints. Subclasses
    set `key`, `num_features` and `_network`, in evaluation mode.

    Metrics are named by it: a Fréchet distance is called `frechet_key`; other metrics have the
    suffix `suffix`, which is empty for the network that published numbers use.
    """

    key: str
    """What its metrics are called after: 'inception', 'effnet_lite0', 'dinov2_vitl14'."""
    num_features: int
    """D."""
    num_spatial: int | None = None
    """S, where there are spatial features."""
    num_logits: int | None = None
    """K, where there is a classifier."""

    _network: nn.Module

    @property
    def frechet_key(self) -> str:
        """The name of a Fréchet distance on these features; 'fid' for the pinned Inception alone."""
        return f'fd_{self.key}'

    @property
    def suffix(self) -> str:
        """What other metrics' names end in: '_<key>', nothing for the pinned Inception."""
        return f'_{self.key}'

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """Return the features of `images` (B, 3, H, W), float in [0, 255], in float32."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Say what the features are: network, weights' sha256, resizing, value range; in JSON's types."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Return the features of `images` (B, 3, H, W), uint8.

        Autocast and TF32 are off: features are the same whatever the run around them does.

        Raises:
            TypeError: If the images are not 8-bit.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f'{type(self).__name__}: images must be uint8, got {images.dtype}.')
        self._to(images.device)
        size = _CPU_CHUNK if images.device.type == 'cpu' else max(len(images), 1)
        with torch.autocast(images.device.type, enabled=False), full_precision():
            parts = [self.extract(chunk.float()) for chunk in images.split(size)]
        return Features(*(None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True)))

    def _to(self, device: torch.device) -> None:
        if next(self._network.parameters()).device != device:
            self._network.to(device)


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
