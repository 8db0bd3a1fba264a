"""Single files that ComfyUI and A1111 take as a VAE: the networks that they build, their names, and metadata.

Neither program reads an architecture from a file. ComfyUI (comfy/sd.py, class VAE) recognises the kind of network by
tensor names, and builds KL autoencoders of 128 channels with 4 levels, or 3 without `encoder.down.2.downsample`; the
channels of the latents and the 1x1 convolutions are taken from the file. It loads without strictness: weights of
another network leave random ones in their place. A1111 (modules/sd_vae.py) loads the names into the VAE of the
diffusion model in use, strictly, so that channels and 1x1 convolutions have to be that model's. Both scale latents as
the diffusion model does, and ignore a scale in the file.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqzoo.checkpoints.keys import to_ldm

# The networks that ComfyUI builds: arguments of eqzoo's classes.
_KL = dict(layers_per_block=2, attention_levels=[], norm_num_groups=32, padding_mode='zeros')
_KL_WIDTHS = ([128, 256, 512, 512], [128, 256, 512])
_TINY = dict(num_blocks=[1, 3, 3, 3], width=64, pooled=False, padding_mode='zeros')

_OTHER_NETWORK_CHANNELS = 64  # ComfyUI takes a decoder of 64 channels for HunyuanImage's
_MAX_FACTOR = 1.02  # between two scales that are said to be the same


class LatentFormat(NamedTuple):
    """The latents of a diffusion model, as ComfyUI (comfy/latent_formats.py) has them: `(z - shift) * scale`.

    Args:
        channels: Of a latent.
        scale: The factor of the latents.
        shift: Subtracted before.
        architecture: Of its VAE in the Stability AI Model Metadata Standard, with the names that SwarmUI knows.
    """

    channels: int
    scale: float
    shift: float
    architecture: str


LATENT_FORMATS = {
    'sd': LatentFormat(4, 0.18215, 0.0, 'stable-diffusion-v1/vae'),
    'sdxl': LatentFormat(4, 0.13025, 0.0, 'stable-diffusion-xl-v1-base/vae'),
    'sd3': LatentFormat(16, 1.5305, 0.0609, 'stable-diffusion-v3/vae'),
    'flux': LatentFormat(16, 0.3611, 0.1159, 'flux.1/vae'),
}
"""The values of `tools/convert.py --latents`."""


def to_comfyui(
    config: Mapping[str, Any], network: Mapping[str, Tensor], normalization: Mapping[str, Tensor], latents: str | None
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Return the tensors of a VAE for ComfyUI and A1111, their metadata, and sentences about what differs there.

    A KL autoencoder gets LDM's names without a prefix, a tiny one those under which ComfyUI joins taesd's two files.
    `vae_scale` and `vae_shift` of the latter take latents of the diffusion model to those of the autoencoder,
    `(z - vae_shift) * vae_scale`.

    Args:
        config: `type` and arguments of the autoencoder.
        network: Its weights under diffusers' names.
        normalization: Its `shift` and `scale`, each (C,), or nothing for raw latents.
        latents: One of `LATENT_FORMATS`: the diffusion model whose latents it has. None is the one of as many
            channels with the nearest scale, for a KL autoencoder.

    Raises:
        ValueError: If ComfyUI would build another network from these weights, or the latents are not of that model.
    """
    kind = str(config['type']).rpartition('.')[2]
    _check_network(config, kind)
    name = latents or _nearest_format(config, normalization)
    channels = config['latent_channels']
    if name is not None and LATENT_FORMATS[name].channels != channels:
        fitting = [each for each, value in LATENT_FORMATS.items() if value.channels == channels]
        raise ValueError(
            f'convert --latents {name}: its latents have {LATENT_FORMATS[name].channels} channels, the autoencoder '
            f'{channels}; expected {" or ".join(fitting) or "nothing, since none has as many"}.'
        )
    if kind == 'TinyAutoencoder':
        if name is None:
            raise ValueError(
                'convert --to comfyui: a tiny autoencoder needs the scale of the diffusion model whose latents it '
                f'has; give --latents {{{",".join(LATENT_FORMATS)}}}.'
            )
        state = {f'taesd_{key}': value for key, value in to_ldm(network).items()}
        return {**state, **_tiny_scale(LATENT_FORMATS[name], normalization)}, _modelspec(name), []
    return to_ldm(network), _modelspec(name), _differences(name, config, normalization)


