"""The one place where the scale and the shift of latents live."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

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
