"""Tiny autoencoders: the TAESD family and TAEF2."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eqzoo.autoencoders.base import Autoencoder, Deterministic
from eqzoo.autoencoders.networks import PaddingMode, set_padding
from eqzoo.checkpoints import load_autoencoder_weights
from eqzoo.normalization import LatentNormalization, PerChannel
from eqzoo.registry import AUTOENCODERS
from eqzoo.registry.ranges import Filled, NonNegativeInt, PositiveInt

_POOL_WIDENING = 4
_POOL_GROUPS = 4


@AUTOENCODERS.register_module()
class TinyAutoencoder(Autoencoder):
    """A small convolutional autoencoder without a posterior (TAESD, madebyollin/taesd).

    diffusers' `EncoderTiny` and `DecoderTiny`, with the state dict of its `AutoencoderTiny`
    plus `normalization.*`. Defaults are TAESD's. Its latents are already in generator units, so
    the normalisation is the identity unless it is measured again. The decoder first squashes
    latents to (-3, 3).

    Args:
        latent_channels: C: 4 in TAESD and TAESDXL, 16 in TAESD3 and TAEF1, 32 in TAEF2.
        num_blocks: Residual blocks of each resolution level of the encoder, finest first; the
            decoder mirrors them. Every level except the first halves the resolution.
        width: Channels of every layer.
        pooled: Whether blocks of the coarsest level have a branch that normalises over the
            whole image, as in TAEF2.
        padding_mode: Padding of the convolutions: 'zeros', 'reflect', or 'reflect_conv2d', which is the same
            here, since tiny autoencoders pad nowhere else.
        scale: See `LatentNormalization`, also for the next three.
        shift: Subtracted from a latent before scaling.
        mean: Mean of the latents, instead of `shift`.
        std: Standard deviation of the latents, instead of `scale`.
        weights: A weights file of eqzoo or diffusers, or the pair (encoder, decoder) of
            taesd's own files.

    Raises:
        ValueError: If an argument is out of range, or the weights do not fit.
        FileNotFoundError: If a file of `weights` is missing.

    Example:
        >>> TinyAutoencoder(width=8).grid(64, 32)
        (8, 4)
    """

    def __init__(
        self,
        latent_channels: PositiveInt = 4,
        num_blocks: Filled[NonNegativeInt] = (1, 3, 3, 3),
        *,
        width: PositiveInt = 64,
        pooled: bool = False,
        padding_mode: PaddingMode = 'zeros',
        scale: PerChannel | None = None,
        shift: PerChannel | None = None,
        mean: PerChannel | None = None,
        std: PerChannel | None = None,
        weights: str | Path | Sequence[str | Path] | None = None,
    ) -> None:
        # here, since diffusers takes seconds to import, and checking a config does not need it
        from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny

        super().__init__(latent_channels, 2 ** (len(num_blocks) - 1))
        self.padding_mode = padding_mode
        widths = (width,) * len(num_blocks)
        self.encoder = EncoderTiny(3, latent_channels, tuple(num_blocks), widths, 'relu')
        self.decoder = DecoderTiny(latent_channels, 3, tuple(reversed(num_blocks)), widths, 2, 'relu', 'nearest')
        if pooled:
            count = num_blocks[-1]
            # the encoder ends in these blocks and a convolution, the decoder begins with one and an activation
            _pool(self.encoder.layers, range(len(self.encoder.layers) - 1 - count, len(self.encoder.layers) - 1), width)
            _pool(self.decoder.layers, range(2, 2 + count), width)
        set_padding(self, padding_mode)
        self.normalization = LatentNormalization(latent_channels, scale=scale, shift=shift, mean=mean, std=std)
        if weights is not None:
            load_autoencoder_weights(self, weights)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution, for adaptive loss weights."""
        return self.decoder.layers[-1].weight

    def blocks(self) -> list[nn.Module]:
        """Return the encoder and all layers of the decoder except the last."""
        return [self.encoder, *list(self.decoder.layers)[:-1]]

    def encode(self, images: Tensor) -> Deterministic:
        """Return the latents of `images` (B, 3, H, W), float in [-1, 1]; its `mean` is (B, C, h, w).

        Raises:
            ValueError: If the images have another shape, or are not floating point.
        """
        self._check_images(images)
        return Deterministic(self.encoder(images).to(self.last_layer.dtype))

    def decode_latents(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of latents `z` (B, C, h, w)."""
        return self.decoder(z).to(self.last_layer.dtype)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Shrink the arguments for `--smoke`: same levels and latents, width 8, no weights."""
        return {**arguments, 'width': 8, 'weights': None}


class PooledBlock(nn.Module):
    """A block of TAESD with TAEF2's branch before it: 1x1 convolutions around a GroupNorm over the whole image.

    Args:
        block: diffusers' block; its layers keep their names.
        width: The channels of the block.
    """

    def __init__(self, block: nn.Module, width: int) -> None:
        super().__init__()
        self.conv, self.skip, self.fuse = block.conv, block.skip, block.fuse
        wide = _POOL_WIDENING * width
        self.pool = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False),
            nn.GroupNorm(_POOL_GROUPS, wide),
            nn.ReLU(),
            nn.Conv2d(wide, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform `x` (B, D, h, w)."""
        x = x + self.pool(x)
        return self.fuse(self.conv(x) + self.skip(x))


def _pool(layers: nn.Sequential, indices: range, width: int) -> None:
    for index in indices:
        layers[index] = PooledBlock(layers[index], width)
