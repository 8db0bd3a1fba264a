"""Objectives: which pair of target and reconstruction a training step of an autoencoder compares.

An objective has `sample(generator, grid)`, which draws what a step does, and `__call__(autoencoder, images, draw,
noise)`, which encodes, draws latents, decodes, and returns a `ReconstructionPair`. Penalties on latents alone are in
`eqzoo.regularizers.penalties`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from eqzoo.registry import LOSSES, EquivarianceTransform, Grid
from eqzoo.transforms import IsotropicScale


@dataclass
class ReconstructionPair:
    """A step's reconstruction and its target, with what else the losses need.

    Args:
        target: Images (B, C, H, W) in [-1, 1], transformed in an equivariance step.
        reconstruction: The decoder's output, of the same shape.
        posterior: The encoder's distribution of the latents of the untransformed images.
        penalties: Further weighted terms of the objective and the bottleneck, scalars by name.
    """

    target: Tensor
    reconstruction: Tensor
    posterior: Any
    penalties: dict[str, Tensor] = field(default_factory=dict)


Noise = Callable[[Tensor], Tensor]  # standard normal noise of the shape of its argument


class Draw(NamedTuple):
    """The branch that a step takes, and the parameters of the branch's transform."""

    branch: str
    params: Any = None


@LOSSES.register_module()
class Plain:
    """Reconstruct the images unchanged: the baseline (EQ-VAE, Eq. 1)."""

    def sample(self, generator: Generator, grid: Grid) -> Draw:
        """Return the only branch; nothing is drawn."""
        return Draw('plain')

    def __call__(self, autoencoder: Any, images: Tensor, draw: Draw, noise: Noise) -> ReconstructionPair:
        """Pair `images` (B, C, H, W) with D(z), where z is drawn from their posterior."""
        posterior = autoencoder.encode(images)
        passed = autoencoder.bottleneck(_draw_latents(posterior, noise))
        return ReconstructionPair(images, autoencoder.decode_latents(passed.latents), posterior, passed.penalties)


@LOSSES.register_module()
class ImplicitEquivariance:
    """Compare decoded transformed latents with transformed images (EQ-VAE, Eq. 5 and 7).

    A step takes one of three branches. With probability `p_equivariance` it compares D(τ∘z) with τ∘x. Otherwise, with
    probability `p_low_resolution`, it scales the images down and reconstructs them, which is in the released
    recipe and not in the paper. Otherwise it reconstructs the images. Defaults give 50 %, 12.5 % and 37.5 %.

    Differs from the released code: one draw serves autoencoder and discriminator. The release draws twice
    and runs the autoencoder twice.

    Args:
        transform: τ, drawn once per step for the whole batch.
        p_equivariance: Probability of the equivariance branch. The paper's p_α is
            `1 - p_equivariance`; the release calls this very number `p_prior`.
        p_low_resolution: Probability of the low-resolution branch, given that the
            equivariance branch was not taken.
        low_resolution: The transform of that branch; `IsotropicScale()`, as released.
        act_on: With a codebook, what τ transforms: the 'features' before quantisation (EQ-VAE, Sec. 3), so that
            codebook and commitment terms are of the transformed features; or the 'codes' after it. Without a
            codebook there is no difference.

    Raises:
        ValueError: If a probability is outside [0, 1], or `act_on` is unknown.
    """

    def __init__(
        self,
        transform: EquivarianceTransform,
        p_equivariance: float = 0.5,
        *,
        p_low_resolution: float = 0.25,
        low_resolution: EquivarianceTransform | None = None,
        act_on: Literal['features', 'codes'] = 'features',
    ) -> None:
        if act_on not in ('features', 'codes'):
            raise ValueError(f"ImplicitEquivariance.act_on must be 'features' or 'codes', got {act_on!r}.")
        for name, value in (('p_equivariance', p_equivariance), ('p_low_resolution', p_low_resolution)):
            if not 0 <= value <= 1:
                raise ValueError(f'ImplicitEquivariance.{name} must be a probability in [0, 1], got {value}.')
        self.transform = transform
        self.p_equivariance = p_equivariance
        self.p_low_resolution = p_low_resolution
        self.low_resolution = low_resolution or IsotropicScale()
        self.act_on = act_on

    def sample(self, generator: Generator, grid: Grid) -> Draw:
        """Draw the branch and its transform's parameters for a latent `grid` (h, w)."""
        # both numbers are always drawn, so that what follows in the stream does not depend on the branch
        first, second = torch.rand(2, generator=generator).tolist()
        if first < self.p_equivariance:
            return Draw('equivariance', self.transform.sample(generator, grid))
        if second < self.p_low_resolution:
            return Draw('low_resolution', self.low_resolution.sample(generator, grid))
        return Draw('plain')

    def __call__(self, autoencoder: Any, images: Tensor, draw: Draw, noise: Noise) -> ReconstructionPair:
        """Pair τ∘x with D(τ∘z) for `images` x (B, C, H, W), or the images of the other branches.

        As released, τ acts on the drawn latents, noise included, and the posterior is that of the
        untransformed images.
        """
        if draw.branch == 'low_resolution':
            images = self.low_resolution(images, draw.params)
        posterior = autoencoder.encode(images)
        is_equivariance = draw.branch == 'equivariance'
        latents = _draw_latents(posterior, noise)
        if is_equivariance and self.act_on == 'features':
            latents = self.transform(latents, draw.params)
        passed = autoencoder.bottleneck(latents)
        latents = passed.latents
        if is_equivariance and self.act_on == 'codes':
            latents = self.transform(latents, draw.params)
        target = self.transform(images, draw.params) if is_equivariance else images
        return ReconstructionPair(target, autoencoder.decode_latents(latents), posterior, passed.penalties)


