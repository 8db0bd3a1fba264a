"""Discriminators beside PatchGAN: on features of a frozen vision network, and a ConvNeXt."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from eqzoo.registry import MODELS
from eqzoo.registry.ranges import Filled, PositiveInt
from eqzoo.vision.base import FeatureExtractor

_SLOPE = 0.2  # of the leaky ReLUs, as in StyleGAN-T


@MODELS.register_module()
class FeatureDiscriminator(nn.Module):
    """Small heads on the feature maps of a frozen vision network (StyleGAN-T, arXiv 2301.09515; 2111.01007).

    Each map has a head of its own: a 1x1 convolution to `width` channels, a residual convolution, and a 1x1 convolution
    to one logit a place, all with spectral norm. The network recognises the content of an image; only the heads are
    trained and stored.

    Differs from StyleGAN-T: maps of any network and size are normalised over the channels and positions of each image.
    This replaces batch norms in the heads, so that nothing depends on the batch. Heads are not conditioned.

    Args:
        extractor: A network with `maps(images)`: DINOv2, EfficientNetLite0 (whose weights are installed with eqzoo) or
            FIDInception.
        width: Channels in the heads.
        kernel_size: Cells a side of the residual convolution, odd; 9 tokens in StyleGAN-T.

    Raises:
        ValueError: If the extractor has no maps, or the kernel is even.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        width: PositiveInt = 64,
        *,
        kernel_size: PositiveInt = 3,
    ) -> None:
        super().__init__()
        if not hasattr(extractor, 'maps'):
            raise ValueError(f'FeatureDiscriminator.extractor must have feature maps, got {type(extractor).__name__}.')
        if kernel_size % 2 == 0:
            raise ValueError(f'FeatureDiscriminator.kernel_size must be odd, got {kernel_size}.')
        self.extractor = extractor  # no nn.Module: neither trained nor stored
        with torch.no_grad():
            channels = [each.shape[1] for each in extractor.maps(torch.zeros(1, 3, 64, 64))]
        self.heads = nn.ModuleList(_Head(each, width, kernel_size) for each in channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the logits (B, 1, h, w) of each map for images (B, 3, H, W) in [-1, 1]; positive means real."""
        maps = self.extractor.maps(127.5 * (images + 1))
        return [head(features) for head, features in zip(self.heads, maps, strict=True)]

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with the network that is small and installed with eqzoo."""
        return {**arguments, 'extractor': dict(type='EfficientNetLite0')}


class _Head(nn.Module):
    def __init__(self, channels: int, width: int, kernel_size: int) -> None:
        super().__init__()
        self.project = spectral_norm(nn.Conv2d(channels, width, 1))
        self.residual = spectral_norm(nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2))
        self.out = spectral_norm(nn.Conv2d(width, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (B, 1, h, w) of `features` (B, C, h, w)."""
        x = F.leaky_relu(self.project(F.group_norm(features, 1)), _SLOPE)
        # divided by the root of 2, so that the sum of two parts has the size of one
        x = (x + F.leaky_relu(self.residual(x), _SLOPE)) / 2**0.5
        return self.out(x)


@MODELS.register_module()
class ConvNeXtDiscriminator(nn.Module):
    """ConvNeXt blocks (arXiv 2201.03545) that end in a logit for each place.

    timm's blocks: a depthwise 7x7 convolution, a layer norm, two 1x1 convolutions. Layer norms are of an image alone:
    unlike with PatchGAN, logits depend neither on the rest of the batch nor on the number of processes.

    Args:
        depths: Blocks of each level; every level except the first halves the resolution.
        widths: Channels of each level.
        patch_size: Pixels a side that the first convolution makes a place of.
        in_channels: Channels of the images.

    Raises:
        ValueError: If `depths` and `widths` differ in length.
    """

    def __init__(
        self,
        depths: Filled[PositiveInt] = (2, 2, 4),
        widths: Filled[PositiveInt] = (64, 128, 256),
        *,
        patch_size: PositiveInt = 4,
        in_channels: PositiveInt = 3,
    ) -> None:
        # imported here: timm takes seconds to import, and a config is checked without it
        from timm.layers import LayerNorm2d
        from timm.models.convnext import ConvNeXtBlock

        super().__init__()
        if len(depths) != len(widths):
            raise ValueError(
                f'ConvNeXtDiscriminator.depths and widths must be of one length, got {tuple(depths)} and '
                f'{tuple(widths)}.'
            )
        self.min_size = patch_size * 2 ** (len(depths) - 1)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], patch_size, patch_size), LayerNorm2d(widths[0])]
        for level, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            if level:
                layers += [LayerNorm2d(widths[level - 1]), nn.Conv2d(widths[level - 1], width, 2, 2)]
            # without layer scale, whose small start is for networks of dozens of blocks
            layers += [ConvNeXtBlock(width, ls_init_value=None) for _ in range(depth)]
        self.network = nn.Sequential(*layers, LayerNorm2d(widths[-1]), nn.Conv2d(widths[-1], 1, 1))
        self.network.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 1, h, w) for images (B, C, H, W) in [-1, 1]; positive means real.

        Raises:
            ValueError: If the images are too small for one logit.
        """
        if min(images.shape[-2:]) < self.min_size:
            raise ValueError(
                f'ConvNeXtDiscriminator: got images of {tuple(images.shape[-2:])}; expected at least {self.min_size} '
                'pixels a side, also at the smallest scale of the transform; set fewer depths and widths.'
            )
        return self.network(images)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for the small images of a smoke run."""
        return {**arguments, 'depths': (1, 1), 'widths': (8, 16)}


def _initialize(module: nn.Module) -> None:
    """Draw weights as ConvNeXt does: normal with deviation 0.02, cut off at two; biases are zero."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
