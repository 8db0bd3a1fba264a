"""Distance of images in the features of any extractor's network."""

from typing import Any

import torch
from torch import Tensor

from eqzoo.extractors.base import FeatureExtractor
from eqzoo.registry import LOSSES

_EPSILON = 1e-10  # as LPIPS


@LOSSES.register_module()
class FeatureDistance:
    """LPIPS without learned weights, on the feature maps of a frozen extractor.

    At every place of every map the channels are scaled to unit length; the squared distance of
    the two vectors, in [0, 4], is averaged over places and summed over maps: Zhang et al. 2018,
    Eq. 1 with w = 1. It is not LPIPS, whose weights are fitted to people's judgements; it needs
    no download on `EfficientNetLite0`.

    Args:
        extractor: With `maps(images)`, as FIDInception, DINOv2 and EfficientNetLite0 have.

    Raises:
        TypeError: If it has no maps.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        if not hasattr(extractor, 'maps'):
            raise TypeError(f'FeatureDistance.extractor must have feature maps; {type(extractor).__name__} has none.')
        self.extractor = extractor

    @property
    def key(self) -> str:
        """What its values are called: 'distance_effnet_lite0'."""
        return f'distance_{self.extractor.key}'

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the distance (B,) of images (B, 3, H, W) in [-1, 1]; gradients reach both."""
        pairs = zip(self._unit_maps(reconstruction), self._unit_maps(target), strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]).sum(dim=0)

    def card(self) -> dict[str, Any]:
        """Name the distance and the network."""
        return {'distance': 'unit-length features, squared, summed over maps', 'extractor': self.extractor.card()}

    def _unit_maps(self, images: Tensor) -> list[Tensor]:
        # float32 also under autocast: differences of unit vectors are small
        maps = [each.float() for each in self.extractor.maps(127.5 * (images + 1))]
        return [each / (each.square().sum(dim=1, keepdim=True) + _EPSILON).sqrt() for each in maps]