def _check_network(config: Mapping[str, Any], kind: str) -> None:
    problem = None
    if kind not in ('KLAutoencoder', 'TinyAutoencoder'):
        problem = f'they have no {kind}'
    for key, value in {'KLAutoencoder': _KL, 'TinyAutoencoder': _TINY}.get(kind, {}).items():
        if problem is None and config[key] != value:
            problem = f'they build it with {key} {value}, whatever the file has; it has {config[key]}'
    if problem is None and kind == 'KLAutoencoder':
        if config['block_out_channels'] not in _KL_WIDTHS:
            problem = f'they build it with block_out_channels {_KL_WIDTHS[0]}; it has {config["block_out_channels"]}'
        elif _OTHER_NETWORK_CHANNELS in (config['latent_channels'], config['feature_channels']):
            problem = f'ComfyUI builds another network for {_OTHER_NETWORK_CHANNELS} channels'
    if problem:
        raise ValueError(
            f'convert --to comfyui: ComfyUI and A1111 cannot open this {kind}: {problem}; expected SD-VAE, SDXL-VAE, '
            'SD3-VAE, FLUX.1-VAE, TAESD or a fine-tuned one of these; use --to eqzoo, ldm or diffusers.'
        )


def _nearest_format(config: Mapping[str, Any], normalization: Mapping[str, Tensor]) -> str | None:
    """Return the latent format of as many channels whose scale is nearest to the autoencoder's; None without any."""
    if str(config['type']).endswith('TinyAutoencoder') or not normalization:
        return None
    scale = normalization['scale'].double().log().mean().item()
    fitting = {key: each for key, each in LATENT_FORMATS.items() if each.channels == config['latent_channels']}
    return min(fitting, key=lambda key: abs(math.log(fitting[key].scale) - scale), default=None)


def _tiny_scale(latents: LatentFormat, normalization: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `vae_scale` and `vae_shift` of ComfyUI's TAESD.

    A generator's latents are (z - shift) scale of the autoencoder's, and (x - S) F of ComfyUI's x, with the
    diffusion model's F and S. So z = (x - (S - shift scale / F)) F / scale.
    """
    shift, scale = (
        normalization.get(key, torch.full((1,), default)).double() for key, default in (('shift', 0.0), ('scale', 1.0))
    )
    if not (shift == shift[0]).all() or not (scale == scale[0]).all():
        raise ValueError(
            'convert --to comfyui: ComfyUI has one scale and one shift for all channels of a tiny autoencoder, and '
            'these latents have one for each; expected one; measure them again: python tools/latent_stats.py CONFIG '
            'FILE --normalization shift_scale.'
        )
    factor = latents.scale / scale[0]
    offset = latents.shift - shift[0] / factor
    return {'vae_scale': factor.float(), 'vae_shift': offset.float()}


def _modelspec(name: str | None) -> dict[str, str]:
    if name is None:  # the standard requires an architecture
        return {}
    flux = 'https://github.com/black-forest-labs/flux'
    return {
        'modelspec.sai_model_spec': '1.0.0',
        'modelspec.architecture': LATENT_FORMATS[name].architecture,
        'modelspec.implementation': flux if name == 'flux' else 'https://github.com/Stability-AI/generative-models',
    }


def _differences(name: str | None, config: Mapping[str, Any], normalization: Mapping[str, Tensor]) -> list[str]:
    """Return sentences about latents that the programs scale otherwise, and about A1111's narrower choice."""
    found = []
    shift, scale = (normalization.get(key) for key in ('shift', 'scale'))
    if name is not None and scale is not None:
        stated = LATENT_FORMATS[name]
        ratio = (scale.double() / stated.scale).log().abs().max().exp().item()
        if ratio > _MAX_FACTOR or ((shift.double() - stated.shift) * stated.scale).abs().max() > _MAX_FACTOR - 1:
            found.append(
                f"these programs scale latents as {name}'s diffusion model does, (z - {stated.shift:g}) * "
                f'{stated.scale:g}, not as measured here: the diffusion model has to be trained with that'
            )
    if config['latent_channels'] not in (4, 16) or (config['latent_channels'] == 4) != config['quant_conv']:
        found.append('A1111 takes VAEs of 4 channels with quant_conv (SD, SDXL) and of 16 without (SD3) only')
    return found
