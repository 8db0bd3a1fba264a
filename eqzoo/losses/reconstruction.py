"""Reconstruction loss: pixel losses, a perceptual loss and a log-variance."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from eqzoo.losses.apart import with_gradients
from eqzoo.registry import LOSSES
from eqzoo.registry.ranges import NonNegativeFloat, PositiveInt


@LOSSES.register_module()
class L1:
    """Absolute difference of pixels, as in LDM and EQ-VAE."""

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return |reconstruction - target| (B, C, H, W)."""
        return (reconstruction - target).abs()


@LOSSES.register_module()
class L2:
    """Squared difference of pixels."""

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return (reconstruction - target)² (B, C, H, W)."""
        return (reconstruction - target).square()


@LOSSES.register_module()
class ReconstructionLoss(nn.Module):
    """Negative log-likelihood of the images given their reconstruction, as in LDM.

    Per pixel and channel: (pixel + w · perceptual) / exp(s) + s, where s is the log-variance.

    Args:
        pixel: Element-wise loss: (reconstruction, target) → (B, C, H, W).
        perceptual: Loss per image: (reconstruction, target) → (B,), added to every pixel.
        perceptual_weight: w; 1 in LDM.
        reduction: 'sum', as in LDM's and EQ-VAE's releases: over pixels and channels, averaged over the batch. Smaller
            images then weigh less, and the KL divergence relatively more. 'mean': over everything; divide the
            weights of KL and adversarial loss by about C·H·W with it.
        log_variance: Initial s.
        learn_log_variance: Whether s is trained. Not in LDM's release, which declares it a parameter but
            leaves it out of the optimizer.
        micro_batch_size: Images whose perceptual loss is computed at once, with its gradient: less memory, with an
            adaptive weight less time, and gradients that differ by rounding (docs/training.md). None: the whole
            batch, kept for the backward pass.

    Raises:
        ValueError: If `reduction` is neither 'sum' nor 'mean'.
    """

    def __init__(
        self,
        pixel: Callable[[Tensor, Tensor], Tensor],
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        perceptual_weight: NonNegativeFloat = 1.0,
        reduction: Literal['sum', 'mean'] = 'sum',
        log_variance: float = 0.0,
        learn_log_variance: bool = False,
        micro_batch_size: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.pixel = pixel
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.reduction = reduction
        self.micro_batch_size = micro_batch_size
        self.log_variance = nn.Parameter(torch.tensor(float(log_variance)), requires_grad=learn_log_variance)

    def forward(self, reconstruction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, a scalar, and its parts for the log, for images (B, C, H, W) in [-1, 1]."""
        error = self.pixel(reconstruction, target)
        parts = {'pixel': error.detach().mean()}
        if self.perceptual is not None:
            perceptual = self._perceptual(reconstruction, target)
            parts['perceptual'] = perceptual.detach().mean()
            error = error + self.perceptual_weight * perceptual[:, None, None, None]
        likelihood = error / self.log_variance.exp() + self.log_variance
        if self.reduction == 'mean':
            return likelihood.mean(), parts
        return likelihood.sum() / len(target), parts

    def _perceptual(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        if self.micro_batch_size is None:
            return self.perceptual(reconstruction, target)
        return with_gradients(
            lambda images, part: self.perceptual(images, target[part]), reconstruction, self.micro_batch_size
        )
