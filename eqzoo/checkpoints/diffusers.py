"""diffusers' format: config.json, and folders of an autoencoder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.diffusers_classes import (
    WRAPPED_CLASSES,
    WRAPPER,
    complete_fields,
    latent_channels,
    read_normalization,
    shortest,
    split_fields,
    stated_statistics,
    write_normalization_fields,
)
from eqzoo.checkpoints.keys import to_diffusers
from eqzoo.checkpoints.read import below, find_states, read_file
from eqzoo.files import sha256_of
from eqzoo.normalization import LatentNormalization
from eqzoo.zoo import DIFFUSERS_COMPANION, DIFFUSERS_CONFIG, DIFFUSERS_WEIGHTS

CONFIG, COMPANION = DIFFUSERS_CONFIG, DIFFUSERS_COMPANION
WEIGHTS, CARD = DIFFUSERS_WEIGHTS[0], 'README.md'

CLASSES = {'KLAutoencoder': 'AutoencoderKL', 'VQAutoencoder': 'VQModel', 'TinyAutoencoder': 'AutoencoderTiny'}

# Fields that have one value in all of eqzoo's networks; it is also diffusers' default.
_FIXED = {
    'AutoencoderKL': dict(in_channels=3, out_channels=3, act_fn='silu', mid_block_add_attention=True),
    'VQModel': dict(
        in_channels=3,
        out_channels=3,
        act_fn='silu',
        norm_type='group',
        mid_block_add_attention=True,
        lookup_from_codebook=False,
    ),
    'AutoencoderTiny': dict(
        in_channels=3, out_channels=3, act_fn='relu', upsample_fn='nearest', upsampling_scaling_factor=2
    ),
}

# Fields that change no output, with their defaults; kept, so that a file comes back unchanged.
_FREE = {
    'AutoencoderKL': dict(sample_size=256, force_upcast=True),
    'VQModel': dict(sample_size=256, force_upcast=False),
    'AutoencoderTiny': dict(latent_magnitude=3, latent_shift=0.5),
}

_MAX_CHANNELS = 1 << 14

# diffusers' classes pad with zeros. These lines set another mode on a network of theirs, called `autoencoder`.
_PADDING_LINES = {
    'zeros': (),
    'reflect_conv2d': (
        'from torch import nn',
        '',
        'for module in autoencoder.modules():',
        '    if isinstance(module, nn.Conv2d) and max(module.padding) > 0:',
        "        module.padding_mode = 'reflect'",
    ),
    'reflect': (
        'from diffusers.models.downsampling import Downsample2D',
        'from torch import nn',
        'from torch.nn.functional import pad',
        '',
        '',
        'def reflect(convolution, inputs):',
        '    # in place of the row and the column of zeros that Downsample2D has appended',
        "    return pad(inputs[0][:, :, :-1, :-1], (0, 1, 0, 1), mode='reflect')",
        '',
        '',
        'for module in autoencoder.modules():',
        '    if isinstance(module, Downsample2D) and module.padding == 0:',
        '        module.conv.register_forward_pre_hook(reflect)',
        '    elif isinstance(module, nn.Conv2d) and max(module.padding) > 0:',
        "        module.padding_mode = 'reflect'",
    ),
}

# diffusers' classes assume these where config.json is silent, as sd-vae-ft-mse's is.
_DEFAULT_SCALE = {'AutoencoderKL': 0.18215, 'VQModel': 0.18215, 'AutoencoderTiny': 1.0}


def read_folder(folder: Path) -> dict[str, Any]:
    """Return the fields of an `AutoencoderFile` from a diffusers folder.

    `eqzoo.safetensors`, if eqzoo wrote one, holds everything that diffusers has no field for, and
    the exact numbers of the normalisation.

    Raises:
        FileNotFoundError: If the folder has no config.json or no weights.
        ValueError: If eqzoo has no such network, or a file cannot be read, or
            `eqzoo.safetensors` was written for other files than the folder's.
    """
    fields = _read_json(folder / CONFIG)
    config, normalization, kept = from_diffusers(fields, str(folder / CONFIG))
    file = next((folder / name for name in DIFFUSERS_WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f'weights: the folder {str(folder)!r} has no weights; expected {WEIGHTS}, its shards with their index, a '
            'variant such as fp16, or .bin; fetch one.'
        )
    state = to_diffusers(find_states(read_file(file)[0])[0])
    if (folder / COMPANION).is_file():
        return _with_companion(folder, state, sha256_of(folder / CONFIG, file))
    if config['type'] == WRAPPER:
        normalization = read_normalization(config['class_name'], fields, state)
    buffers = LatentNormalization(latent_channels(config), **normalization).state_dict()
    state |= {f'normalization.{key}': value for key, value in buffers.items()}
    return dict(state=state, config=plain_config(config), diffusers_fields=kept)


def from_diffusers(fields: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return eqzoo's config, the arguments of its normalisation, and the remaining fields of a config.json.

    Per-channel statistics, where it has them, are the normalisation, with the factor in them where diffusers multiplies
    by it too; the shift is an alternative to them. A network of AutoencoderKL that `KLAutoencoder` cannot be, such as
    one without attention in the middle, is wrapped. Of a network that `DiffusersAutoencoder` wraps, no normalisation is
    returned: it may be in the weights.

    Args:
        fields: The content of a config.json.
        where: The file, for messages.

    Raises:
        ValueError: If eqzoo has no such network.
    """
    name = fields.get('_class_name')
    known = [*CLASSES.values(), *(each for each in WRAPPED_CLASSES if each not in CLASSES.values())]
    if name not in known:
        raise ValueError(
            f"{where}: got _class_name {name!r}; expected {', '.join(known)}; of a pipeline, give the folder 'vae'."
        )
    padding = fields.get('padding_mode', 'zeros')
    if not isinstance(padding, str) or padding not in _PADDING_LINES:
        raise ValueError(f'{where}: got padding_mode {padding!r}; expected {", ".join(_PADDING_LINES)}; correct it.')
    if name in CLASSES.values():
        try:
            config, normalization, kept = _read_own(name, fields, where)
        except _OtherNetworkError:
            if name not in WRAPPED_CLASSES:
                raise
        else:
            return {**config, 'padding_mode': padding}, normalization, kept
    own, kept = split_fields(name, {key: value for key, value in fields.items() if key != 'padding_mode'})
    config = dict(type=WRAPPER, class_name=name, fields=own, padding_mode=padding)
    _check_channels(latent_channels(config), where)
    return config, {}, kept


