"""The architecture of an autoencoder from the names and shapes of its weights."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from eqzoo.autoencoders.arguments import plain_config

# The groups of a GroupNorm leave no trace in its weights; all public autoencoders have 32.
_GROUPS = 32


def infer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of the autoencoder that `state` belongs to.

    Args:
        state: Weights under diffusers' names, without a prefix.

    Raises:
        ValueError: If they are no KL, VQ or tiny autoencoder's.

    Example:
        >>> import torch
        >>> from eqzoo.autoencoders import TinyAutoencoder
        >>> with torch.device('meta'):
        ...     state = TinyAutoencoder(16, (1, 2), width=8).state_dict()
        >>> config = infer_config(state)
        >>> config['latent_channels'], config['num_blocks'], config['width']
        (16, [1, 2], 8)
    """
    if any(key.startswith('encoder.layers.') for key in state):
        return plain_config(_infer_tiny(state))
    return plain_config(_infer_vq(state) if 'quantize.embedding.weight' in state else _infer_kl(state))


def _infer_kl(state: Mapping[str, Tensor]) -> dict[str, Any]:
    channels = _shape(state, 'decoder.conv_in.weight')[1]
    has_quant_conv = 'quant_conv.weight' in state
    return dict(type='KLAutoencoder', latent_channels=channels, quant_conv=has_quant_conv, **_infer_levels(state))


def _infer_vq(state: Mapping[str, Tensor]) -> dict[str, Any]:
    num_codes, channels = _shape(state, 'quantize.embedding.weight')
    features = _shape(state, 'decoder.conv_in.weight')[1]
    return dict(
        type='VQAutoencoder',
        latent_channels=channels,
        num_codes=num_codes,
        feature_channels=None if features == channels else features,
        **_infer_levels(state),
    )


def _infer_levels(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read what KL and VQ networks share off the encoder."""
    levels = range(_count(state, r'encoder\.down_blocks\.(\d+)\.'))
    attended = [any(key.startswith(f'encoder.down_blocks.{i}.attentions.') for key in state) for i in levels]
    widths = [_shape(state, f'encoder.down_blocks.{level}.resnets.0.conv1.weight')[0] for level in levels]
    if not widths or any(width % _GROUPS for width in widths):
        raise ValueError(
            f'weights: got levels of {widths or "no"} channels; accepted without a config are multiples of {_GROUPS}, '
            "the groups of public autoencoders' norms, which weights do not show; give a config."
        )
    return dict(
        block_out_channels=widths,
        layers_per_block=_count(state, r'encoder\.down_blocks\.0\.resnets\.(\d+)\.'),
        attention_levels=[level for level in levels if attended[level]],
        norm_num_groups=_GROUPS,
    )


def _infer_tiny(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width = _shape(state, 'encoder.layers.0.weight')[0]
    layers = _count(state, r'encoder\.layers\.(\d+)\.')
    # a level is a convolution, whose weight has no further name, and its blocks; the last convolution is none
    is_convolution = [f'encoder.layers.{layer}.weight' in state for layer in range(layers)]
    starts = [layer for layer in range(layers) if is_convolution[layer]]
    blocks = [following - start - 1 for start, following in pairwise(starts)]
    return dict(
        type='TinyAutoencoder',
        latent_channels=_shape(state, f'encoder.layers.{starts[-1]}.weight')[0],
        num_blocks=blocks,
        width=width,
        pooled=any('.pool.' in key for key in state),
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Return one more than the highest number that names have where `pattern` has its group."""
    found = (re.match(pattern, key) for key in state)
    return 1 + max((int(match.group(1)) for match in found if match), default=-1)


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(
            f'weights: the architecture cannot be told without {name!r}; accepted are KL, VQ and tiny autoencoders '
            'of LDM, taming, taesd (both its files) and diffusers; give a config.'
        )
    return tuple(state[name].shape)
