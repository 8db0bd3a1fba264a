"""Mean and spread of latents over a data set, from which their normalisation follows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from eqzoo.evaluators.base import to_double

NormalizationKind = Literal['scale', 'shift_scale', 'per_channel']


@dataclass(frozen=True)
class LatentMoments:
    """Moments of raw latents, drawn from their posteriors as generators are trained on them.

    Args:
        mean: Of each channel, (C,), float64.
        variance: Of each channel, (C,), float64: that of the posterior means plus the
            average variance of the posteriors.
        num_images: How many images they are of.
    """

    mean: Tensor
    variance: Tensor
    num_images: int

    @property
    def std(self) -> Tensor:
        """The standard deviation of each channel, (C,)."""
        return self.variance.sqrt()

    @property
    def overall_mean(self) -> float:
        """The mean over all channels: diffusers' `shift_factor` (SD3)."""
        return self.mean.mean().item()

    @property
    def overall_std(self) -> float:
        """The standard deviation over all channels about `overall_mean`: 1 / `scaling_factor` (LDM, Sec. G)."""
        return (self.variance.mean() + self.mean.var(correction=0)).sqrt().item()

    def normalization(self, kind: NormalizationKind) -> tuple[Tensor, Tensor]:
        """Return the shift (C,) and the scale (C,) that bring latents to unit spread.

        Args:
            kind: 'scale', one factor and no shift, as in SD-VAE and SDXL-VAE; 'shift_scale', one
                of each, as in SD3-VAE; 'per_channel', both for each channel, as in VA-VAE.

        Raises:
            ValueError: If `kind` is unknown, or the latents do not vary.
        """
        if kind not in ('scale', 'shift_scale', 'per_channel'):
            raise ValueError(f'normalization must be scale, shift_scale or per_channel, got {kind!r}.')
        if not self.variance.min() > 0:
            raise ValueError('the latents of a channel do not vary: no scale brings them to unit spread.')
        if kind == 'per_channel':
            return self.mean.float(), (1 / self.std).float()
        shift = self.overall_mean if kind == 'shift_scale' else 0.0
        return torch.full_like(self.mean, shift).float(), torch.full_like(self.mean, 1 / self.overall_std).float()


@torch.no_grad()
def measure_moments(autoencoder: Any, batches: Iterable[Tensor]) -> LatentMoments:
    """Measure the latents of `batches` of images (B, 3, H, W), float in [-1, 1], over all processes.

    Raises:
        ValueError: If there is no image.
    """
    device, channels = autoencoder.last_layer.device, autoencoder.latent_channels
    value, square, counts = torch.zeros(channels).double(), torch.zeros(channels).double(), torch.zeros(2).double()
    for images in batches:
        posterior = autoencoder.encode(images.to(device))
        means = to_double(posterior.mean).cpu()
        spread = 0.0 if posterior.std is None else to_double(posterior.std).cpu().square()
        value += means.sum(dim=(0, 2, 3))
        square += (means.square() + spread).sum(dim=(0, 2, 3))
        counts += torch.tensor([len(images), means[:, 0].numel()])
    for sums in (value, square, counts):
        all_reduce(sums)
    num_images, cells = counts.tolist()
    if not num_images:
        raise ValueError('latent statistics: there is no image to measure them on.')
    mean = value / cells
    return LatentMoments(mean, square / cells - mean.square(), int(num_images))
