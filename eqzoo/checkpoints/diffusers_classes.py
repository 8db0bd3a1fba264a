"""diffusers' classes of autoencoders that eqzoo wraps: their fields, the shape of their latents, their normalisation.

A class is one row of `WRAPPED_CLASSES`. Classes that are not in it are refused: a file could name any.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import fmean, pvariance
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eqzoo.files import did_you_mean

WRAPPER = 'DiffusersAutoencoder'
"""The component that holds them: `eqzoo.autoencoders.DiffusersAutoencoder`."""

NORMALIZATION_FIELDS = ('scaling_factor', 'shift_factor', 'latents_mean', 'latents_std')

# diffusers' default of `batch_norm_eps`, which a file of weights alone does not state
_BATCH_NORM_EPS = 1e-4

_SAME_FACTOR = 0.05  # EQ-SDXL-VAE's factor, 0.1275, is 1 / std of all channels to its four digits

# What constructors raise for values that they do not expect.
_UNFIT_VALUES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, AssertionError, RuntimeError)

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class WrappedClass:
    """The properties of a class in `diffusers.models.autoencoders`.

    Args:
        channels: Returns C, the channels of a latent, from all fields.
        factor: Returns the pixels per side of a latent cell.
        shrink: Returns the fields of a small network of the same kind, for `--smoke`.
        has_posterior: Whether `encode` returns a Gaussian; otherwise it returns the latents themselves.
        normalization: Where the normalisation of the latents is: in the fields `scaling_factor` and
            `shift_factor`, in `latents_mean` and `latents_std`, in the running statistics of a batch norm `bn`
            of the weights (FLUX.2), or inside of `encode` and `decode` (RAE).
        has_frames: Whether images have an axis of time, (B, 3, 1, H, W), and latents as well.
        unused: Words in the names of weights that one frame, or training, does not reach: they are frozen.
        unit_range: Whether images are in [0, 1].
        side: Returns the one size of images, in pixels, where a class has one.
        needs: The package that the class needs, beyond diffusers.
    """

    channels: Callable[[Fields], int]
    factor: Callable[[Fields], int]
    shrink: Callable[[Fields], dict[str, Any]]
    has_posterior: bool = True
    normalization: Literal['factor', 'statistics', 'batch_norm', 'inside'] = 'factor'
    has_frames: bool = False
    unused: tuple[str, ...] = ()
    unit_range: bool = False
    side: Callable[[Fields], int] | None = None
    needs: str | None = None


def wrapped_class(name: str) -> WrappedClass:
    """Return the row of the class `name`.

    Raises:
        ValueError: If eqzoo does not wrap such a class.
    """
    if name not in WRAPPED_CLASSES:
        hint = did_you_mean(name, WRAPPED_CLASSES)
        raise ValueError(f'{WRAPPER}.class_name: got {name!r}.{hint} Expected {", ".join(WRAPPED_CLASSES)}.')
    return WRAPPED_CLASSES[name]


def complete_fields(name: str, fields: Fields | None) -> dict[str, Any]:
    """Return the arguments of the constructor of the class `name`, with diffusers' defaults.

    Args:
        name: A class of `WRAPPED_CLASSES`.
        fields: Some or all of them, as config.json has them.

    Raises:
        ValueError: If one is unknown, is required and missing, or states the normalisation.
    """
    parameters = _parameters(_import_class(name))
    for key in fields or {}:
        if key in NORMALIZATION_FIELDS and WRAPPED_CLASSES[name].normalization != 'inside':
            raise ValueError(
                f'{WRAPPER}.fields: got {key}, which the network does not use; expected the normalisation as scale and '
                'shift, or mean and std, of the autoencoder.'
            )
        if key not in parameters:
            raise ValueError(
                f"{WRAPPER}.fields: diffusers' {name} has no {key!r}.{did_you_mean(key, parameters)} "
                f'It has {", ".join(parameters)}.'
            )
    missing = [key for key, each in parameters.items() if each.default is each.empty and key not in (fields or {})]
    if missing:
        raise ValueError(f"{WRAPPER}.fields: diffusers' {name} also needs {', '.join(missing)}; expected a value each.")
    return {**{key: each.default for key, each in parameters.items()}, **(fields or {})}


def latent_channels(config: Mapping[str, Any]) -> int:
    """Return C, the channels of a latent, of an autoencoder's config."""
    if str(config['type']).rsplit('.', 1)[-1] != WRAPPER:
        return config['latent_channels']
    name = config['class_name']
    return wrapped_class(name).channels(complete_fields(name, config['fields']))


