"""Penalties: weighted terms of the loss on the latents alone.

A penalty maps the encoder's posterior of a step to a scalar that already has its weight.
"""

from typing import Any

from torch import Tensor

from eqzoo.registry import LOSSES


@LOSSES.register_module()
class KLDivergence:
    """KL divergence of the posterior from N(0, 1), summed over the latent and averaged over the batch.

    As released, it is always of the untransformed images: beside a reconstruction loss that is summed over pixels,
    it weighs up to 16 times more in a step at scale 0.25.

    Args:
        weight: 1e-6 in LDM and EQ-VAE, beside a reconstruction loss summed over pixels.
    """

    def __init__(self, weight: float = 1e-6) -> None:
        self.weight = weight

    def __call__(self, posterior: Any) -> Tensor:
        """Return the weighted divergence, a scalar, from the distribution's `kl()` (B,), in nats."""
        return self.weight * posterior.kl().mean()
