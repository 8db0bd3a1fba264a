"""diffusers' encoder and decoder, as KL and VQ autoencoders share them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

# diffusers takes seconds to import: only building a network pays for it, not checking a config.
if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import Decoder, Encoder


def build_networks(
    latent_channels: int,
    block_out_channels: Sequence[int],
    *,
    double_latent: bool,
    layers_per_block: int,
    attention_levels: Sequence[int],
    norm_num_groups: int,
) -> tuple['Encoder', 'Decoder']:
    """Build LDM's convolutional encoder and decoder.

    Args:
        latent_channels: Channels between the two, before any 1x1 convolution.
        block_out_channels: Width of each resolution level, finest first; every level but the
            last halves the resolution.
        double_latent: Whether the encoder returns mean and log-variance.
        layers_per_block: Residual blocks a level in the encoder; the decoder has one more.
        attention_levels: Levels with attention after each residual block.
        norm_num_groups: Groups of each GroupNorm; divides every width.

    Raises:
        ValueError: If an attention level does not exist.
    """
    from diffusers.models.autoencoders.vae import Decoder, Encoder

    levels = range(len(block_out_channels))
    if not set(attention_levels) <= set(levels):
        raise ValueError(
            f'attention_levels: got {tuple(attention_levels)}; accepted are indices of '
            f'block_out_channels, 0 to {len(levels) - 1}, finest first.'
        )
    attention = ['Attn' if level in attention_levels else '' for level in levels]
    shape = dict(
        block_out_channels=tuple(block_out_channels),
        layers_per_block=layers_per_block,
        norm_num_groups=norm_num_groups,
    )
    down = tuple(f'{each}DownEncoderBlock2D' for each in attention)
    up = tuple(f'{each}UpDecoderBlock2D' for each in reversed(attention))
    encoder = Encoder(3, latent_channels, down_block_types=down, double_z=double_latent, **shape)
    return encoder, Decoder(latent_channels, 3, up_block_types=up, **shape)
