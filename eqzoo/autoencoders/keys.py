"""Names of autoencoder weights: LDM's, taming's, taesd's and diffusers' older ones, turned into diffusers' present."""

from collections.abc import Mapping

from torch import Tensor

# Where an autoencoder sits in a larger file: eqzoo's own checkpoints, LDM's and Stable Diffusion's, merged ones.
_PREFIXES = ('autoencoder.', 'first_stage_model.', 'vae.')

# What autoencoders are saved with: LDM's perceptual loss and discriminator, VA-VAE's vision encoder.
_COMPANIONS = ('loss.', 'foundation_model.')

# LDM's word (below: older diffusers' in attention blocks) -> diffusers' word. No word means two things.
_WORDS = {
    'down': 'down_blocks',
    'up': 'up_blocks',
    'mid': 'mid_block',
    'block': 'resnets',
    'attn': 'attentions',
    'downsample': 'downsamplers.0',
    'upsample': 'upsamplers.0',
    'block_1': 'resnets.0',
    'block_2': 'resnets.1',
    'attn_1': 'attentions.0',
    'nin_shortcut': 'conv_shortcut',
    'norm_out': 'conv_norm_out',
    'norm': 'group_norm',
    'q': 'to_q',
    'k': 'to_k',
    'v': 'to_v',
    'proj_out': 'to_out.0',
    'query': 'to_q',
    'key': 'to_k',
    'value': 'to_v',
    'proj_attn': 'to_out.0',
}


def select_autoencoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take an autoencoder's weights out of a file's, without prefix and without its training losses."""
    for prefix in _PREFIXES:
        if any(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            break
    return {key: value for key, value in state.items() if not key.startswith(_COMPANIONS)}


def to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an autoencoder's weights from any known layout to that of diffusers' own classes.

    Names that are diffusers' already, or unknown, stay as they are. LDM counts `decoder.up`
    by resolution, diffusers in order of execution; LDM's attention has 1x1 convolutions,
    diffusers' has linear layers.

    Args:
        state: Weights by name, without a prefix (see `select_autoencoder`).

    Example:
        >>> list(to_diffusers({'encoder.mid.attn_1.q.bias': Tensor(4)}))
        ['encoder.mid_block.attentions.0.to_q.bias']
    """
    state = _name_tiny(state)
    levels = [int(key.split('.')[2]) for key in state if key.startswith('decoder.up.')]
    renamed = {}
    for key, value in state.items():
        words = key.split('.')
        if key.startswith('decoder.up.'):
            words[2] = str(max(levels) - int(words[2]))
        name = '.'.join(_WORDS.get(word, word) for word in words)
        is_pointwise = '.attentions.' in name and value.ndim == 4 and value.shape[2:] == (1, 1)
        renamed[name] = value[:, :, 0, 0] if is_pointwise else value
    return renamed


def _name_tiny(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename taesd's numbered layers; its decoder counts a clamp without weights that diffusers does not."""
    renamed = {}
    for key, value in state.items():
        network, _, rest = key.partition('.')
        number, _, tail = rest.partition('.')
        if network in ('encoder', 'decoder') and number.isdigit():
            key = f'{network}.layers.{int(number) - (network == "decoder")}.{tail}'
        renamed[key] = value
    return renamed
