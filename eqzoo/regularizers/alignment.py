"""Alignment of latents with the features of a frozen vision network: the VF loss of VA-VAE (arXiv 2501.01423)."""

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.images import to_uint8
from eqzoo.registry import REGULARIZERS, Grid
from eqzoo.registry.ranges import NonNegativeFloat, Range
from eqzoo.regularizers.penalties import weighted
from eqzoo.regularizers.step import LatentStep
from eqzoo.vision.base import VisionEncoder


@REGULARIZERS.register_module()
class FeatureAlignment(nn.Module):
    """Make projected latents similar to a vision network's features, in each cell and between cells (VF loss).

    The latent z is projected by a learned 1x1 convolution to the features' width. With f the features at the same
    cell: 'cosine' is mean max(0, 1 - m₁ - cos(z, f)) over cells (Eq. 3), 'distances' is mean max(0, abs(cos(zᵢ, zⱼ) -
    cos(fᵢ, fⱼ)) - m₂) over pairs of cells (Eq. 4).

    The encoder is in neither parameters nor state dict.

    Args:
        encoder: A frozen network with one token per latent cell, such as `EfficientNetLite0Tokens`, which comes with
            the project, or `DINOv2Tokens`.
        weight: Of both terms together; 0.1 in VA-VAE.
        cosine_margin: m₁, 0.5 in VA-VAE.
        distance_margin: m₂, 0.25 in VA-VAE.
        adaptive: Whether the weight also balances the gradients of reconstruction loss and alignment at the encoder's
            last layer (Eq. 5).

    Raises:
        ValueError: If a margin is outside [0, 1].
    """

    def __init__(
        self,
        encoder: VisionEncoder,
        weight: NonNegativeFloat = 0.1,
        *,
        cosine_margin: Annotated[float, Range(at_least=0, at_most=1)] = 0.5,
        distance_margin: Annotated[float, Range(at_least=0, at_most=1)] = 0.25,
        adaptive: bool = True,
    ) -> None:
        super().__init__()
        self.weight, self.adaptive = weight, adaptive
        self.cosine_margin, self.distance_margin = cosine_margin, distance_margin
        self._outside = (encoder,)  # a tuple hides it from nn.Module, and thus from checkpoints and optimizers
        self.projection: nn.Conv2d | None = None
        self._factor = 1

    @property
    def encoder(self) -> VisionEncoder:
        """The frozen network."""
        return self._outside[0]

    def prepare(self, autoencoder: Any) -> None:
        """Make the projection from latent channels to features."""
        self.projection = nn.Conv2d(autoencoder.latent_channels, self.encoder.num_features, 1, bias=False)
        self._factor = autoencoder.downsample_factor

    def check_grid(self, grid: Grid) -> None:
        """Check that the encoder has one token per cell of a latent `grid` (h, w).

        Raises:
            ValueError: If it has another number.
        """
        images = [self._factor * side for side in grid]
        tokens = self.encoder(torch.zeros(1, 3, *images, dtype=torch.uint8)).shape[1]
        if tokens != grid[0] * grid[1]:
            raise ValueError(
                f'FeatureAlignment.encoder: {type(self.encoder).__name__} gives {tokens} tokens for images of '
                f'{images[0]} x {images[1]}, and latents have {grid[0]} x {grid[1]} cells; change its stride, size or '
                'grid.'
            )

    def forward(self, step: LatentStep, draw: None = None) -> dict[str, Tensor]:
        """Return 'alignment'; logs 'cosine' and 'distances', without weight."""
        features = self._on_grid(self.encoder(to_uint8(step.images)), step.latents.shape[2:])
        projected = self.projection(step.latents).flatten(2).transpose(1, 2)
        with torch.autocast(step.images.device.type, enabled=False):
            ours, theirs = F.normalize(projected.float(), dim=2), F.normalize(features.float(), dim=2)
            cosine = F.relu(1 - self.cosine_margin - (ours * theirs).sum(dim=2)).mean()
            between = (ours @ ours.transpose(1, 2) - theirs @ theirs.transpose(1, 2)).abs()
            distances = F.relu(between - self.distance_margin).mean()
        step.log |= {'cosine': cosine.detach(), 'distances': distances.detach()}
        return {'alignment': weighted(cosine + distances, self.weight, step, adaptive=self.adaptive)}

    @staticmethod
    def _on_grid(features: Tensor, grid: Grid) -> Tensor:
        """Return `features` (B, T, D) averaged to a `grid` (h, w): an objective may have shrunk the images."""
        batch, tokens, width = features.shape
        if tokens == grid[0] * grid[1]:
            return features
        side = math.isqrt(tokens)
        maps = features.transpose(1, 2).reshape(batch, width, side, side)
        return F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2)
