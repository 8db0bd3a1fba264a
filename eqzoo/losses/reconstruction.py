"""Pixel losses, and the reconstruction loss with a learned log-variance."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from eqzoo.registry import LOSSES


@LOSSES.register_module()
class L1:
    """Absolute difference, as in LDM and EQ-VAE."""

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return |reconstruction - target|, of their shape (B, C, H, W)."""
        return (reconstruction - target).abs()


@LOSSES.register_module()
class L2:
    """Squared difference."""

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return (reconstruction - target)², of their shape (B, C, H, W)."""
        return (reconstruction - target).square()


@LOSSES.register_module()
class ReconstructionLoss(nn.Module):
    """Negative log-likelihood of the images under the reconstruction, as in LDM.

    Per pixel: (pixel + w · perceptual) / exp(s) + s, with s the log-variance.

    Args:
        pixel: Element-wise loss: (reconstruction, target) → (B, C, H, W).
        perceptual: Loss per image: (reconstruction, target) → (B,), added to every pixel.
        perceptual_weight: w; 1 in LDM.
        reduction: 'sum' over pixels and channels, averaged over the batch, as released: small
            scales weigh less, and KL relatively more. 'mean' over everything: divide the
            weights of KL and adversarial loss by about C·H·W with it.
        log_variance: s at the start.
        learn_log_variance: Whether s is trained. False as released: LDM declares it a
            parameter and leaves it out of the optimizer.

    Raises:
        ValueError: If `reduction` is neither 'sum' nor 'mean'.
    """

    def __init__(
        self,
        pixel: Callable[[Tensor, Tensor], Tensor],
        perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        perceptual_weight: float = 1.0,
        reduction: Literal['sum', 'mean'] = 'sum',
        log_variance: float = 0.0,
        learn_log_variance: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in ('sum', 'mean'):
            raise ValueError(f"ReconstructionLoss.reduction must be 'sum' or 'mean', got {reduction!r}.")
        self.pixel = pixel
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.reduction = reduction
        self.log_variance = nn.Parameter(torch.tensor(float(log_variance)), requires_grad=learn_log_variance)

    def forward(self, reconstruction: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss (scalar) and its parts for the log, for images (B, C, H, W) in [-1, 1]."""
        error = self.pixel(reconstruction, target)
        parts = {'pixel': error.detach().mean()}
        if self.perceptual is not None:
            perceptual = self.perceptual(reconstruction, target)
            parts['perceptual'] = perceptual.detach().mean()
            error = error + self.perceptual_weight * perceptual[:, None, None, None]
        likelihood = error / self.log_variance.exp() + self.log_variance
        if self.reduction == 'mean':
            return likelihood.mean(), parts
        return likelihood.sum() / len(target), parts
