"""Penalties on latents."""

from typing import Any

from torch import Tensor

from eqzoo.registry import LOSSES


@LOSSES.register_module()
class KLDivergence:
    """KL(posterior ‖ N(0, 1)), summed over the latent and averaged over the batch.

    It is always of the untransformed images, so with a reconstruction loss that is summed
    over pixels it weighs up to 16 times more in a step at scale 0.25, as released.

    Args:
        weight: 1e-6 in LDM and EQ-VAE, beside a reconstruction loss summed over pixels.
    """

    def __init__(self, weight: float = 1e-6) -> None:
        self.weight = weight

    def __call__(self, posterior: Any) -> Tensor:
        """Return the weighted divergence, a scalar; the distribution's own `kl` is (B,)."""
        return self.weight * posterior.kl().mean()
