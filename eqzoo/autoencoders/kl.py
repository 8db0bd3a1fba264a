"""The KL autoencoder of latent diffusion: SD-VAE, SDXL-VAE, SD3-VAE and their f16 kin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from eqzoo.autoencoders.normalization import LatentNormalization, PerChannel
from eqzoo.autoencoders.weights import load_weights
from eqzoo.registry import AUTOENCODERS, Requirement
from eqzoo.zoo.released import fetch_command

# diffusers takes seconds to import: only building a network pays for it, not checking a config.
if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import Decoder, DiagonalGaussianDistribution, Encoder

_F8_CHANNELS = (128, 256, 512, 512)


@AUTOENCODERS.register_module()
class KLAutoencoder(nn.Module):
    """Encode images to a Gaussian over latents, and decode latents to images.

    diffusers' `Encoder` and `Decoder`, with the state dict of its `AutoencoderKL` plus
    `normalization.*`. Defaults are those of SD-VAE (LDM's kl-f8), but for the scale.
    `encode` and `decode` work in the network's raw latent units, `latents` in the normalised
    ones that a generator sees. Under autocast, results come back in the dtype of the weights,
    since a KL summed over pixels outgrows half precision.

    Args:
        latent_channels: C, the channels of a latent.
        block_out_channels: Width of each resolution level, finest first; every level but the
            last halves the resolution.
        layers_per_block: Residual blocks a level in the encoder; the decoder has one more.
        attention_levels: Levels with attention after each residual block, in encoder and
            decoder. The middle block always has attention.
        norm_num_groups: Groups of each GroupNorm; divides every width.
        quant_conv: Whether 1x1 convolutions stand between the networks and the latent.
        scale: See `LatentNormalization`, as for the three that follow.
        shift: Subtracted from a latent before scaling.
        mean: Mean of the latents, instead of `shift`.
        std: Standard deviation of the latents, instead of `scale`.
        weights: A weights file of eqzoo, diffusers or LDM, `.safetensors` or torch. One that
            eqzoo wrote brings its own normalisation, which then replaces the arguments'.

    Raises:
        ValueError: If an argument is out of range, or the weights do not fit.
        FileNotFoundError: If there is no file `weights`.

    Example:
        >>> autoencoder = KLAutoencoder(4, (8, 8, 8), norm_num_groups=4, scale=0.18215)
        >>> autoencoder.grid(64, 32)
        (16, 8)
    """

    encoder: 'Encoder'
    decoder: 'Decoder'

    def __init__(
        self,
        latent_channels: int = 4,
        block_out_channels: Sequence[int] = _F8_CHANNELS,
        *,
        layers_per_block: int = 2,
        attention_levels: Sequence[int] = (),
        norm_num_groups: int = 32,
        quant_conv: bool = True,
        scale: PerChannel | None = None,
        shift: PerChannel | None = None,
        mean: PerChannel | None = None,
        std: PerChannel | None = None,
        weights: str | Path | None = None,
    ) -> None:
        from diffusers.models.autoencoders.vae import Decoder, Encoder

        super().__init__()
        levels = range(len(block_out_channels))
        if not set(attention_levels) <= set(levels):
            raise ValueError(
                f'KLAutoencoder.attention_levels: got {tuple(attention_levels)}; accepted are indices of '
                f'block_out_channels, 0 to {len(levels) - 1}, finest first.'
            )
        self.latent_channels = latent_channels
        self.downsample_factor = 2 ** (len(levels) - 1)
        attention = ['Attn' if level in attention_levels else '' for level in levels]
        shape = dict(
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
        )
        down = tuple(f'{each}DownEncoderBlock2D' for each in attention)
        up = tuple(f'{each}UpDecoderBlock2D' for each in reversed(attention))
        self.encoder = Encoder(3, latent_channels, down_block_types=down, double_z=True, **shape)
        self.decoder = Decoder(latent_channels, 3, up_block_types=up, **shape)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1) if quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1) if quant_conv else nn.Identity()
        self.normalization = LatentNormalization(latent_channels, scale=scale, shift=shift, mean=mean, std=std)
        if weights is not None:
            load_weights(self, weights)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution, for adaptive loss weights."""
        return self.decoder.conv_out.weight

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the latent's (h, w) for images of `height` x `width` pixels.

        Raises:
            ValueError: If the sides are not positive multiples of `downsample_factor`.
        """
        factor = self.downsample_factor
        if min(height, width) < factor or height % factor or width % factor:
            raise ValueError(
                f'KLAutoencoder: got images of {height} x {width} pixels; accepted are positive multiples of '
                f'{factor} on both sides; crop or resize the images.'
            )
        return height // factor, width // factor

    def encode(self, images: Tensor) -> 'DiagonalGaussianDistribution':
        """Return the posterior of `images` (B, 3, H, W), float in [-1, 1]; its mean is (B, C, h, w), in raw units.

        Raises:
            ValueError: If the images have another shape, or are not floating point.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f'KLAutoencoder.encode: got images of shape {tuple(images.shape)} and {images.dtype}; accepted is '
                '(B, 3, H, W), floating point in [-1, 1]; convert uint8 images with images / 127.5 - 1.'
            )
        self.grid(images.shape[2], images.shape[3])
        moments = self.quant_conv(self.encoder(images))
        return DiagonalGaussianDistribution(moments.to(self.last_layer.dtype))

    def decode(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, H, W), about [-1, 1] and unclamped, of latents `z` (B, C, h, w) in raw units.

        Raises:
            ValueError: If the latents have another number of axes or channels.
        """
        if z.ndim != 4 or z.shape[1] != self.latent_channels:
            raise ValueError(
                f'KLAutoencoder.decode: got latents of shape {tuple(z.shape)}; accepted is '
                f'(B, {self.latent_channels}, h, w); use the autoencoder that the latents come from.'
            )
        return self.decoder(self.post_quant_conv(z)).to(self.last_layer.dtype)

    def latents(self, images: Tensor) -> Tensor:
        """Return the normalised posterior mean (B, C, h, w) of `images` (B, 3, H, W): what a generator sees."""
        return self.normalization.normalize(self.encode(images).mean)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the weights file, if a config names one that is not there."""
        weights = arguments.get('weights')
        if weights is None or Path(weights).is_file():
            return []
        return [Requirement(f'weights of {cls.__name__}', str(weights), fetch_command(weights) or 'weights=PATH')]

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Shrink a config's arguments: same levels, latents and attention, hardly any width, no weights."""
        levels = len(arguments.get('block_out_channels', _F8_CHANNELS))
        tiny = dict(block_out_channels=(8,) * levels, layers_per_block=1, norm_num_groups=4, weights=None)
        return {**arguments, **tiny}
