"""Base classes of frozen vision networks: extractors give features of whole images, encoders give tokens of patches."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from eqzoo.precision import full_precision

Dtype = Literal['float32', 'bfloat16']
"""Of the weights and activations of a metric's network."""

_CPU_CHUNK = 3  # images: activations stay in the cache, and the allocator keeps their memory (docs/metrics.md)


class VisionNetwork(ABC):
    """A frozen network in evaluation mode; it moves to the device of the images it is given.

    Deliberately not an nn.Module, so that it stays out of the checkpoints and optimizers of the object that holds it.
    Subclasses set the attributes below.
    """

    key: str
    """Name of the network and its weights: 'inception', 'effnet_lite0', 'dinov2_vitl14'."""
    num_features: int
    """D."""
    network: nn.Module

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Return network, sha256 of the weights, resizing and value range, in JSON types."""

    @contextmanager
    def _prepared_for(self, images: Tensor) -> Iterator[None]:
        """Check that images are uint8, move the network to their device, turn autocast and TF32 off.

        Features are then the same in any run, whatever precision it trains in.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f'{type(self).__name__}: images must be uint8, got {images.dtype}.')
        self._move_to(images.device)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False), full_precision():
            yield

    def _move_to(self, device: torch.device) -> None:
        if next(self.network.parameters()).device != device:
            self.network.to(device)


class Features(NamedTuple):
    """Features of a batch of images, in float32.

    Args:
        pooled: (B, D), one vector per image.
        spatial: (B, S), a flattened map that keeps positions, if the extractor has one.
        logits: (B, K) of a classifier, if the extractor has one.
    """

    pooled: Tensor
    spatial: Tensor | None = None
    logits: Tensor | None = None


class FeatureExtractor(VisionNetwork):
    """A frozen network whose features represent whole images; sets of images are compared by them.

    Metrics are named after the network: `frechet_key` is the name of a Fréchet distance, and the names of
    other metrics end in `suffix`, which is empty for the network that published numbers use.
    """

    num_spatial: int | None = None
    """S, if there are spatial features."""
    num_logits: int | None = None
    """K, if there is a classifier."""
    dtype: Dtype = 'float32'
    """Features are float32 in any case; the names of bfloat16's metrics end in `_bf16`."""

    @property
    def frechet_key(self) -> str:
        """The name of a Fréchet distance on these features; 'fid' for the pinned Inception only."""
        return f'fd_{self.key}'

    @property
    def suffix(self) -> str:
        """The end of other metrics' names: '_<key>', or nothing for the pinned Inception."""
        return f'_{self.key}'

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """Return the features of `images` (B, 3, H, W), float in [0, 255], in float32."""

    def __call__(self, images: Tensor) -> Features:
        """Return the features of `images` (B, 3, H, W), uint8.

        Raises:
            TypeError: If the images are not uint8.
        """
        size = _CPU_CHUNK if images.device.type == 'cpu' else max(len(images), 1)
        with self._prepared_for(images):
            parts = [self.extract(chunk.float()) for chunk in images.split(size)]
        return Features(*(None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True)))


def dtype_suffix(dtype: Dtype) -> str:
    """Return the part that a dtype adds to the names of a network and of its metrics; nothing for float32.

    Example:
        >>> dtype_suffix('float32'), dtype_suffix('bfloat16')
        ('', '_bf16')
    """
    return {'float32': '', 'bfloat16': '_bf16'}[dtype]


def dtype_card(dtype: Dtype) -> dict[str, str]:
    """Return the entry of a card; none for float32, so that cards and reference files made before still agree."""
    return {} if dtype == 'float32' else {'dtype': dtype}


class VisionEncoder(VisionNetwork):
    """A frozen network that turns images into a grid of features, one for each token of a generator."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return features (B, T, D) of `images` (B, 3, H, W), float in [0, 255]."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return features (B, T, D), float32, the tokens row by row, of `images` (B, 3, H, W), uint8.

        Raises:
            TypeError: If the images are not uint8.
        """
        with self._prepared_for(images):
            return self.encode(images.float())


def per_channel(values: Sequence[float], like: Tensor) -> Tensor:
    """Return `values` as (C, 1, 1) in the dtype and on the device of `like`; the host does not wait for the device."""
    return torch.tensor(values, dtype=like.dtype).view(-1, 1, 1).to(like.device, non_blocking=True)
