"""From a batch of images to the rows of a latent store."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqzoo.data.latent_index import STORAGE_TYPES, Field

PRECISIONS = ('fp32', 'bf16')
_MOST_CODES = 2**16


class RowEncoder:
    """Encode images to what a store keeps of each: raw moments, or codes; and features.

    Args:
        autoencoder: With `encode`, and `bottleneck` where it `has_codebook`; in evaluation mode.
        dtype: How moments are stored: 'float32', 'float16' or 'bfloat16'.
        precision: 'fp32', or 'bf16' for autocast of the networks.
        flip: Whether to encode the mirrored images too.
        encoder: A vision encoder, images uint8 (B, 3, H, W) → features (B, T, D), stored as bfloat16.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, autoencoder: Any, *, dtype: str, precision: str, flip: bool, encoder: Any = None) -> None:
        if dtype not in STORAGE_TYPES:
            raise ValueError(f'latent store: dtype must be one of {", ".join(STORAGE_TYPES)}, got {dtype!r}.')
        if precision not in PRECISIONS:
            raise ValueError(f'latent store: precision must be fp32 or bf16, got {precision!r}.')
        self.num_codes = autoencoder.num_codes if autoencoder.has_codebook else None
        if self.num_codes is not None and self.num_codes > _MOST_CODES:
            raise ValueError(
                f'latent store: a codebook of {self.num_codes:,}; codes are stored in 16 bits, up to {_MOST_CODES:,}.'
            )
        self.autoencoder, self.encoder = autoencoder, encoder
        self.dtype, self.precision, self.flip = getattr(torch, dtype), precision, flip
        self.device = autoencoder.last_layer.device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Return the fields of `images` (B, 3, H, W) uint8, with `flip` those mirrored too, on the CPU."""
        images = images.to(self.device, non_blocking=True)
        return [self._fields(each) for each in ((images, images.flip(3)) if self.flip else (images,))]

    @torch.no_grad()
    def fields(self, image: Tensor) -> dict[str, Field]:
        """Return what a row has for images such as `image` (3, H, W) uint8; only the vision encoder is run on it."""
        grid = self.autoencoder.grid(*image.shape[1:])
        if self.num_codes is not None:
            fields = {'codes': Field('uint16', grid)}
        else:
            moments = ('mean', 'std') if self.autoencoder.has_posterior else ('mean',)
            dtype = str(self.dtype).removeprefix('torch.')
            fields = {name: Field(dtype, (self.autoencoder.latent_channels, *grid)) for name in moments}
        if self.encoder is not None:
            fields['features'] = Field('bfloat16', tuple(self.encoder(image[None].to(self.device)).shape[1:]))
        return fields

    @torch.no_grad()
    def _fields(self, images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == 'bf16'):
            posterior = self.autoencoder.encode(images.float().div_(127.5).sub_(1))
            if self.num_codes is not None:
                indices = self.autoencoder.bottleneck(posterior.mean).indices
                fields = {'codes': indices.cpu().to(torch.uint16)}
            else:
                moments = {'mean': posterior.mean, 'std': posterior.std}
                fields = {name: each.to(self.dtype).cpu() for name, each in moments.items() if each is not None}
            if self.encoder is not None:
                fields['features'] = self.encoder(images).to(torch.bfloat16).cpu()
        return fields


def check_finite(fields: Mapping[str, Tensor], indices: Tensor) -> None:
    """Refuse rows that are not finite.

    Raises:
        ValueError: With the first image's number.
    """
    for name, values in fields.items():
        if values.is_floating_point():
            finite = torch.isfinite(values.reshape(len(values), -1)).all(1)
            if not finite.all():
                raise ValueError(
                    f'latent store: {name} of image {int(indices[~finite][0])} is not finite; float16 ends at 65,504: '
                    "use dtype='bfloat16' or 'float32'; or the autoencoder's weights are broken."
                )


def sums_of(fields: Mapping[str, Tensor]) -> dict[str, list[float]] | None:
    """Return the sums from which mean and spread of drawn latents follow: per channel, over rows and cells."""
    if 'mean' not in fields:
        return None
    mean = fields['mean'].double().numpy()
    spread = fields['std'].double().numpy() if 'std' in fields else np.zeros(1)
    squares = np.square(mean).sum((0, 2, 3)) + np.square(spread).sum((0, 2, 3) if spread.ndim == 4 else None)
    return dict(value=mean.sum((0, 2, 3)).tolist(), square=squares.tolist(), cells=[float(mean[:, 0].size)])


def statistics_of(sums: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return mean and standard deviation (C,) of drawn latents: the posteriors' own variance is in it."""
    mean = np.array(sums['value']) / sums['cells'][0]
    variance = np.array(sums['square']) / sums['cells'][0] - np.square(mean)
    return dict(mean=mean.tolist(), std=np.sqrt(np.maximum(variance, 0)).tolist())


def add_sums(first: Mapping[str, list[float]] | None, second: Mapping[str, list[float]] | None) -> Any:
    """Return two sums' sum; None counts as nothing."""
    if first is None or second is None:
        return first or second
    return {name: [a + b for a, b in zip(first[name], second[name], strict=True)] for name in first}
