"""Where an autoencoder's weights are in a larger file: nests, prefixes, averages and companions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eqzoo.autoencoders.files import listed

# Trained weights and their average, as files nest them: eqzoo's and LDM's; REPA-E's beside its
# generator, hence before it; MAR's, LlamaGen's and DiT's.
_NESTS = (('state_dict', 'ema_state_dict'), ('vae', None), ('model', 'ema'))

# Before an autoencoder's names: eqzoo's own checkpoints, LDM's and Stable Diffusion's, merged ones.
_PREFIXES = ('autoencoder.', 'first_stage_model.', 'vae.')

# What torch puts before names: DistributedDataParallel and AveragedModel, compile.
_WRAPPERS = ('module.', '_orig_mod.')

# What autoencoders are saved with: LDM's perceptual loss and discriminator, VA-VAE's vision encoder, averages' counts.
_COMPANIONS = ('loss.', 'foundation_model.', 'n_averaged')
_DISCRIMINATORS = ('loss.discriminator.', 'adversarial_loss.discriminator.')
_LOG_VARIANCES = ('loss.logvar', 'reconstruction_loss.log_variance')

_LIT_EMA = 'model_ema.'


@dataclass
class Parts:
    """The parts of one state dict.

    Args:
        network: The autoencoder's weights, without prefix, under the names the file has.
        average: The network's moving average, under the same names.
        discriminator: The state of eqzoo's `PatchGAN`.
        log_variance: The log-variance of the reconstruction loss, a scalar.
        left_out: Names of tensors that are none of these.
    """

    network: dict[str, Tensor]
    average: dict[str, Tensor] | None = None
    discriminator: dict[str, Tensor] = field(default_factory=dict)
    log_variance: Tensor | None = None
    left_out: tuple[str, ...] = ()


def unnest(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the trained weights in a file's content, and their average or an empty dict.

    Only tensors by name are looked at. Where a file has an average only, it is the first.
    """
    for trained_name, average_name in _NESTS:
        trained, average = _tensors(content.get(trained_name)), _tensors(content.get(average_name))
        if trained or average:
            return (trained, average) if trained else (average, {})
    nested = any(isinstance(content.get(name), Mapping) for pair in _NESTS for name in pair)
    flat = {} if nested else _tensors(content)
    average = below('ema_state_dict', flat)
    return {key: value for key, value in flat.items() if not key.startswith('ema_state_dict.')}, average


def below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `state` has under `prefix.`, without it."""
    return {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(f'{prefix}.')}


def split_parts(state: Mapping[str, Tensor]) -> Parts:
    """Take an autoencoder and its companions out of a state dict.

    Raises:
        ValueError: If a LitEma average lacks some of the network's weights.
    """
    state = {_unwrapped(key): value for key, value in state.items()}
    prefix = next((each for each in _PREFIXES if any(key.startswith(each) for key in state)), '')
    inner = {_unwrapped(key.removeprefix(prefix)): value for key, value in state.items() if key.startswith(prefix)}
    around = {**state, **inner}
    parts = Parts({key: value for key, value in inner.items() if not key.startswith((*_COMPANIONS, _LIT_EMA))})
    parts.average = _lit_ema(parts.network, below('model_ema', inner))
    for name in _DISCRIMINATORS:
        found = {key.removeprefix(name): value for key, value in around.items() if key.startswith(name)}
        # taming's discriminator is the module `network` of eqzoo's
        parts.discriminator |= {f'network.{k}' if k.startswith('main.') else k: v for k, v in found.items()}
    parts.log_variance = next((around[name] for name in _LOG_VARIANCES if name in around), None)
    used = (*_DISCRIMINATORS, *_LOG_VARIANCES, *([_LIT_EMA] if parts.average else []))
    inside = [key for key in inner if key not in parts.network and not key.startswith(used)]
    outside = [key for key in state if not key.startswith((prefix, *used))] if prefix else []
    parts.left_out = (*inside, *outside)
    return parts


def _lit_ema(network: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return LDM's average under the network's names; its own are those without dots.

    None where the average is another network's, as Stable Diffusion's is its denoiser's.
    """
    dotless = {name: name.replace('.', '') for name in network}
    missing = [name for name, short in dotless.items() if short not in average]
    if len(missing) == len(network):
        return None
    if missing:
        raise ValueError(
            f'weights: the average in model_ema.* lacks {len(missing)} of {len(network)} weights: {listed(missing)}; '
            'accepted is a whole average or none; remove model_ema.* from the file.'
        )
    return {name: average[short] for name, short in dotless.items()}


def _unwrapped(key: str) -> str:
    while key.startswith(_WRAPPERS):
        key = key.split('.', 1)[1]
    return key


def _tensors(state: object) -> dict[str, Tensor]:
    named = state.items() if isinstance(state, Mapping) else ()
    return {key: value for key, value in named if isinstance(key, str) and isinstance(value, Tensor)}
