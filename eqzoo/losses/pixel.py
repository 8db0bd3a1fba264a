"""Pixel losses, element by element."""

from torch import Tensor

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