def build_class(name: str, fields: Fields | None) -> nn.Module:
    """Build diffusers' network `name`, with random weights.

    Raises:
        ValueError: If diffusers refuses the fields, or lacks the class or a package for it, or images have other than 3
            channels.
    """
    complete = complete_fields(name, fields)
    # Wan 2.2 makes a channel of each pixel of a patch; FLUX.2's `patch_size` is that of its pipeline
    patch = complete['patch_size'] if name == 'AutoencoderKLWan' else None
    expected = 3 * patch**2 if isinstance(patch, int) else 3
    for key in ('in_channels', 'out_channels', 'input_channels', 'num_channels'):
        if complete.get(key, expected) != expected:
            raise ValueError(
                f"{WRAPPER}.fields: got {key} {complete[key]!r} of diffusers' {name}; expected {expected}, for images "
                'of 3 channels, since eqzoo has no others, such as RGBA; choose another autoencoder.'
            )
    try:
        return _import_class(name)(**complete)
    except _UNFIT_VALUES as error:
        raise ValueError(
            f"{WRAPPER}.fields: diffusers' {name} cannot be built from them ({type(error).__name__}: {error}); "
            'expected the fields of its config.json.'
        ) from error


def split_fields(name: str, fields: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the constructor's arguments in a config.json without the normalisation, and its remaining fields."""
    parameters = _parameters(_import_class(name))
    is_inside = WRAPPED_CLASSES[name].normalization == 'inside'
    left_out = () if is_inside else NORMALIZATION_FIELDS
    own = {key: value for key, value in fields.items() if key in parameters and key not in left_out}
    more = {key: value for key, value in fields.items() if not key.startswith('_') and key not in (*own, *left_out)}
    return own, more


def read_normalization(name: str, fields: Fields, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of `LatentNormalization` that a config.json, or the weights beside it, state.

    Args:
        name: A class of `WRAPPED_CLASSES`.
        fields: The content of config.json.
        state: The weights.
    """
    kind = WRAPPED_CLASSES[name].normalization
    if kind == 'batch_norm':
        return batch_norm_statistics(state, fields.get('batch_norm_eps', _BATCH_NORM_EPS))
    if kind == 'inside':
        return {}
    defaults = {key: each.default for key, each in _parameters(_import_class(name)).items()}
    stated = {key: fields.get(key, defaults.get(key)) for key in NORMALIZATION_FIELDS}
    factor = dict(scale=stated['scaling_factor'] or 1.0, shift=stated['shift_factor'] or 0.0)
    return stated_statistics(stated) or factor


def stated_statistics(fields: Fields) -> dict[str, Any]:
    """Return the mean and standard deviation of each channel that a config.json states, or nothing.

    Where it has a `scaling_factor` too, diffusers' pipelines compute (z - mean) * factor / std (Playground 2.5), so the
    factor goes into `std`. Differs from them for EQ-SDXL-VAE: its factor is 1 / std of all channels together, which
    says again what `std` says.
    """
    mean, std, factor = fields.get('latents_mean'), fields.get('latents_std'), fields.get('scaling_factor') or 1.0
    if mean is None or std is None:
        return {}
    if factor != 1.0:
        of_all = math.sqrt(fmean(each**2 for each in std) + pvariance(mean))
        if not math.isclose(factor * of_all, 1, rel_tol=_SAME_FACTOR):
            std = [each / factor for each in std]
    return dict(mean=mean, std=std)


def write_normalization_fields(name: str, normalization: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the fields of config.json for a normalisation; None if the class has none for it.

    Args:
        name: A class of `WRAPPED_CLASSES`.
        normalization: `shift` and `scale`, each (C,), or nothing for the identity.
    """
    kind, parameters = WRAPPED_CLASSES[name].normalization, _parameters(_import_class(name))
    if kind == 'batch_norm':
        return {}  # it is in the weights: see `with_batch_norm`
    shift, scale = normalization.get('shift', torch.zeros(1)), normalization.get('scale', torch.ones(1))
    if kind == 'inside':
        return {} if bool((shift == 0).all() and (scale == 1).all()) else None
    statistics = dict(
        latents_mean=[shortest(each) for each in shift], latents_std=[shortest(1 / each) for each in scale]
    )
    if kind == 'statistics':
        # without a field, diffusers would assume the statistics of the published model
        return statistics if normalization else dict(latents_mean=None, latents_std=None)
    if bool((shift == shift[0]).all() and (scale == scale[0]).all()):
        factor = dict(scaling_factor=shortest(scale[0]))
        if 'shift_factor' in parameters:
            return {**factor, 'shift_factor': shortest(shift[0])}
        if shift[0] == 0:
            return factor
    return {'scaling_factor': 1.0, **statistics} if 'latents_mean' in parameters else None


def batch_norm_statistics(state: Mapping[str, Tensor], eps: float = _BATCH_NORM_EPS) -> dict[str, Any]:
    """Return mean and standard deviation of each latent channel from FLUX.2's batch norm; empty without one.

    FLUX.2's pipeline joins 2 x 2 cells to one of 4 C channels, channel by channel, before the batch norm, so there are
    four statistics of each channel, one for each place in the square. The moments over all cells follow:
    the mean of means, and the mean of variances plus the variance of means.

    Args:
        state: Weights with `bn.running_mean` and `bn.running_var`, each (C · places,).
        eps: Added to the variance, as the pipeline does.
    """
    if not {'bn.running_mean', 'bn.running_var', 'decoder.conv_in.weight'} <= set(state):
        return {}
    weight = state['decoder.conv_in.weight']
    channels = weight.shape[1] if weight.ndim == 4 else 0
    mean, variance = (state[f'bn.running_{key}'].double() for key in ('mean', 'var'))
    if not channels or mean.ndim != 1 or mean.shape != variance.shape or len(mean) % channels:
        return {}  # of another network: what does not fit is named when the weights are compared
    means, variances = mean.view(channels, -1), variance.view(channels, -1)
    spread = variances.mean(1) + means.var(1, correction=0) + eps
    return (
        dict(mean=means.mean(1).tolist(), std=spread.clamp(min=0).sqrt().tolist()) if bool((spread > 0).all()) else {}
    )


def with_batch_norm(
    state: Mapping[str, Tensor], normalization: Mapping[str, Tensor], eps: float = _BATCH_NORM_EPS
) -> dict[str, Tensor]:
    """Return weights whose batch norm, if they have one, states `normalization`, the same for all places of a channel.

    A batch norm that states it already, to rounding, stays as it is.
    """
    stated = batch_norm_statistics(state, eps)
    if not stated or not normalization:
        return dict(state)
    shift, scale = (normalization[key].double() for key in ('shift', 'scale'))
    found = [torch.tensor(stated[key], dtype=torch.float64) for key in ('mean', 'std')]
    if torch.allclose(found[0], shift, rtol=1e-5, atol=1e-6) and torch.allclose(found[1], 1 / scale, rtol=1e-5):
        return dict(state)
    places = len(state['bn.running_mean']) // len(shift)
    replaced = dict(mean=shift, var=(1 / scale.square() - eps).clamp(min=0))
    return {
        **state,
        **{
            f'bn.running_{key}': value.repeat_interleave(places).to(state[f'bn.running_{key}'].dtype)
            for key, value in replaced.items()
        },
    }


def shortest(value: Tensor) -> float:
    """Return the shortest decimal that is this float32: 0.18215, not 0.18214999139308929."""
    return float(str(value.float().numpy()[()]))


def _import_class(name: str) -> type[nn.Module]:
    import diffusers
    from diffusers.models import autoencoders

    needed = wrapped_class(name).needs
    if needed and find_spec(needed) is None:
        raise ValueError(f"{WRAPPER}: diffusers' {name} needs {needed}, which is not installed: pip install {needed}.")
    if not hasattr(autoencoders, name):
        raise ValueError(
            f'{WRAPPER}: diffusers {diffusers.__version__} has no {name}; expected a later version: pip install -U '
            'diffusers.'
        )
    return getattr(autoencoders, name)


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    return {key: each for key, each in inspect.signature(cls.__init__).parameters.items() if key != 'self'}


def _halvings(widths: Sequence[int]) -> int:
    return 2 ** (len(widths) - 1)


def _shrink_kl(fields: Fields) -> dict[str, Any]:
    widths = (8,) * len(fields['block_out_channels'])
    more = dict(decoder_block_out_channels=None) if 'decoder_block_out_channels' in fields else {}
    return {**fields, 'block_out_channels': widths, 'layers_per_block': 1, 'norm_num_groups': 4, **more}


# Smoke images have 64 pixels: deeper networks lose their finest levels, so that there are 4 x 4 cells.
_SMOKE_LEVELS = 5


def _taper(latent_channels: int, levels: int, smallest: int) -> tuple[int, ...]:
    """Return widths, finest first, that end in `latent_channels` and grow by 4 at most, as DC-AE's shortcuts need."""
    widths = [max(smallest, latent_channels)]
    while len(widths) < levels:
        widths.insert(0, max(smallest, widths[0] // 4))
    return tuple(widths)


def _shrink_dc(fields: Fields) -> dict[str, Any]:
    levels = min(_SMOKE_LEVELS, len(fields['encoder_block_out_channels']))
    small = {**fields, 'attention_head_dim': 8}
    for half in ('encoder', 'decoder'):
        small[f'{half}_block_out_channels'] = _taper(fields['latent_channels'], levels, 16)
        small[f'{half}_layers_per_block'] = [min(each, 1) for each in fields[f'{half}_layers_per_block'][-levels:]]
    for key in ('encoder_block_types', 'decoder_block_types', 'decoder_norm_types', 'decoder_act_fns'):
        small[key] = fields[key] if isinstance(fields[key], str) else fields[key][-levels:]
    for key in ('encoder_qkv_multiscales', 'decoder_qkv_multiscales'):
        small[key] = fields[key][-levels:]
    return small


def _shrink_video(fields: Fields) -> dict[str, Any]:
    more = dict(decoder_base_dim=None) if 'decoder_base_dim' in fields else {}
    return {**fields, 'base_dim': 8, 'num_res_blocks': 1, **more}


def _shrink_hunyuan(fields: Fields) -> dict[str, Any]:
    levels = min(_SMOKE_LEVELS, len(fields['block_out_channels']))
    # a moment is the mean of a group of channels of the last level
    widths = _taper(2 * fields['latent_channels'], levels, 32)
    return {
        **fields,
        'block_out_channels': widths,
        'layers_per_block': 1,
        'spatial_compression_ratio': _halvings(widths),
    }


def _shrink_rae(fields: Fields) -> dict[str, Any]:
    tokens = 4
    return {
        **fields,
        'encoder_hidden_size': 64,
        'encoder_num_hidden_layers': 1,
        'decoder_hidden_size': 32,
        'decoder_num_hidden_layers': 1,
        'decoder_num_attention_heads': 4,
        'decoder_intermediate_size': 32,
        'encoder_input_size': tokens * fields['encoder_patch_size'],
        'image_size': None,
        'latents_mean': None,
        'latents_std': None,
    }


def _rae_side(fields: Fields) -> int:
    return fields['encoder_input_size'] // fields['encoder_patch_size'] * fields['patch_size']


WRAPPED_CLASSES: dict[str, WrappedClass] = {
    'AutoencoderKL': WrappedClass(
        channels=lambda fields: fields['latent_channels'],
        factor=lambda fields: _halvings(fields['block_out_channels']),
        shrink=_shrink_kl,
    ),
    'AutoencoderKLFlux2': WrappedClass(
        channels=lambda fields: fields['latent_channels'],
        factor=lambda fields: _halvings(fields['block_out_channels']),
        shrink=_shrink_kl,
        normalization='batch_norm',
    ),
    'AutoencoderDC': WrappedClass(
        channels=lambda fields: fields['latent_channels'],
        factor=lambda fields: _halvings(fields['encoder_block_out_channels']),
        shrink=_shrink_dc,
        has_posterior=False,
    ),
    'AutoencoderKLHunyuanImage': WrappedClass(
        channels=lambda fields: fields['latent_channels'],
        factor=lambda fields: fields['spatial_compression_ratio'],
        shrink=_shrink_hunyuan,
    ),
    'AutoencoderKLQwenImage': WrappedClass(
        channels=lambda fields: fields['z_dim'],
        factor=lambda fields: _halvings(fields['dim_mult']),
        shrink=_shrink_video,
        normalization='statistics',
        has_frames=True,
        unused=('time_conv',),
    ),
    'AutoencoderKLWan': WrappedClass(
        channels=lambda fields: fields['z_dim'],
        factor=lambda fields: _halvings(fields['dim_mult']) * (fields['patch_size'] or 1),
        shrink=_shrink_video,
        normalization='statistics',
        has_frames=True,
        unused=('time_conv',),
    ),
    'AutoencoderRAE': WrappedClass(
        channels=lambda fields: fields['encoder_hidden_size'],
        factor=lambda fields: fields['patch_size'],
        shrink=_shrink_rae,
        has_posterior=False,
        normalization='inside',
        unused=('encoder.',),
        unit_range=True,
        side=_rae_side,
        needs='transformers',
    ),
}
