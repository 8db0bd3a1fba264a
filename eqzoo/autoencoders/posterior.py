"""What an encoder without a distribution returns in a posterior's place."""

from torch import Tensor


class Deterministic:
    """A posterior that is one point: the features of a VQ or a tiny autoencoder.

    It reads like diffusers' `DiagonalGaussianDistribution`, but for `std`, which is None:
    there is nothing to draw, and no KL divergence.

    Args:
        mean: The latents (B, C, h, w), in raw units.
    """

    std = None

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean
