"""LDM's encoder and decoder from diffusers, and the padding of their convolutions.

diffusers takes seconds to import, so only the functions that build a network import it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import Decoder, Encoder

PaddingMode = Literal['zeros', 'reflect', 'reflect_conv2d']


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
        block_out_channels: Width of each resolution level, finest first; every level except the
            last halves the resolution.
        double_latent: Whether the encoder returns mean and log-variance.
        layers_per_block: Residual blocks per level of the encoder; the decoder has one more.
        attention_levels: Levels with attention after each residual block.
        norm_num_groups: Groups of each GroupNorm; divides every width.

    Raises:
        ValueError: If an attention level does not exist.
    """
    from diffusers.models.autoencoders.vae import Decoder, Encoder

    levels = range(len(block_out_channels))
    if not set(attention_levels) <= set(levels):
        raise ValueError(
            f'attention_levels: got {tuple(attention_levels)}; expected indices of '
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


def set_padding(module: nn.Module, mode: PaddingMode) -> None:
    """Set the padding of every padded convolution of `module`; names and weights stay the same.

    Almost all public autoencoders were trained with 'zeros'. 'reflect' removes the dark or coloured rim
    that decoded crops of a latent have with zeros; it needs latents of at least two cells per side.
    'reflect_conv2d' is what fine-tuners of SDXL-VAE mean by reflect padding (kohya-ss/sd-scripts#2189): they
    set `padding_mode` of each `Conv2d` that pads. LDM's strided convolutions do not: a layer around them pads
    one row and column with zeros, and keeps doing so. The two differ wherever an encoder has such layers.

    Args:
        module: The network, changed in place. Convolutions that already pad in another way keep it.
        mode: 'zeros', 'reflect' or 'reflect_conv2d'.

    Raises:
        ValueError: If `mode` is unknown.
    """
    from diffusers.models.downsampling import Downsample2D

    if mode not in (modes := get_args(PaddingMode)):
        raise ValueError(f'padding_mode must be one of {", ".join(modes)}, got {mode!r}.')
    if mode == 'zeros':
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if mode == 'reflect' and isinstance(child, Downsample2D) and child.padding == 0:
                setattr(parent, name, ReflectDownsample(child))
            elif isinstance(child, nn.Conv2d) and child.padding_mode == 'zeros' and max(child.padding) > 0:
                child.padding_mode = 'reflect'


class ReflectDownsample(nn.Module):
    """diffusers' `Downsample2D` with reflection instead of zeros at the right and bottom edge.

    Args:
        downsample: The layer to replace; its convolution keeps its name.
    """

    def __init__(self, downsample: nn.Module) -> None:
        super().__init__()
        self.conv = downsample.conv

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sides of `x` (B, C, H, W)."""
        return self.conv(F.pad(x, (0, 1, 0, 1), mode='reflect'))
