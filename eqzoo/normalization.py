"""Latent normalisation, and the moments of latents from which it is measured."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from eqzoo.distributed import all_reduce
from eqzoo.precision import to_double

PerChannel = float | Sequence[float]
NormalizationKind = Literal['scale', 'shift_scale', 'per_channel']


class LatentNormalization(nn.Module):
    """Convert an autoencoder's raw latents to the units of a generator, and back.

    `normalize(z) = (z - shift) * scale`, per channel. `shift` and `scale` are buffers of
    shape (C,), so they travel in the checkpoint; in half precision they stay float32. State
    them as diffusers does (`scale`, `shift`), or by the statistics of the latents (`mean`, `std`;
    `scale = 1 / std`). Without either, latents stay raw.

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
                'expected scale and shift, or mean and std.'
            )
        offset_name, offset = ('mean', mean) if mean is not None else ('shift', shift)
        offsets = _spread(offset_name, 0.0 if offset is None else offset, channels)
        if std is not None:
            scales = [1 / value for value in _positive('std', _spread('std', std, channels))]
        else:
            scales = _positive('scale', _spread('scale', 1.0 if scale is None else scale, channels))
        self.register_buffer('shift', torch.tensor(offsets))
        self.register_buffer('scale', torch.tensor(scales))
        self._dtype = self.scale.dtype  # that the buffers would have, and results get

    def _apply(self, fn: Any, recurse: bool = True) -> 'LatentNormalization':
        """Move or convert the buffers, but not to half precision: bfloat16 would make 0.18262 of 0.18215."""
        self._dtype = fn(torch.empty(0, dtype=self._dtype, device=self.scale.device)).dtype
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            if self._buffers[name].dtype in (torch.float16, torch.bfloat16):
                self._buffers[name] = buffer.to(self._buffers[name].device)
        return self

    @property
    def mean(self) -> Tensor:
        """The mean (C,) of the raw latents that this normalisation maps to 0."""
        return self.shift

    @property
    def std(self) -> Tensor:
        """The standard deviation (C,) of the raw latents that this normalisation maps to 1."""
        return 1 / self.scale

    @property
    def changes_latents(self) -> bool:
        """Whether latents in generator units differ from raw ones."""
        return bool((self.shift != 0).any() or (self.scale != 1).any())

    def normalize(self, z: Tensor) -> Tensor:
        """Convert raw latents `z` (B, C, h, w) to generator units."""
        return ((z - self.shift[:, None, None]) * self.scale[:, None, None]).to(self._result_dtype(z))

    def denormalize(self, z: Tensor) -> Tensor:
        """Convert latents `z` (B, C, h, w) in generator units to raw ones; the inverse of `normalize`."""
        return (z / self.scale[:, None, None] + self.shift[:, None, None]).to(self._result_dtype(z))

    def _result_dtype(self, z: Tensor) -> torch.dtype:
        return torch.promote_types(z.dtype, self._dtype)


def normalization_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """Return the name, 'shift' or 'scale', in which two normalisations differ by more than rounding, or None.

    Args:
        first: `shift` and `scale`, each (C,), as tensors or lists.
        second: Likewise.

    Example:
        >>> normalization_difference(dict(shift=[0.0], scale=[0.18215]), dict(shift=[0.0], scale=[0.13025]))
        'scale'
    """
    for name in ('shift', 'scale'):
        ours, theirs = (torch.as_tensor(each[name]).detach().double().cpu() for each in (first, second))
        # files round: float32 numbers come back from JSON, and 1 / std from std
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6):
            return name
    return None


@dataclass(frozen=True)
class LatentMoments:
    """Moments of raw latents that are drawn from their posteriors, as in the training of a generator.

    Args:
        mean: Of each channel, (C,), float64.
        variance: Of each channel, (C,), float64: that of the posterior means plus the
            average variance of the posteriors.
        num_images: The number of images that were encoded.
    """

    mean: Tensor
    variance: Tensor
    num_images: int

    @property
    def std(self) -> Tensor:
        """The standard deviation of each channel, (C,)."""
        return self.variance.clamp(min=0).sqrt()

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

    def normalized(self, shift: Sequence[float], scale: Sequence[float]) -> 'LatentMoments':
        """Return the moments in generator units, of `(z - shift) * scale`."""
        shift, scale = (torch.tensor(each, dtype=torch.float64) for each in (shift, scale))
        return LatentMoments((self.mean - shift) * scale, self.variance * scale.square(), self.num_images)


@dataclass(frozen=True)
class LatentSums:
    """Sums over latents, in float64, from which their moments follow; they add up over batches, shards and processes.

    Plain lists, which JSON has.

    Args:
        value: Of the posterior means, for each channel.
        square: Of the squares of means and standard deviations, for each channel.
        cells: The number of latent cells, in a list.
    """

    value: list[float]
    square: list[float]
    cells: list[float]

    @classmethod
    def of(cls, mean: Tensor, std: Tensor | None) -> 'LatentSums':
        """Sum over posterior means (B, C, h, w) and their standard deviations, None where nothing is drawn."""
        means = to_double(mean).cpu().numpy()
        square = np.square(means).sum((0, 2, 3))
        if std is not None:
            square = square + np.square(to_double(std).cpu().numpy()).sum((0, 2, 3))
        return cls(means.sum((0, 2, 3)).tolist(), square.tolist(), [float(means[:, 0].size)])

    def __add__(self, other: 'LatentSums') -> 'LatentSums':
        """Return the sums over both."""
        pairs = ((self.value, other.value), (self.square, other.square), (self.cells, other.cells))
        return LatentSums(*([a + b for a, b in zip(*pair, strict=True)] for pair in pairs))

    def moments(self, num_images: int) -> LatentMoments:
        """Return the moments of the latents of `num_images` images."""
        value, square = (torch.tensor(each, dtype=torch.float64) for each in (self.value, self.square))
        mean = value / self.cells[0]
        return LatentMoments(mean, square / self.cells[0] - mean.square(), num_images)


@torch.no_grad()
def measure_moments(autoencoder: Any, batches: Iterable[Tensor]) -> LatentMoments:
    """Measure the latents of `batches` of images (B, 3, H, W), float in [-1, 1], over all processes.

    Raises:
        ValueError: If there is no image.
    """
    device, channels, num_images = autoencoder.last_layer.device, autoencoder.latent_channels, 0
    sums = LatentSums([0.0] * channels, [0.0] * channels, [0.0])
    for images in batches:
        posterior = autoencoder.encode(images.to(device))
        sums += LatentSums.of(posterior.mean, posterior.std)
        num_images += len(images)
    joined = torch.tensor([*sums.value, *sums.square, *sums.cells, num_images], dtype=torch.float64)
    all_reduce(joined)
    value, square, cells, (num_images,) = (each.tolist() for each in joined.split([channels, channels, 1, 1]))
    if not num_images:
        raise ValueError('latent statistics: there is no image to measure them on.')
    return LatentSums(value, square, cells).moments(int(num_images))


def _spread(name: str, value: PerChannel, channels: int) -> list[float]:
    values = list(value) if isinstance(value, Sequence) else [value] * channels
    if len(values) != channels or not all(math.isfinite(each) for each in values):
        raise ValueError(
            f'LatentNormalization.{name}: got {value}; expected one finite number, or {channels}, one per channel.'
        )
    return [float(each) for each in values]


def _positive(name: str, values: list[float]) -> list[float]:
    if min(values) <= 0:
        raise ValueError(f'LatentNormalization.{name} must be positive, got {values}.')
    return values
