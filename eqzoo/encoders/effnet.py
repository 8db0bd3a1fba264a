"""EfficientNet-Lite0 as a vision encoder: for trying REPA where nothing else is to be had."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from eqzoo.encoders.base import VisionEncoder
from eqzoo.extractors import EfficientNetLite0
from eqzoo.registry import ENCODERS, Requirement

# Channels of the feature maps at each stride.
_CHANNELS = {4: 24, 8: 40, 16: 112, 32: 320}


@ENCODERS.register_module()
class EfficientNetLite0Tokens(VisionEncoder):
    """The cells of a feature map of EfficientNet-Lite0, whose weights come with eqzoo.

    Args:
        stride: Pixels of a cell's side: 4, 8, 16 or 32, with 24, 40, 112 or 320 features.
        size: Images are resized to so many pixels before, bicubic and antialiased; `size / stride`
            has to be the generator's tokens a side. None leaves them as they are.
        weights: As `EfficientNetLite0` takes them.

    Raises:
        ValueError: If there is no map of this stride, or the size is no multiple of it.
    """

    def __init__(self, stride: int = 16, size: int | None = None, *, weights: str | Path | None = None) -> None:
        if stride not in _CHANNELS:
            raise ValueError(f'EfficientNetLite0Tokens.stride: got {stride}; accepted are 4, 8, 16 and 32.')
        if size is not None and (size < stride or size % stride):
            raise ValueError(f'EfficientNetLite0Tokens.size: got {size}; accepted are multiples of stride={stride}.')
        self._extractor = EfficientNetLite0(weights)
        self.network = self._extractor._network
        self.stride, self.size, self.num_features = stride, size, _CHANNELS[stride]
        self.key = f'{self._extractor.key}_stride{stride}'

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Say that the weights are missing, if they are."""
        return EfficientNetLite0.requirements(arguments)

    def encode(self, images: Tensor) -> Tensor:
        """Return features (B, T, D) of `images` (B, 3, H, W), float in [0, 255]."""
        if self.size is not None and images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode='bicubic', antialias=True)
        maps = self._extractor.maps(images)
        return maps[sorted((2, *_CHANNELS)).index(self.stride)].flatten(2).transpose(1, 2)

    def card(self) -> dict[str, Any]:
        """Name the network, its weights, and how images are prepared."""
        card = self._extractor.card()
        kept = {name: card[name] for name in ('network', 'weights_sha256')}
        return {**kept, 'stride': self.stride, 'resize': self.size and f'{self.size} pixels, bicubic, antialiased'}
