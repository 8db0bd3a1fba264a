"""The normalisation of latents, and the moments it is measured by."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eqzoo.distributed import all_reduce
from eqzoo.precision import to_double

PerChannel = float | Sequence[float]


class LatentNormalization(nn.Module):
    """Turn an autoencoder's raw latents into what a generator sees, and back.

    `normalize(z) = (z - shift) * scale`, per channel. `shift` and `scale` are buffers of
    shape (C,), so they travel in the checkpoint. State them as diffusers does (`scale`,
    `shift`), or by the statistics of the latents (`mean`, `std`; `scale = 1 / std`). With
    neither, raw latents are passed on.

    Args:
        channels: C.
        scale: Factor, one for all channels or one for each. Default 1.
        shift: Subtracted first, one for all channels or one for each. Default 0.
        mean: Mean of the raw latents, instead of `shift`.
        std: Standard deviation of the raw latents, instead of `scale`.

    Raises:
        ValueError: If both ways are used at once, if the number of values is not C, or if a
            scale or standard deviation is not positive and finite.

    Example:
        >>> LatentNormalization(2, mean=(1.0, 2.0), std=0.5).normalize(torch.full((1, 2, 1, 1), 3.0)).flatten()
        tensor([4., 2.])
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        channels: int,
        *,
        scale: PerChannel | None = None,
        shift: PerChannel | None = None,
        mean: PerChannel | None = None,
        std: PerChannel | None = None,
    ) -> None:
        super().__init__()
        if (scale is not None or shift is not None) and (mean is not None or std is not None):
            raise ValueError(
                f'LatentNormalization: got scale={scale}, shift={shift} and mean={mean}, std={std}; '
                'these are two ways to say the same; give scale and shift, or mean and std.'
            )
        offset_name, offset = ('mean', mean) if mean is not None else ('shift', shift)
        offsets = _spread(offset_name, 0.0 if offset is None else offset, channels)
        if std is not None:
            scales = [1 / value for value in _positive('std', _spread('std', std, channels))]
        else:
            scales = _positive('scale', _spread('scale', 1.0 if scale is None else scale, channels))
        self.register_buffer('shift', torch.tensor(offsets))
        self.register_buffer('scale', torch.tensor(scales))

    @property
    def mean(self) -> Tensor:
        """The mean (C,) of the raw latents that this normalisation takes to 0."""
        return self.shift

    @property
    def std(self) -> Tensor:
        """The standard deviation (C,) of the raw latents that this normalisation takes to 1."""
        return 1 / self.scale

    def normalize(self, z: Tensor) -> Tensor:
        """Take raw latents `z` (B, C, h, w) to generator units."""
        return (z - self.shift[:, None, None]) * self.scale[:, None, None]

    def denormalize(self, z: Tensor) -> Tensor:
        """Take latents `z` (B, C, h, w) in generator units to raw ones; the inverse of `normalize`."""
        return z / self.scale[:, None, None] + self.shift[:, None, None]


def _spread(name: str, value: PerChannel, channels: int) -> list[float]:
    values = list(value) if isinstance(value, Sequence) else [value] * channels
    if len(values) != channels or not all(math.isfinite(each) for each in values):
        raise ValueError(
            f'LatentNormalization.{name}: got {value}; accepted is one finite number, or {channels}, one a channel.'
        )
    return [float(each) for each in values]


def _positive(name: str, values: list[float]) -> list[float]:
    if min(values) <= 0:
        raise ValueError(f'LatentNormalization.{name} must be positive, got {values}.')
    return values


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
