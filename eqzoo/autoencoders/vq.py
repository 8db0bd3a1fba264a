"""The VQ autoencoder of taming-transformers, VQ-GAN, with its quantizer or another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eqzoo.autoencoders.base import Autoencoder, Bottleneck, Deterministic
from eqzoo.autoencoders.networks import PaddingMode, build_networks, set_padding
from eqzoo.autoencoders.quantizers import Quantizer
from eqzoo.checkpoints import load_autoencoder_weights
from eqzoo.normalization import LatentNormalization, PerChannel
from eqzoo.registry import AUTOENCODERS
from eqzoo.registry.ranges import Filled, NonNegativeFloat, NonNegativeInt, PositiveInt, Range

_F16_CHANNELS = (128, 128, 256, 256, 512)
_BETA = 0.25


@AUTOENCODERS.register_module()
class VQAutoencoder(Autoencoder):
    """Encode images to features, replace each by its nearest code, and decode the codes.

    diffusers' `Encoder` and `Decoder` and taming's quantizer, with the state dict of
    diffusers' `VQModel` plus `normalization.*`. Defaults are taming's VQ-GAN f16 with 1,024
    codes. `encode` and `latents` give the features before quantisation, on which
    equivariance is measured and transforms act (EQ-VAE, Sec. 3); `decode` quantises first.

    Args:
        latent_channels: C, the length of a code.
        num_codes: K, the size of the codebook.
        block_out_channels: Width of each resolution level, finest first; every level except
            the last halves the resolution.
        feature_channels: Channels of encoder output and decoder input; 1x1 convolutions map between
            them and the codes. Default: C.
        layers_per_block: Residual blocks per level of the encoder; the decoder has one more.
        attention_levels: Levels with attention after each residual block.
        norm_num_groups: Groups of each GroupNorm; divides every width.
        beta: Weight of the codebook term ‖z_q − sg(z)‖² beside the commitment term
            ‖sg(z_q) − z‖², both means. taming's release swaps the two by mistake, and all
            its models were trained that way.
        beta_on: The term that `beta` weighs: 'codebook' as released, or 'commitment' as
            published (van den Oord et al. 2017, Eq. 3).
        codebook_weight: Weight of both terms in the training loss, or of another quantizer's loss.
        quantizer: `EMACodebook`, `NormalizedCodebook`, `FSQ` or `LFQ` in place of taming's quantizer, for the same
            `latent_channels` and `num_codes`; it has its own `beta`.
        padding_mode: Padding of the convolutions: 'zeros', 'reflect' or 'reflect_conv2d'; see `KLAutoencoder`.
        scale: See `LatentNormalization`, also for the next three; it is of the features, for
            generators that work on them.
        shift: Subtracted from a latent before scaling.
        mean: Mean of the latents, instead of `shift`.
        std: Standard deviation of the latents, instead of `scale`.
        weights: A weights file of eqzoo, diffusers or taming.

    Raises:
        ValueError: If an argument is out of range, the quantizer is for other codes, or the weights do not fit.
        FileNotFoundError: If there is no file `weights`.

    Example:
        >>> autoencoder = VQAutoencoder(4, 32, (8, 8), attention_levels=(), norm_num_groups=4)
        >>> autoencoder.tokens(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 4, 4])
    """

    has_codebook = True
    encoder_parts = ('encoder', 'quant_conv', 'quantize')

    def __init__(
        self,
        latent_channels: PositiveInt = 256,
        num_codes: Annotated[int, Range(at_least=2)] = 1024,
        block_out_channels: Filled[PositiveInt] = _F16_CHANNELS,
        *,
        feature_channels: PositiveInt | None = None,
        layers_per_block: PositiveInt = 2,
        attention_levels: Sequence[NonNegativeInt] = (4,),
        norm_num_groups: PositiveInt = 32,
        beta: NonNegativeFloat = _BETA,
        beta_on: Literal['codebook', 'commitment'] = 'codebook',
        codebook_weight: NonNegativeFloat = 1.0,
        quantizer: Quantizer | None = None,
        padding_mode: PaddingMode = 'zeros',
        scale: PerChannel | None = None,
        shift: PerChannel | None = None,
        mean: PerChannel | None = None,
        std: PerChannel | None = None,
        weights: str | Path | Sequence[str | Path] | None = None,
    ) -> None:
        if quantizer is not None:
            _check_quantizer(quantizer, latent_channels, num_codes, beta, beta_on)
        super().__init__(latent_channels, 2 ** (len(block_out_channels) - 1))
        features = latent_channels if feature_channels is None else feature_channels
        self.num_codes = num_codes
        self.codebook_weight = codebook_weight
        self.padding_mode = padding_mode
        self.encoder, self.decoder = build_networks(
            features,
            block_out_channels,
            double_latent=False,
            layers_per_block=layers_per_block,
            attention_levels=attention_levels,
            norm_num_groups=norm_num_groups,
        )
        set_padding(self, padding_mode)
        self.quant_conv = nn.Conv2d(features, latent_channels, 1)
        self.quantize = quantizer or _taming(num_codes, latent_channels, beta, beta_on)
        self.post_quant_conv = nn.Conv2d(latent_channels, features, 1)
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

    @property
    def codebook(self) -> Tensor | None:
        """The table of codes (K, C); None if the quantizer computes them."""
        return self.quantize.codebook if isinstance(self.quantize, Quantizer) else self.quantize.embedding.weight

    def replace_codes(self, places: Tensor, features: Tensor) -> None:
        """Replace the codes at `places` (M,) of the table by `features` (M, C)."""
        if isinstance(self.quantize, Quantizer):
            self.quantize.replace_codes(places, features)
        else:
            self.codebook[places] = features.to(self.codebook)

    def complete_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights `state` of a file with the averages of `EMACodebook`, if it has none."""
        if not isinstance(self.quantize, Quantizer):
            return state
        prefix = 'quantize.'
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        return state | {f'{prefix}{name}': value for name, value in self.quantize.complete_state(own).items()}

    def finish_step(self, *, is_skipped: bool) -> None:
        """Update an averaged codebook after the optimizer, unless the step was left out."""
        if isinstance(self.quantize, Quantizer):
            self.quantize.drop_step() if is_skipped else self.quantize.finish_step()

    def encode(self, images: Tensor) -> Deterministic:
        """Return the features of `images` (B, 3, H, W), float in [-1, 1]; its `mean` is (B, C, h, w).

        Raises:
            ValueError: If the images have another shape, or are not floating point.
        """
        self._check_images(images)
        return Deterministic(self.quant_conv(self.encoder(images)).to(self.last_layer.dtype))

    def bottleneck(self, z: Tensor) -> Bottleneck:
        """Quantise features `z` (B, C, h, w); gradients pass straight through.

        The penalty `codebook` is the weighted loss of the quantizer: taming's codebook and commitment terms.
        """
        dtype = self.last_layer.dtype
        precision = torch.promote_types(torch.promote_types(z.dtype, dtype), torch.float32)
        # autocast, or weights in half precision, would search the nearest code in half precision
        with torch.autocast(z.device.type, enabled=False):
            if dtype == precision:
                found = self.quantize(z.to(precision))
            else:
                weights = {name: weight.to(precision) for name, weight in self.quantize.named_parameters()}
                found = functional_call(self.quantize, weights, z.to(precision))
        latents, loss, (_, _, indices) = found
        return Bottleneck(latents.to(dtype), {'codebook': self.codebook_weight * loss}, indices)

    def decode_latents(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of codes `z` (B, C, h, w)."""
        return self.decoder(self.post_quant_conv(z)).to(self.last_layer.dtype)

    def tokens(self, images: Tensor) -> Tensor:
        """Return the indices (B, h, w), int64 in [0, K), of the codes of `images` (B, 3, H, W)."""
        return self.bottleneck(self.encode(images).mean).indices

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of code indices `tokens` (B, h, w).

        Raises:
            ValueError: If an index is outside the codebook.
        """
        if tokens.ndim != 3 or tokens.min() < 0 or tokens.max() >= self.num_codes:
            raise ValueError(
                f'VQAutoencoder.decode_tokens: got shape {tuple(tokens.shape)} with values from {int(tokens.min())} to '
                f'{int(tokens.max())}; expected (B, h, w) and 0 to {self.num_codes - 1}; fill mask tokens first.'
            )
        codes = self.quantize.get_codebook_entry(tokens.flatten(), (*tokens.shape, -1))
        return self.decode_latents(codes.to(self.last_layer.dtype))

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Shrink the arguments for `--smoke`: same levels and attention, width 8, no weights; 64 of taming's codes."""
        levels = len(arguments.get('block_out_channels', _F16_CHANNELS))
        tiny = dict(block_out_channels=(8,) * levels, layers_per_block=1, norm_num_groups=4, weights=None)
        codes = {} if arguments.get('quantizer') else dict(latent_channels=8, num_codes=64)
        return {**arguments, **tiny, 'feature_channels': None, **codes}


def _taming(num_codes: int, channels: int, beta: float, beta_on: str) -> nn.Module:
    # here, since only building a network needs it
    from taming.modules.vqvae.quantize import VectorQuantizer2

    return VectorQuantizer2(num_codes, channels, beta, sane_index_shape=True, legacy=beta_on == 'codebook')


def _check_quantizer(quantizer: Quantizer, channels: int, num_codes: int, beta: float, beta_on: str) -> None:
    name = type(quantizer).__name__
    if (quantizer.channels, quantizer.num_codes) != (channels, num_codes):
        raise ValueError(
            f'VQAutoencoder.latent_channels and num_codes: got {channels} and {num_codes:,}; {name} has '
            f'{quantizer.channels} and {quantizer.num_codes:,}; set the former to the latter.'
        )
    if (beta, beta_on) != (_BETA, 'codebook'):
        raise ValueError(
            f"VQAutoencoder.beta and beta_on: got {beta} and {beta_on!r}, which are of taming's quantizer; leave them "
            f'out, and set the weights of {name} itself.'
        )