def to_config_json(
    config: Mapping[str, Any], normalization: Mapping[str, Tensor], kept: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the config.json of an autoencoder, and a note about each setting that it has no field for.

    Args:
        config: `type` and all arguments, as `plain_config` gives them.
        normalization: `shift` and `scale`, each (C,), or nothing for the identity.
        kept: Further fields of an earlier config.json.

    Raises:
        ValueError: If diffusers has no such network.
    """
    import diffusers

    name = _class_for(config)
    if _is_wrapped(config):
        return _write_wrapped(config, normalization, kept)
    write = {'AutoencoderKL': _write_kl, 'VQModel': _write_vq, 'AutoencoderTiny': _write_tiny}[name]
    factors, unsaid = _write_normalization(name, normalization)
    if name == 'VQModel' and (config['beta'], config['beta_on'], config['codebook_weight']) != (0.25, 'codebook', 1.0):
        unsaid.append("diffusers' VQModel has beta 0.25 on the codebook term; yours is kept in eqzoo.safetensors")
    head = dict(_class_name=name, _diffusers_version=diffusers.__version__)
    factors |= _padding(config, unsaid)
    return {**head, **_FIXED[name], **_FREE[name], **kept, **write(config), **factors}, unsaid


def needs_normalization(class_name: str) -> bool:
    """Return whether a folder of this class has to state a normalisation, which diffusers' pipelines use.

    Public VQ and tiny autoencoders have raw latents, or latents that are scaled already; FLUX.2 and RAE have the
    normalisation among their weights.
    """
    wrapped = WRAPPED_CLASSES.get(class_name)
    return wrapped is not None and wrapped.normalization in ('factor', 'statistics')


def opening_lines(config: Mapping[str, Any], folder: str) -> list[str]:
    """Return the lines of Python that open a folder in diffusers, with the padding that it was trained with.

    Args:
        config: `type` and all arguments, as `plain_config` gives them.
        folder: The place of the folder.
    """
    name = _class_for(config)
    opening = [f'from diffusers import {name}', f'autoencoder = {name}.from_pretrained({folder!r})']
    lines = _PADDING_LINES[config['padding_mode']]
    # imports first, as people write them
    count = next((number for number, line in enumerate(lines) if not line), 0)
    return [opening[0], *lines[:count], *([''] if lines else []), opening[1], *lines[count + 1 :]]


def padding_notes(config: Mapping[str, Any]) -> list[str]:
    """Return the paragraph of a model card about padding that diffusers does not know; empty for zeros."""
    mode = config.get('padding_mode', 'zeros')
    if mode == 'zeros':
        return []
    note = (
        f'It was trained with `padding_mode: {mode}`, which diffusers ignores: it pads with zeros, and the edges of '
        'images come out dark or coloured. The lines above open it with its own padding.'
    )
    return [note]


def _with_companion(folder: Path, state: dict[str, Tensor], sha256: str) -> dict[str, Any]:
    more, notes = read_file(folder / COMPANION)
    if notes.get('sha256') != sha256:
        raise ValueError(
            f'weights: {str(folder / COMPANION)!r} was written for other files than those beside it; expected '
            f'an unchanged folder; delete {COMPANION} to use the folder as diffusers does.'
        )
    state |= {key: value for key, value in more.items() if key.startswith('normalization.')}
    config, fields = notes.get('config'), notes.get('diffusers_fields')
    return dict(
        state=state,
        config=config if isinstance(config, dict) and isinstance(config.get('type'), str) else None,
        trained=below('trained', more) or None,
        discriminator=below('discriminator', more),
        log_variance=more.get('log_variance'),
        diffusers_fields=fields if isinstance(fields, dict) else {},
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        hint = "; give its folder 'vae'" if (path.parent / 'vae').is_dir() else ''
        raise FileNotFoundError(
            f'weights: the folder {str(path.parent)!r} has no {CONFIG}; expected a folder that diffusers wrote{hint}.'
        )
    try:
        fields = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'weights: {str(path)!r} is not JSON: {error}; fetch it again.') from error
    if not isinstance(fields, dict):
        raise ValueError(f'weights: {str(path)!r} is no JSON object; expected the config of an autoencoder.')
    return fields


class _OtherNetworkError(ValueError):
    """A network of diffusers that none of eqzoo's own classes is."""


def _read_own(
    name: str, fields: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what `from_diffusers` does, of a class that eqzoo has a network of its own for.

    Raises:
        _OtherNetworkError: If the fields describe a network that eqzoo's class cannot be.
        ValueError: If a value is none that diffusers accepts.
    """
    for key, value in _FIXED[name].items():
        _require(key, fields.get(key, value), value, where)
    read = {'AutoencoderKL': _read_kl, 'VQModel': _read_vq, 'AutoencoderTiny': _read_tiny}[name]
    kept = {key: fields[key] for key in _FREE[name] if key in fields}
    try:
        config, normalization = read(fields, where), _stated_normalization(fields, name)
    except (TypeError, AttributeError, LookupError) as error:
        raise ValueError(f'{where}: a value is of another type than in diffusers ({error}); fetch it again.') from error
    _check_channels(config['latent_channels'], where)
    return config, normalization, kept


def _check_channels(channels: Any, where: str) -> None:
    if not isinstance(channels, int) or not 0 < channels <= _MAX_CHANNELS:
        raise ValueError(f'{where}: got {channels!r} latent channels; expected 1 to {_MAX_CHANNELS}.')


def _read_kl(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    convs = [fields.get(f'use_{each}quant_conv', True) for each in ('', 'post_')]
    _require('use_post_quant_conv', convs[1], convs[0], where)
    return dict(
        type='KLAutoencoder',
        latent_channels=fields.get('latent_channels', 4),
        quant_conv=convs[0],
        **_read_levels(fields, where),
    )


def _read_vq(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    features = fields.get('latent_channels', 3)
    channels = fields.get('vq_embed_dim') or features
    return dict(
        type='VQAutoencoder',
        latent_channels=channels,
        num_codes=fields.get('num_vq_embeddings', 256),
        feature_channels=None if features == channels else features,
        **_read_levels(fields, where),
    )


def _read_levels(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Read the arguments that KL and VQ networks share."""
    down = fields.get('down_block_types', ['DownEncoderBlock2D'])
    up = fields.get('up_block_types', ['UpDecoderBlock2D'])
    levels = [level for level, block in enumerate(down) if block.startswith('Attn')]
    blocks = _block_types(levels, len(down))
    _require('down_block_types', list(down), blocks['down_block_types'], where)
    _require('up_block_types', list(up), blocks['up_block_types'], where)
    return dict(
        block_out_channels=list(fields.get('block_out_channels', [64])),
        layers_per_block=fields.get('layers_per_block', 1),
        attention_levels=levels,
        norm_num_groups=fields.get('norm_num_groups', 32),
    )


def _read_tiny(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    widths = [*fields.get('encoder_block_out_channels', [64] * 4), *fields.get('decoder_block_out_channels', [64] * 4)]
    blocks = list(fields.get('num_encoder_blocks', [1, 3, 3, 3]))
    _require('encoder_ and decoder_block_out_channels', widths, widths[:1] * len(widths), where)
    _require('num_decoder_blocks', list(fields.get('num_decoder_blocks', [3, 3, 3, 1])), blocks[::-1], where)
    return dict(
        type='TinyAutoencoder',
        latent_channels=fields.get('latent_channels', 4),
        num_blocks=blocks,
        width=widths[0],
    )


def _stated_normalization(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    factor = dict(scale=fields.get('scaling_factor', _DEFAULT_SCALE[name]), shift=fields.get('shift_factor') or 0.0)
    return stated_statistics(fields) or factor


def _require(key: str, given: Any, accepted: Any, where: str) -> None:
    if given != accepted:
        raise _OtherNetworkError(
            f'{where}: got {key} {given!r}; expected {accepted!r}, since eqzoo has no other network; '
            'choose another autoencoder.'
        )


def _class_for(config: Mapping[str, Any]) -> str:
    if _is_wrapped(config):
        return config['class_name']
    name = CLASSES.get(str(config['type']).rsplit('.', 1)[-1])
    problem = None
    if name is None:
        problem = f'there is no {config["type"]} in diffusers'
    elif name == 'AutoencoderKL' and config.get('feature_channels') not in (None, config['latent_channels']):
        problem = "feature_channels (LDM's z_channels other than embed_dim) are unknown to diffusers"
    elif config.get('quantizer'):
        problem = f'the quantizer {config["quantizer"]["type"]} is unknown to diffusers, whose codes would differ'
    elif config.get('pooled'):
        problem = 'pooled blocks (TAEF2) are unknown to diffusers'
    if problem:
        raise ValueError(f'convert --to diffusers: {problem}; expected eqzoo or ldm; use --to eqzoo.')
    return name


def _is_wrapped(config: Mapping[str, Any]) -> bool:
    return str(config['type']).rsplit('.', 1)[-1] == WRAPPER


def _write_wrapped(
    config: Mapping[str, Any], normalization: Mapping[str, Tensor], kept: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the config.json of a class that `DiffusersAutoencoder` wraps, and sentences, as `to_config_json` does."""
    import diffusers

    name, unsaid = config['class_name'], []
    factors = write_normalization_fields(name, normalization)
    if factors is None:
        unsaid.append(
            f"diffusers' {name} has no field for this normalisation: kept in eqzoo.safetensors; it gives raw latents"
        )
    factors = {**(factors or {}), **_padding(config, unsaid)}
    head = dict(_class_name=name, _diffusers_version=diffusers.__version__)
    return {**head, **kept, **complete_fields(name, config['fields']), **factors}, unsaid


def _padding(config: Mapping[str, Any], unsaid: list[str]) -> dict[str, str]:
    """Return the field of a padding other than zeros, and add a sentence about it to `unsaid`."""
    mode = config['padding_mode']
    if mode == 'zeros':
        return {}
    unsaid.append(
        f'diffusers ignores padding_mode {mode!r} in config.json and pads with zeros: the lines below and in README.md '
        'set it'
    )
    return dict(padding_mode=mode)


def _write_kl(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        latent_channels=config['latent_channels'],
        use_quant_conv=config['quant_conv'],
        use_post_quant_conv=config['quant_conv'],
        **_write_levels(config),
    )


def _write_vq(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        latent_channels=config['feature_channels'] or config['latent_channels'],
        vq_embed_dim=config['latent_channels'],
        num_vq_embeddings=config['num_codes'],
        **_write_levels(config),
    )


def _write_levels(config: Mapping[str, Any]) -> dict[str, Any]:
    same = ('block_out_channels', 'layers_per_block', 'norm_num_groups')
    blocks = _block_types(config['attention_levels'], len(config['block_out_channels']))
    return {**{key: config[key] for key in same}, **blocks}


def _write_tiny(config: Mapping[str, Any]) -> dict[str, Any]:
    widths = [config['width']] * len(config['num_blocks'])
    return dict(
        latent_channels=config['latent_channels'],
        num_encoder_blocks=list(config['num_blocks']),
        num_decoder_blocks=list(config['num_blocks'])[::-1],
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
    )


def _block_types(attention_levels: Sequence[int], num_levels: int) -> dict[str, list[str]]:
    attention = ['Attn' if level in attention_levels else '' for level in range(num_levels)]
    return dict(
        down_block_types=[f'{each}DownEncoderBlock2D' for each in attention],
        up_block_types=[f'{each}UpDecoderBlock2D' for each in reversed(attention)],
    )


def _write_normalization(name: str, normalization: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields for a normalisation, and a sentence if the class has no field for it."""
    shift, scale = normalization.get('shift', torch.zeros(1)), normalization.get('scale', torch.ones(1))
    is_scalar = bool((shift == shift[0]).all() and (scale == scale[0]).all())
    has_shift = dict(shift_factor=shortest(shift[0])) if name != 'VQModel' else {}
    if is_scalar and (has_shift or shift[0] == 0):
        none = dict(latents_mean=None, latents_std=None) if name == 'AutoencoderKL' else {}
        return dict(scaling_factor=shortest(scale[0]), **has_shift, **none), []
    if name == 'AutoencoderKL':
        statistics = dict(latents_mean=[shortest(each) for each in shift], latents_std=[shortest(1 / s) for s in scale])
        return dict(scaling_factor=1.0, shift_factor=None, **statistics), []
    none = dict(scaling_factor=1.0, **dict.fromkeys(has_shift, 0.0))
    kind = 'per-channel statistics' if has_shift else 'shift or per-channel statistics'
    return none, [f"diffusers' {name} has no field for {kind}: kept in eqzoo.safetensors; it gives raw latents"]
