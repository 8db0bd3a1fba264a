"""Penalties: weighted terms of the loss on the latents of a step.

A penalty is called as `penalty(step, draw)` with a `LatentStep` and returns scalars by name that already have their
weights; it may put further values in `step.log`. Two methods are optional: `sample(generator, grid)`, whose result is
`draw`, the same for all samples and processes (None without it); and `prepare(autoencoder)`, called once before
training, which checks that the penalty fits the autoencoder and creates the penalty's weights. `FeatureAlignment` is in
`eqzoo.regularizers.alignment`.
"""

from typing import Annotated, Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from eqzoo.dct import dct
from eqzoo.gradients import gradient_ratio
from eqzoo.registry import REGULARIZERS, EquivarianceTransform, Grid
from eqzoo.registry.ranges import NonNegativeFloat, PositiveFloat, Range
from eqzoo.regularizers.step import LatentStep

_EPSILON = 1e-8


@REGULARIZERS.register_module()
class KLDivergence:
    """KL divergence of the posterior from N(0, 1), summed over the latent and averaged over the batch.

    As released, it is always of the untransformed images: beside a reconstruction loss that is summed over pixels,
    it weighs up to 16 times more in a step at scale 0.25.

    Args:
        weight: 1e-6 in LDM and EQ-VAE, beside a reconstruction loss summed over pixels.
    """

    def __init__(self, weight: NonNegativeFloat = 1e-6) -> None:
        self.weight = weight

    def prepare(self, autoencoder: Any) -> None:
        """Check that there is a posterior.

        Raises:
            ValueError: If there is none.
        """
        _check_posterior(self, autoencoder)

    def __call__(self, step: LatentStep, draw: None = None) -> dict[str, Tensor]:
        """Return 'kl', from the distribution's `kl()` (B,), in nats."""
        return {'kl': self.weight * step.posterior.kl().mean()}


@REGULARIZERS.register_module()
class VarianceExpansion:
    """Keep the posterior wide: a penalty on small variances and on large latents (arXiv 2603.21085).

    Takes the place of the KL divergence. 'variance' is Σ 1 / (σ² + δ), 'magnitude' Σ exp(abs(z) - 1), both summed over
    the latent and averaged over the batch. The reconstruction loss pulls σ down and this pushes it up, so that each
    latent value keeps as much variance as its decoding tolerates: with a loss that grows by T for each unit of σ², the
    balance is at σ² = √(weight / T) - δ, and at 0 if weight / δ² < T.

    Differs from the paper, as far as it could be read: δ is ours, small beside the variance of 0.06 that the paper
    reaches, and terms are sums. Magnitudes are of latents in generator units, since the term guards latents of about
    unit variance: SDXL-VAE's have a standard deviation of 7.7, and exp(abs(z) - 1) of their tails would be beyond all
    bounds.

    Args:
        weight: Of the variances; 0.1 in the paper.
        delta: δ, above 0; it bounds the penalty of a value at 1 / δ. Variances far below δ hardly grow.
        magnitude_weight: Of the magnitudes; 1e-6 in the paper.

    Raises:
        ValueError: If `delta` is not above 0.
    """

    def __init__(
        self, weight: NonNegativeFloat = 0.1, *, delta: PositiveFloat = 1e-4, magnitude_weight: NonNegativeFloat = 1e-6
    ) -> None:
        self.weight = weight
        self.delta = delta
        self.magnitude_weight = magnitude_weight

    def prepare(self, autoencoder: Any) -> None:
        """Check that there is a posterior.

        Raises:
            ValueError: If there is none.
        """
        _check_posterior(self, autoencoder)

    def __call__(self, step: LatentStep, draw: None = None) -> dict[str, Tensor]:
        """Return 'variance' and 'magnitude'."""
        # float32 also under autocast: exp of bfloat16 is off by percents
        variance = step.posterior.std.float().square()
        latents = step.autoencoder.normalization.normalize(step.latents.float())
        step.log['posterior_std'] = step.posterior.std.detach().mean()
        return {
            'variance': self.weight * (1 / (variance + self.delta)).flatten(1).sum(1).mean(),
            'magnitude': self.magnitude_weight * (latents.abs() - 1).exp().flatten(1).sum(1).mean(),
        }


