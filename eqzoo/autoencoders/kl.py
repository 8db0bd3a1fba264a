"""The KL autoencoder of latent diffusion: SD-VAE, SDXL-VAE, SD3-VAE, and f16 models of the same design."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from eqzoo.autoencoders.base import Autoencoder
from eqzoo.autoencoders.networks import PaddingMode, build_networks, set_padding
from eqzoo.checkpoints import load_autoencoder_weights
from eqzoo.normalization import LatentNormalization, PerChannel
from eqzoo.registry import AUTOENCODERS
from eqzoo.registry.ranges import Filled, NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

_F8_CHANNELS = (128, 256, 512, 512)


@AUTOENCODERS.register_module()
class KLAutoencoder(Autoencoder):
    """Encode images to a Gaussian over latents, and decode latents to images.

    diffusers' `Encoder` and `Decoder`, with the state dict of its `AutoencoderKL` plus
    `normalization.*`. Defaults are those of SD-VAE (LDM's kl-f8), except for the scale.
    Under autocast, results have the dtype of the weights, since a KL divergence summed over
    pixels overflows half precision.

    Args:
        latent_channels: C, the channels of a latent.
        block_out_channels: Width of each resolution level, finest first; every level except
            the last halves the resolution.
        layers_per_block: Residual blocks per level of the encoder; the decoder has one more.
        attention_levels: Levels with attention after each residual block, in encoder and
            decoder. The middle block always has attention.
        norm_num_groups: Groups of each GroupNorm; divides every width.
        quant_conv: Whether 1x1 convolutions stand between the networks and the latent.
        feature_channels: Channels of the decoder's input, half of those of the encoder's output: LDM's
            `z_channels`, where it differs from `embed_dim`. Needs `quant_conv`. Default: C.
        padding_mode: Padding of the convolutions: 'zeros', as in all published LDM autoencoders; 'reflect',
            the strided ones included; or 'reflect_conv2d', without those, as fine-tuners of SDXL-VAE reflect.
            Files of eqzoo state theirs.
        scale: See `LatentNormalization`, also for the next three.
        shift: Subtracted from a latent before scaling.
        mean: Mean of the latents, instead of `shift`.
        std: Standard deviation of the latents, instead of `scale`.
        weights: A weights file of eqzoo, diffusers or LDM, `.safetensors` or torch. A file
            written by eqzoo has its own normalisation, which replaces that of the arguments.

    Raises:
        ValueError: If an argument is out of range, or the weights do not fit.
        FileNotFoundError: If there is no file `weights`.

    Example:
        >>> autoencoder = KLAutoencoder(4, (8, 8, 8), norm_num_groups=4, scale=0.18215)
        >>> autoencoder.grid(64, 32)
        (16, 8)
    """

    has_posterior = True
    encoder_parts = ('encoder', 'quant_conv')

    def __init__(
        self,
        latent_channels: PositiveInt = 4,
        block_out_channels: Filled[PositiveInt] = _F8_CHANNELS,
        *,
        layers_per_block: PositiveInt = 2,
        attention_levels: Sequence[NonNegativeInt] = (),
        norm_num_groups: PositiveInt = 32,
        quant_conv: bool = True,
        feature_channels: PositiveInt | None = None,
        padding_mode: PaddingMode = 'zeros',
        scale: PerChannel | None = None,
        shift: PerChannel | None = None,
        mean: PerChannel | None = None,
        std: PerChannel | None = None,
        weights: str | Path | Sequence[str | Path] | None = None,
    ) -> None:
        super().__init__(latent_channels, 2 ** (len(block_out_channels) - 1))
        features = latent_channels if feature_channels is None else feature_channels
        if features != latent_channels and not quant_conv:
            raise ValueError(
                f'KLAutoencoder.feature_channels: got {features} for latents of {latent_channels} channels without '
                'quant_conv; expected the same number, or quant_conv=True.'
            )
        self.padding_mode = padding_mode
        self.encoder, self.decoder = build_networks(
            features,
            block_out_channels,
            double_latent=True,
            layers_per_block=layers_per_block,
            attention_levels=attention_levels,
            norm_num_groups=norm_num_groups,
        )
        set_padding(self, padding_mode)
        self.quant_conv = nn.Conv2d(2 * features, 2 * latent_channels, 1) if quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(latent_channels, features, 1) if quant_conv else nn.Identity()
        self.normalization = LatentNormalization(latent_channels, scale=scale, shift=shift, mean=mean, std=std)
        if weights is not None:
            load_autoencoder_weights(self, weights)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the decoder's last convolution, for adaptive loss weights."""
        return self.decoder.conv_out.weight

    def blocks(self) -> list[nn.Module]:
        """Return the encoder and the blocks of the decoder."""
        return [self.encoder, self.decoder.mid_block, *self.decoder.up_blocks]

    def encode(self, images: Tensor) -> 'DiagonalGaussianDistribution':
        """Return the posterior of `images` (B, 3, H, W), float in [-1, 1]; its mean is (B, C, h, w), in raw units.

        Raises:
            ValueError: If the images have another shape, or are not floating point.
        """
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        self._check_images(images)
        moments = self.quant_conv(self.encoder(images))
        return DiagonalGaussianDistribution(moments.to(self.last_layer.dtype))

    def decode_latents(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of latents `z` (B, C, h, w)."""
        return self.decoder(self.post_quant_conv(z)).to(self.last_layer.dtype)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Shrink the arguments for `--smoke`: same levels, latents and attention, width 8, no weights."""
        levels = len(arguments.get('block_out_channels', _F8_CHANNELS))
        tiny = dict(block_out_channels=(8,) * levels, layers_per_block=1, norm_num_groups=4, weights=None)
        return {**arguments, **tiny}
