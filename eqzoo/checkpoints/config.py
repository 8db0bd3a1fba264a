"""The config of a component as its file states it, or inferred from the weights of an autoencoder."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from eqzoo.checkpoints.diffusers_classes import WRAPPER, build_class
from eqzoo.checkpoints.read import first_names
from eqzoo.config import configs_folder, read_config
from eqzoo.registry import (
    AUTOENCODERS,
    GENERATORS,
    NETWORKS,
    PROCESSES,
    QUANTIZERS,
    VISION,
    Kind,
    argument_defaults,
    find_component,
)
from eqzoo.zoo import models

NORMALIZATION = ('scale', 'shift', 'mean', 'std')

# The file holds the weights themselves, adapted where they were, and the normalisation as buffers.
_LEFT_OUT = ('weights', 'adapt', *NORMALIZATION)

# Components inside those that files state. Others read data or files when they are built.
_PARTS = (AUTOENCODERS, GENERATORS, NETWORKS, PROCESSES, QUANTIZERS, VISION)

# A network is built from what a file states before its tensors can be compared, so what may be stated is bounded.
_MAX_DEPTH, _MAX_VALUES = 8, 10_000

# The groups of a GroupNorm leave no trace in its weights; all public autoencoders have 32.
_GROUPS = 32


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `type` and every argument of a config as plain data, except weights and normalisation.

    Defaults are filled in, so that a file builds the same network even if they change.
    A class becomes its registered name, or its dotted path; a tuple becomes a list, as in JSON.

    Example:
        >>> config = plain_config(dict(type='TinyAutoencoder', num_blocks=(1, 2), weights='a.pth'))
        >>> config['type'], config['num_blocks'], config['width'], 'weights' in config
        ('TinyAutoencoder', [1, 2], 64, False)
    """
    complete = {**argument_defaults(config['type']), **config}
    kept = {key: _plain(value) for key, value in complete.items() if key not in _LEFT_OUT}
    return {'type': kept.pop('type'), **kept}


def check_stated(config: Mapping[str, Any], kind: Kind, where: str, *, num_tensors: int) -> None:
    """Refuse a config from a file that names anything but registered components, or describes a larger network.

    A config could name anything that can be imported and called. One that comes with a file may name registered
    components only: eqzoo's, and those that a config's `custom_imports` have registered. A class that merely happens to
    be in memory is not enough.

    Args:
        config: `type` and arguments.
        kind: The required kind of the outermost component.
        where: The file, for the message.
        num_tensors: The number of tensors in the file, more than which no network can have layers.

    Raises:
        ValueError: With the names that are refused, or the values.
    """
    _check_size(config, where, num_tensors)
    outermost, *parts = _types(config)
    refused = [] if outermost in kind.names() else [outermost]
    refused += [name for name in parts if not any(name in each.names() for each in _PARTS)]
    if refused:
        raise ValueError(
            f'weights: {where} says that it needs {", ".join(map(repr, refused))}; expected from a file are registered '
            f'{kind.name}s ({", ".join(kind.names())}) and their parts; if you trust it, give a config: of a class of '
            'your own, one with custom_imports.'
        )


def infer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of the autoencoder that `state` belongs to.

    Args:
        state: Weights under diffusers' names, without a prefix.

    Raises:
        ValueError: If they are of another network than a KL, VQ or tiny autoencoder, FLUX.2's, or one that the zoo
            has a config of.

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
    if 'quantize.embed.weight' in state:
        raise ValueError(
            "weights: got the quantiser of taming's GumbelVQ, 'quantize.embed'; expected that of its VQModel, "
            "'quantize.embedding'; choose another autoencoder."
        )
    if any(key.startswith('quantize.') for key in state):
        return plain_config(_infer_vq(state))
    if 'bn.running_mean' in state:
        return plain_config(_infer_flux2(state))
    published = None if 'encoder.down_blocks.0.resnets.0.norm1.weight' in state else _find_published(state)
    return plain_config(published or _infer_kl(state))