@REGULARIZERS.register_module()
class ExplicitEquivariance:
    """Penalise the distance of τ∘E(x) and E(τ∘x) (EQ-VAE, Eq. 4 and App. A.1).

    The paper shows that this lowers the equivariance error by collapsing the latents. The penalty is the squared L2
    distance of the posterior means, summed over the latent and averaged over the batch.

    Args:
        transform: τ, drawn once per step.
        weight: λ, 0.1 in the paper.
        stop_gradient: Whether E(τ∘x) is a constant, the paper's second variant.
    """

    def __init__(
        self, transform: EquivarianceTransform, weight: NonNegativeFloat = 0.1, *, stop_gradient: bool = False
    ) -> None:
        self.transform = transform
        self.weight = weight
        self.stop_gradient = stop_gradient

    def sample(self, generator: Generator, grid: Grid) -> Any:
        """Draw the transform's parameters for a latent `grid` (h, w)."""
        return self.transform.sample(generator, grid)

    def __call__(self, step: LatentStep, draw: Any) -> dict[str, Tensor]:
        """Return 'explicit'; encodes a second time."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.stop_gradient):
            wanted = step.autoencoder.encode(self.transform(step.images, draw)).mean
        distance = (self.transform(step.posterior.mean, draw) - wanted).square().sum(dim=(1, 2, 3)).mean()
        return {'explicit': self.weight * distance}


@REGULARIZERS.register_module()
class SpectrumMatching:
    """Give latents the spectrum of the images, flattened (encoder spectrum matching, ESM, arXiv 2603.14645).

    Both are reduced to radial spectra on the latent grid: the images are shrunk to it, the mean over space is removed,
    the squares of the DCT are averaged over channels and over each of 16 rings of equal width, and the image's ring i
    is multiplied by (i + 1)^δ. With s = log(1 + power) divided by its sum over rings, the penalty is the divergence
    Σ s_x log(s_x / s_z) in nats, averaged over the batch. Takes the place of the KL divergence.

    Latents are drawn from the posterior, as in the release, so that the penalty also acts on its variance.

    Differs from the released code: images are shrunk by averaging the pixels of each cell. The release samples
    bicubically, which aliases: latents of 32 x 32 cells without any blur, others after a Gaussian of 1.2 pixels.

    Args:
        weight: 0.01 in the release, beside a reconstruction loss that is a mean; for the sum over pixels in this
            project, the equivalent weight is about C·H·W times larger.
        delta: δ: 0 asks for the image's own spectrum, 1 (the release) for a flatter one.
        bins: Rings.

    Raises:
        ValueError: If there are fewer than 2 rings.
    """

    def __init__(
        self, weight: NonNegativeFloat = 0.01, *, delta: float = 1.0, bins: Annotated[int, Range(at_least=2)] = 16
    ) -> None:
        self.weight = weight
        self.delta = delta
        self.bins = bins

    def __call__(self, step: LatentStep, draw: None = None) -> dict[str, Tensor]:
        """Return 'spectrum'."""
        with torch.autocast(step.images.device.type, enabled=False):
            latents = step.latents.float()
            images = F.adaptive_avg_pool2d(step.images.float(), latents.shape[-2:])
            ring = torch.arange(1, self.bins + 1, device=latents.device)
            wanted, found = (
                _distribution(power) for power in (self.ring_power(images) * ring**self.delta, self.ring_power(latents))
            )
            divergence = (wanted * ((wanted + _EPSILON).log() - (found + _EPSILON).log())).sum(dim=1)
        return {'spectrum': self.weight * divergence.mean()}

    def ring_power(self, x: Tensor) -> Tensor:
        """Return the mean power (B, bins) of `x` (B, C, H, W) in rings of the DCT's plane, corners included."""
        power = dct(x - x.mean(dim=(2, 3), keepdim=True)).square().mean(dim=1)
        rows, columns = (torch.arange(side, device=x.device, dtype=x.dtype) for side in x.shape[2:])
        distance = torch.hypot(rows[:, None], columns).flatten()
        bins = (distance / distance.max().clamp_min(1) * self.bins).long().clamp_max(self.bins - 1)
        members = F.one_hot(bins, self.bins).to(x.dtype)
        return power.flatten(1) @ members / members.sum(dim=0).clamp_min(1)


def _distribution(power: Tensor) -> Tensor:
    """Return log(1 + power) (B, bins), divided by its sum over bins."""
    logarithm = power.log1p()
    return logarithm / (logarithm.sum(dim=1, keepdim=True) + _EPSILON)