@LOSSES.register_module()
class ExplicitEquivariance:
    """Reconstruct the images, and penalise the distance of τ∘E(x) and E(τ∘x) (EQ-VAE, Eq. 4 and App. A.1).

    The paper shows that this lowers the equivariance error by collapsing the latents. The penalty is the squared L2
    distance of the posterior means, summed over the latent and averaged over the batch.

    Args:
        transform: τ, drawn once per step.
        weight: λ, 0.1 in the paper.
        stop_gradient: Whether E(τ∘x) is a constant, the paper's second variant.
    """

    def __init__(self, transform: EquivarianceTransform, weight: float = 0.1, *, stop_gradient: bool = False) -> None:
        self.transform = transform
        self.weight = weight
        self.stop_gradient = stop_gradient

    def sample(self, generator: Generator, grid: Grid) -> Draw:
        """Draw the transform's parameters for a latent `grid` (h, w)."""
        return Draw('explicit', self.transform.sample(generator, grid))

    def __call__(self, autoencoder: Any, images: Tensor, draw: Draw, noise: Noise) -> ReconstructionPair:
        """Pair `images` (B, C, H, W) with D(z), and penalise the distance of τ∘E(x) and E(τ∘x)."""
        posterior = autoencoder.encode(images)
        passed = autoencoder.bottleneck(_draw_latents(posterior, noise))
        reconstruction = autoencoder.decode_latents(passed.latents)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            wanted = autoencoder.encode(self.transform(images, draw.params)).mean
        distance = (self.transform(posterior.mean, draw.params) - wanted).square().sum(dim=(1, 2, 3)).mean()
        return ReconstructionPair(
            images, reconstruction, posterior, {**passed.penalties, 'explicit': self.weight * distance}
        )


def _draw_latents(posterior: Any, noise: Noise) -> Tensor:
    """Draw latents from a posterior; without a deviation, as before a codebook, return its mean."""
    if posterior.std is None:
        return posterior.mean
    return posterior.mean + posterior.std * noise(posterior.mean)