def published_normalizations(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of the normalisation that configs of the zoo state for the network of `config`.

    Args:
        config: `type` and all arguments, as `plain_config` gives them.

    Returns:
        Arguments of `LatentNormalization` by the path of each config that has such a network, and states some.

    Example:
        >>> config = plain_config(dict(type='KLAutoencoder', latent_channels=16, quant_conv=False))
        >>> published_normalizations(config)['configs/_base_/autoencoders/sd3_vae.py']
        {'scale': 1.5305, 'shift': 0.0609}
    """
    found = {}
    for path, published in _zoo_configs():
        stated = {key: published[key] for key in NORMALIZATION if published.get(key) is not None}
        if stated and plain_config(published) == config:
            found[path] = stated
    return found


def _zoo_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and config of each autoencoder in the zoo."""
    for path in sorted({model.config for model in models().values() if '/autoencoders/' in model.config}):
        yield path, read_config(configs_folder().parent / path).autoencoder.to_dict()


def _infer_kl(state: Mapping[str, Tensor]) -> dict[str, Any]:
    features = _shape(state, 'decoder.conv_in.weight')[1]
    has_quant_conv = 'quant_conv.weight' in state
    channels = _shape(state, 'post_quant_conv.weight')[1] if has_quant_conv else features
    return dict(
        type='KLAutoencoder',
        latent_channels=channels,
        feature_channels=None if features == channels else features,
        quant_conv=has_quant_conv,
        **_infer_levels(state),
    )


def _infer_flux2(state: Mapping[str, Tensor]) -> dict[str, Any]:
    levels = _infer_levels(state)
    return dict(
        type=WRAPPER,
        class_name='AutoencoderKLFlux2',
        fields=dict(
            latent_channels=_shape(state, 'decoder.conv_in.weight')[1],
            block_out_channels=levels['block_out_channels'],
            layers_per_block=levels['layers_per_block'],
            use_quant_conv='quant_conv.weight' in state,
            use_post_quant_conv='post_quant_conv.weight' in state,
        ),
    )


def _find_published(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the config in the zoo of the wrapped autoencoder with these weights' names and shapes, if there is one."""
    shapes = {key: value.shape for key, value in state.items() if not key.startswith('normalization.')}
    for _, config in _zoo_configs():
        if config['type'] == WRAPPER:
            with torch.device('meta'):
                network = build_class(config['class_name'], config.get('fields'))
            if shapes == {key: value.shape for key, value in network.state_dict().items()}:
                return config
    return None


def _infer_vq(state: Mapping[str, Tensor]) -> dict[str, Any]:
    features = _shape(state, 'decoder.conv_in.weight')[1]
    quantizer, channels, num_codes = _infer_quantizer(state)
    return dict(
        type='VQAutoencoder',
        latent_channels=channels,
        num_codes=num_codes,
        feature_channels=None if features == channels else features,
        quantizer=quantizer,
        **_infer_levels(state),
    )


def _infer_quantizer(state: Mapping[str, Tensor]) -> tuple[dict[str, Any] | None, int, int]:
    """Return the config of the quantizer, None for taming's, and the length and number of its codes."""
    if 'quantize.levels' in state:
        levels = state['quantize.levels'].flatten().tolist()
        if min(levels, default=0) < 2:
            raise ValueError(
                f'weights: got quantize.levels {levels[:8]}; expected numbers of at least 2; fetch it again.'
            )
        return dict(type='FSQ', levels=levels), len(levels), math.prod(levels)
    if 'quantize.bits' in state:
        channels = len(state['quantize.bits'].flatten())
        return dict(type='LFQ', channels=channels), channels, 2**channels
    name = 'quantize.directions.weight'
    name = name if name in state else 'quantize.embedding.weight'
    num_codes, channels = _shape(state, name)
    kind = 'NormalizedCodebook' if 'directions' in name else 'EMACodebook' if 'quantize.counts' in state else None
    if kind is None:
        return None, channels, num_codes
    return dict(type=kind, num_codes=num_codes, channels=channels), channels, num_codes


def _infer_levels(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the arguments that KL and VQ networks share from the encoder."""
    levels = range(_count(state, r'encoder\.down_blocks\.(\d+)\.'))
    attended = [any(key.startswith(f'encoder.down_blocks.{i}.attentions.') for key in state) for i in levels]
    widths = [_shape(state, f'encoder.down_blocks.{level}.resnets.0.conv1.weight')[0] for level in levels]
    if not widths or any(width % _GROUPS for width in widths):
        raise ValueError(
            f'weights: got levels of {widths or "no"} channels; expected without a config are multiples of {_GROUPS}, '
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
    # a level is a convolution, whose weight has no further name, and its blocks; the last convolution is no level
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
    """Return how many numbers from 0 the group of `pattern` matches in the names.

    Raises:
        ValueError: If a number before the last is missing: a name may claim the billionth level.
    """
    found = {match.group(1) for key in state if (match := re.match(pattern, key))}
    if found != set(map(str, range(len(found)))):
        raise ValueError(
            f'weights: {first_names(sorted(found))} are the numbers of {pattern}; expected 0, 1, 2, … without gaps; '
            'the file lacks weights; fetch it again.'
        )
    return len(found)


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(
            f'weights: the architecture cannot be inferred without {name!r}; expected a KL, VQ or tiny autoencoder '
            'of LDM, taming, taesd (both files) or diffusers; give a config.'
        )
    return tuple(state[name].shape)


def _types(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if 'type' in value:
            yield str(value['type'])
        yield from _types(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _types(item)


def _check_size(config: Mapping[str, Any], where: str, num_tensors: int) -> None:
    """Refuse a config that is nested too deep, too long, or counts more layers than there are tensors."""
    level, values = [config], 0
    for _ in range(_MAX_DEPTH):
        parts = [each for each in level if isinstance(each, Mapping)]
        if any(_num_layers(part) > num_tensors for part in parts):
            raise ValueError(
                f'weights: {where} states a network of more layers than it has tensors, {num_tensors}; expected the '
                'config of its weights; give a config.'
            )
        level = [item for each in level for item in (each.values() if isinstance(each, Mapping) else each)]
        values += len(level)
        level = [item for item in level if isinstance(item, Mapping | list | tuple)]
        if values > _MAX_VALUES:
            break
    if level or values > _MAX_VALUES:
        raise ValueError(f'weights: {where} states a config of too many values; expected a component; give a config.')


def _num_layers(arguments: Mapping[str, Any]) -> int:
    """Return the number of layers that the arguments of a network state at least."""
    widths, blocks, size = (arguments.get(key) for key in ('block_out_channels', 'num_blocks', 'size'))
    counts = [arguments.get('layers_per_block'), len(widths) if isinstance(widths, list | tuple) else 0]
    # the fields of diffusers' classes
    for key, value in arguments.items():
        if isinstance(key, str) and ('layers' in key or 'blocks' in key):
            counts += list(value) if isinstance(value, list | tuple) else [value]
    counts += blocks if isinstance(blocks, list | tuple) else []
    counts += size[:1] if isinstance(size, list | tuple) else []
    return max((count for count in counts if isinstance(count, int)), default=0)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _name(value) if callable(value) else value


def _name(component: Callable) -> str:
    is_registered = find_component(component.__name__) is component
    return component.__name__ if is_registered else f'{component.__module__}.{component.__qualname__}'