@REGULARIZERS.register_module()
class LocalCorrelation:
    """Make neighbouring cells similar, up to a limit: local correlation regularisation (LCR, SSVAE, arXiv 2512.05394).

    The penalty is max(0, threshold - ρ). Each channel of the posterior mean is first normalised to mean 0 and standard
    deviation 1 over the batch and all cells; otherwise different means of the channels would count as correlation. ρ is
    the Pearson correlation over channels of two cells, averaged over all pairs of cells in windows of 2 x 2, over
    windows and over the batch.

    Args:
        weight: Factor on the penalty; 0.002 in the release (0.02 of a tenth).
        threshold: The correlation that is enough; 0.75 in the release.
        window: Cells a side; they must divide the latent grid.
        adaptive: Whether the weight also balances the gradients of reconstruction loss and penalty at the encoder's
            last layer, as released.

    Raises:
        ValueError: If `threshold` is no correlation, or `window` is below 2.
    """

    def __init__(
        self,
        weight: NonNegativeFloat = 0.002,
        *,
        threshold: Annotated[float, Range(above=-1, at_most=1)] = 0.75,
        window: Annotated[int, Range(at_least=2)] = 2,
        adaptive: bool = True,
    ) -> None:
        self.weight = weight
        self.threshold = threshold
        self.window = window
        self.adaptive = adaptive

    def prepare(self, autoencoder: Any) -> None:
        """Check that a correlation over channels exists.

        Raises:
            ValueError: If the latents have fewer than 3 channels.
        """
        if autoencoder.latent_channels < 3:
            raise ValueError(
                f'LocalCorrelation: latents of {autoencoder.latent_channels} channels; expected at least 3, since '
                'cells are correlated over channels.'
            )

    def check_grid(self, grid: Grid) -> None:
        """Check that a latent `grid` (h, w) is whole windows.

        Raises:
            ValueError: If it is not.
        """
        if grid[0] % self.window or grid[1] % self.window:
            raise ValueError(
                f'LocalCorrelation.window: {self.window} does not divide latents of {grid[0]} x {grid[1]} cells; use '
                'another window, or other images.'
            )

    def __call__(self, step: LatentStep, draw: None = None) -> dict[str, Tensor]:
        """Return 'local_correlation'; logs the correlation."""
        latents = step.posterior.mean.float()
        if min(latents.shape[2:]) < self.window:  # a smaller branch of the objective: no window, and nothing to ask for
            return {'local_correlation': latents.new_zeros(())}
        correlation = self.correlation(latents)
        step.log['correlation'] = correlation.detach()
        penalty = F.relu(self.threshold - correlation)
        return {'local_correlation': weighted(penalty, self.weight, step, adaptive=self.adaptive)}

    def correlation(self, latents: Tensor) -> Tensor:
        """Return ρ, a scalar, of `latents` (B, C, h, w); rows and columns beyond the last whole window are left out."""
        side = self.window
        # an objective may encode images of fewer cells than those that `check_grid` has seen
        height, width = (each // side * side for each in latents.shape[2:])
        latents = latents[:, :, :height, :width]
        batch, channels = latents.shape[:2]
        # constants, as in the release: no gradient asks for other means and deviations of the channels
        mean, std = (each.detach() for each in (latents.mean((0, 2, 3)), latents.std((0, 2, 3))))
        latents = (latents - mean[:, None, None]) / (std[:, None, None] + 1e-6)
        cells = latents.reshape(batch, channels, height // side, side, width // side, side)
        cells = cells.permute(0, 2, 4, 3, 5, 1).reshape(-1, side * side, channels)
        unit = F.normalize(cells - cells.mean(dim=2, keepdim=True), dim=2, eps=_EPSILON)
        first, second = torch.triu_indices(side * side, side * side, offset=1, device=latents.device)
        return (unit[:, first] * unit[:, second]).sum(dim=2).mean()


def weighted(penalty: Tensor, weight: float, step: LatentStep, *, adaptive: bool, maximum: float = 1e8) -> Tensor:
    """Return `penalty` times `weight`, and if `adaptive` times the ratio of gradients at the encoder's last layer.

    Args:
        penalty: A scalar.
        weight: Factor.
        step: Has the reconstruction loss that the penalty is balanced against.
        adaptive: Whether to balance.
        maximum: Largest ratio; 1e8 in the releases of VA-VAE and SSVAE.
    """
    # A penalty of zero is not asked for, which would wait for the device: its factor is bounded, and the product zero.
    if adaptive and penalty.requires_grad:
        weight = weight * gradient_ratio(step.reconstruction_loss, penalty, step.autoencoder.latent_layer, maximum)
    return weight * penalty


def _check_posterior(penalty: Any, autoencoder: Any) -> None:
    if not autoencoder.has_posterior:
        raise ValueError(
            f'{type(penalty).__name__}: {type(autoencoder).__name__} has no posterior; leave it out of model.penalties.'
        )
