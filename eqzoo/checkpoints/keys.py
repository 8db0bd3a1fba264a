"""Names of autoencoder weights: from LDM, taming, LlamaGen, taesd and older diffusers to diffusers, and back to LDM."""

import re
from collections.abc import Mapping

from torch import Tensor

# LDM's word (below: older diffusers' in attention blocks) -> diffusers' word. No word has two meanings.
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
# Names of LDM, of older diffusers and of taesd. Without any, a state dict has diffusers' names, also of networks whose
# words would be taken for LDM's.
_FOREIGN = re.compile(
    r'(taesd_)?(encoder|decoder)\.((down|mid|up)\.|\d{1,4}\.)|.*\.attentions\.\d+\.(query|key|value|proj_attn)\.'
)

# FLUX.2's own files have the 1x1 convolutions inside of the networks
_OUTSIDE = re.compile(r'^(encoder|decoder)\.((post_)?quant_conv\.)')

# a level of the decoder, up to a number that a network can have
_LDM_LEVEL = re.compile(r'decoder\.up\.(\d{1,4})\.')

# LlamaGen's names, before LDM's words in them; its decoder counts levels in order of execution, as diffusers does.
_LLAMAGEN_LEVELS = ('encoder.conv_blocks.', 'decoder.conv_blocks.')
_LLAMAGEN = (
    ('encoder.conv_blocks.', 'encoder.down_blocks.'),
    ('decoder.conv_blocks.', 'decoder.up_blocks.'),
    ('.res.', '.resnets.'),
    ('.mid.0.', '.mid_block.resnets.0.'),
    ('.mid.1.', '.mid_block.attentions.0.'),
    ('.mid.2.', '.mid_block.resnets.1.'),
    # all its published codebooks are normalised before use, which eqzoo's name of the table says
    ('quantize.embedding.', 'quantize.directions.'),
)

_OLD_DIFFUSERS = ('query', 'key', 'value', 'proj_attn')

# diffusers' words -> LDM's, longest first: 'resnets.0' has another meaning in the middle block.
_LDM_WORDS = {
    'mid_block.resnets.0': 'mid.block_1',
    'mid_block.resnets.1': 'mid.block_2',
    'mid_block.attentions.0': 'mid.attn_1',
    **{new: old for old, new in _WORDS.items() if old not in _OLD_DIFFUSERS and not old.endswith('_1')},
}


def to_diffusers(state: Mapping[str, Tensor], *, numbered: bool = True) -> dict[str, Tensor]:
    """Rename an autoencoder's weights from any known layout to that of diffusers' own classes.

    Names that are diffusers' already, or unknown, stay as they are. LDM counts `decoder.up`
    by resolution, diffusers in order of execution; LDM's attention has 1x1 convolutions,
    diffusers' has linear layers.

    Args:
        state: Weights by name, without a prefix.
        numbered: Whether layers with numbers for names are taesd's.

    Example:
        >>> list(to_diffusers({'encoder.mid.attn_1.q.bias': Tensor(4)}))
        ['encoder.mid_block.attentions.0.to_q.bias']
    """
    if not any(map(_FOREIGN.match, state)):
        return dict(state)
    state = _name_tiny(state) if numbered else state
    state = _name_llamagen(state) if any(key.startswith(_LLAMAGEN_LEVELS) for key in state) else state
    levels = [int(found[1]) for found in map(_LDM_LEVEL.match, state) if found]
    renamed = {}
    for key, value in state.items():
        words = key.split('.')
        if _LDM_LEVEL.match(key):
            words[2] = str(max(levels) - int(words[2]))
        name = '.'.join(_WORDS.get(word, word) for word in words)
        name = _OUTSIDE.sub(r'\2', name)
        is_pointwise = '.attentions.' in name and value.ndim == 4 and value.shape[2:] == (1, 1)
        renamed[name] = value[:, :, 0, 0] if is_pointwise else value
    return renamed


def to_ldm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an autoencoder's weights from diffusers' present layout to LDM's, the inverse of `to_diffusers`.

    Those of a tiny autoencoder become taesd's numbered layers, under `encoder.` and `decoder.`.

    Example:
        >>> list(to_ldm({'encoder.mid_block.attentions.0.to_q.bias': Tensor(4)}))
        ['encoder.mid.attn_1.q.bias']
    """
    levels = [int(key.split('.')[2]) for key in state if key.startswith('decoder.up_blocks.')]
    renamed = {}
    for key, value in state.items():
        words = key.split('.')
        if key.startswith('decoder.up_blocks.'):
            words[2] = str(max(levels) - int(words[2]))
        elif words[1:2] == ['layers']:
            words[1:3] = [str(int(words[2]) + (words[0] == 'decoder'))]
        name = f'.{".".join(words)}.'
        for new, old in _LDM_WORDS.items():
            name = name.replace(f'.{new}.', f'.{old}.')
        is_linear = '.attentions.' in key and value.ndim == 2
        renamed[name.strip('.')] = value[:, :, None, None] if is_linear else value
    return renamed


def _name_llamagen(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parts of LlamaGen's tokenizer that LDM has other words for."""
    renamed = {}
    for key, value in state.items():
        for theirs, ours in _LLAMAGEN:
            key = key.replace(theirs, ours)
        renamed[key] = value
    return renamed


def _name_tiny(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Rename taesd's numbered layers; its decoder counts a clamp without weights that diffusers does not."""
    renamed = {}
    for key, value in state.items():
        network, _, rest = key.partition('.')
        network = network.removeprefix('taesd_')  # ComfyUI's names
        number, _, tail = rest.partition('.')
        if network in ('encoder', 'decoder') and number.isdecimal() and len(number) < 5:
            key = f'{network}.layers.{int(number) - (network == "decoder")}.{tail}'
        renamed[key] = value
    return renamed
