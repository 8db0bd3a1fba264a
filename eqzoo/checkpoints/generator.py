"""A generator's file: published sizes, weights in any known layout, and a description of the network."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from eqzoo.checkpoints.read import (
    check_finite,
    check_tensors,
    find_states,
    read_file,
    unwrapped,
    warn_of_unused,
    with_average,
)
from eqzoo.text import counted

# Keys of the weights, the first that is there: eqzoo's; DiT's, SiT's and REPA's; MaskGIT's; DeepSpeed's.
_STATE_KEYS = ('state_dict', 'model', 'model_state_dict', 'module')

# Prefixes of a network's names in eqzoo's checkpoints.
_PREFIXES = ('generator.', 'network.')

STATISTICS = 'bn.'
"""Beginning of the names of the batch norm on latents in REPA-E's generators: its autoencoder's normalisation."""

# REPA's files from before its release count the blocks after the projected one from 0.
_LEGACY = re.compile(r'^decoder_blocks\.(\d{1,6})\.')
_BLOCK = re.compile(r'^(?:blocks|transformer\.layers)\.(\d{1,6})\.')

# The arguments that decide a network's shapes; the key says whether it is of codes.
_ARGUMENTS = {
    False: 'size, patch_size, latent_channels, latent_size, learn_sigma, num_classes, mlp, norm, rope and adaln_shift',
    True: 'size, grid, num_codes and num_classes',
}

# The arguments that `adapt` allows to differ, by its names.
_CHANGES = {
    'latent_size': 'grid',
    'grid': 'grid',
    'num_classes': 'classes',
    'codes_and_classes': 'classes',
    'latent_channels': 'channels',
    'learn_sigma': 'channels',
}

_BLOCK_PARTS = {'mlp.w12.weight': 'SwiGLU', 'norm1.weight': 'RMSNorm', 'attn.q_norm.weight': 'QK norm'}


class Size(NamedTuple):
    """A transformer's size: blocks, channels of a token, attention heads."""

    depth: int
    width: int
    heads: int


SIZES = {
    'S': Size(12, 384, 6),
    'B': Size(12, 768, 12),
    'L': Size(24, 1024, 16),
    'XL': Size(28, 1152, 16),
    '1p0B': Size(24, 1536, 24),
    '1p6B': Size(28, 1792, 28),
}
"""DiT's (arXiv 2212.09748, table 1), which SiT and REPA share, and LightningDiT's larger ones."""

MASKGIT_SIZES = {'base': Size(24, 768, 16), 'big': Size(32, 1024, 16), 'huge': Size(48, 1024, 16)}
"""Those of Besnier and Chen's release (arXiv 2310.14400)."""

HALTON_SIZES = {
    'tiny': Size(6, 384, 6),
    'small': Size(12, 512, 6),
    'base': Size(12, 768, 12),
    'large': Size(24, 1024, 16),
    'xlarge': Size(28, 1152, 16),
}
"""Those of Halton-MaskGIT's release (arXiv 2503.17076), which has no weights of the last."""


def size_of(size: str | Sequence[int], known: Mapping[str, Size] = SIZES) -> Size:
    """Return the size with a published name in `known`, or check and return (depth, width, heads).

    Raises:
        ValueError: If the name is unknown, or the width cannot be cut into heads and sines.

    Example:
        >>> size_of('B')
        Size(depth=12, width=768, heads=12)
    """
    if isinstance(size, str):
        if size not in known:
            raise ValueError(f'size: got {size!r}; expected {", ".join(known)}, or (depth, width, heads).')
        return known[size]
    if len(size) != 3 or min(size) < 1 or size[1] % size[2] or size[1] % 4:
        raise ValueError(
            f'size: got {tuple(size)}; expected (depth, width, heads) with a width that heads and 4 divide, '
            f'or one of {", ".join(known)}.'
        )
    return Size(*size)


@dataclass
class GeneratorFile:
    """The content of a generator's file.

    Args:
        state: The network's weights, the average where there is one, under the published names.
        config: `type` and arguments of the generator, where the file states them.
        latents: The latents that it learned, where the file states them: the autoencoder's hash,
            `shift` and `scale`.
    """

    state: dict[str, Tensor]
    config: dict[str, Any] | None = None
    latents: dict[str, Any] | None = None


def read_generator(source: str | Path) -> GeneratorFile:
    """Read a generator, on the CPU, without running code from the file.

    Args:
        source: A safetensors or torch file: a state dict of DiT, SiT, REPA, LightningDiT or MaskGIT (both releases);
            a file of their training scripts, `{'model', 'ema', 'opt', 'args'}` or `{'iter', 'global_epoch',
            'model_state_dict', 'optimizer_state_dict'}`; a checkpoint of eqzoo.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, holds no such network, or a weight is not finite.
    """
    return parse_generator(read_file(source)[0], source)


def parse_generator(content: Mapping[str, Any], source: str | Path) -> GeneratorFile:
    """Return the generator in the content that `read_file` returned for `source`.

    Raises:
        ValueError: If it holds no such network, or a weight is not finite.
    """
    trained, average, unused = find_states(content, keys=_STATE_KEYS)
    state, averaged = _bare(trained), _bare(average)
    if not any(_BLOCK.match(key) for key in state):
        raise ValueError(
            f'weights: {str(source)!r} holds no generator; expected the weights of DiT, SiT, REPA, LightningDiT or '
            'MaskGIT, a file of their training scripts, or a checkpoint of eqzoo; an autoencoder goes to '
            'model.autoencoder.weights.'
        )
    warn_of_unused(unused, source)
    state = with_average(state, averaged, 'the average') or state
    check_finite(state, repr(str(source)))
    config, latents = content.get('generator'), content.get('latents')
    return GeneratorFile(
        _without_legacy(state),
        config if isinstance(config, Mapping) and isinstance(config.get('type'), str) else None,
        latents if isinstance(latents, Mapping) else None,
    )


def is_generator(content: Mapping[str, Any]) -> bool:
    """Return whether a file contains only a generator; files of joint training have an autoencoder."""
    return not {'vae', 'autoencoder'} & content.keys() and any(  # the names in REPA-E's files, and in eqzoo's
        _BLOCK.match(key) for key in _bare(find_states(content, keys=_STATE_KEYS).trained)
    )


def load_generator(network: nn.Module, source: str | Path) -> GeneratorFile:
    """Load a file into a network, every tensor of it, and return the file's content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another network; the message has its size.
    """
    file = read_generator(source)
    fill_generator(network, file, source)
    return file


def fill_generator(network: nn.Module, file: GeneratorFile, source: str | Path) -> None:
    """Load the content of `source` into a network, as `load_generator` does."""
    wanted = network.state_dict()
    ours, theirs = describe_state(wanted), describe_state(file.state)
    if ours != theirs:
        raise ValueError(
            f'{type(network).__name__}.weights: {str(source)!r} is of a network of {theirs}; the config describes '
            f'{ours}; change {_ARGUMENTS["tok_emb.weight" in wanted]}, or the file.{_adaptable(file.state, wanted)}'
        )
    check_tensors(file.state, wanted, f'{type(network).__name__}.weights: {str(source)!r}')
    network.load_state_dict(file.state)


def infer_network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return `type` and arguments of the network of a state dict, as far as its weights show them.

    A file shows heads only where queries and keys have norms or rotations: `size` is (depth, width, heads) with
    heads None otherwise. Of codes and classes together it shows the number, `codes_and_classes`. The block that is
    aligned (`tap`) and probabilities of dropout leave no trace.

    Args:
        state: Weights under the published names.

    Raises:
        ValueError: If they are of another network than DiT's or MaskGIT's.

    Example:
        >>> from eqzoo.generators.transformer import DiffusionTransformer
        >>> arguments = infer_network(DiffusionTransformer((2, 32, 2), 4, qk_norm=True).state_dict())
        >>> arguments['size'], arguments['patch_size'], arguments['learn_sigma'], arguments['qk_norm']
        ((2, 32, 2), 4, True, True)
    """
    depth = _depth(state)
    if len({found[1] for found in map(_BLOCK.match, state) if found}) != depth:  # a name may claim the millionth block
        raise ValueError(f'weights: blocks up to number {depth - 1} are not all there; the file lacks weights.')
    try:
        return _infer_codes(depth, state) if 'tok_emb.weight' in state else _infer_latents(depth, state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(
            f'weights: the network cannot be inferred: {depth} blocks and other names or shapes than those of DiT and '
            f'MaskGIT ({type(error).__name__}: {error}); expected the weights of DiT, SiT, REPA, LightningDiT or '
            'MaskGIT.'
        ) from None


def describe_state(state: Mapping[str, Tensor]) -> str:
    """Describe the network of a state dict: size, patch, latents, outputs and classes, or codes.

    Example:
        >>> from eqzoo.generators.transformer import DiffusionTransformer
        >>> describe_state(DiffusionTransformer('S', 4, num_classes=10).state_dict())
        'size S, patch 4, latents 4 x 32 x 32, 8 output channels, 10 classes'
    """
    describe = _describe_codes if 'tok_emb.weight' in state else _describe_latents
    try:
        return describe(state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError):
        return f'{_depth(state)} blocks and other names than those of DiT and MaskGIT'


def complete_network(stated: Mapping[str, Any] | None, state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Return the config of the network of a file: what is stated, and for the rest what the weights show.

    Args:
        stated: Arguments of the network; None for none. Those of a type that is not eqzoo's are returned as they are.
        state: Weights under the published names.
        where: The file, for the message.

    Raises:
        ValueError: If an argument is not stated that the weights do not show; the message has those that they do.
    """
    stated = dict(stated or {})
    found = infer_network(state)
    kind = stated.get('type', found['type'])
    if getattr(kind, '__name__', kind) not in (found['type'], 'DiffusionTransformer'):
        return stated
    missing, (depth, width, heads) = [], found['size']
    if heads is None and 'size' not in stated:
        known = HALTON_SIZES if found['type'] == 'HaltonTransformer' else SIZES | MASKGIT_SIZES
        names = {name: size for name, size in known.items() if size[:2] == (depth, width)}
        named = ''.join(f'; {name!r} has {size.heads}' for name, size in names.items())
        missing.append(f'the attention heads, size=({depth}, {width}, HEADS){named}')
    if found['type'] == 'AlignedTransformer' and 'tap' not in stated:
        missing.append('the block that is aligned, tap=NUMBER')
    both = found.pop('codes_and_classes', None)
    if both is not None:
        known = {'num_codes': stated.get('num_codes'), 'num_classes': stated.get('num_classes')}
        if not any(known.values()):
            missing.append(f'num_codes or num_classes, which are {both:,} together')
        elif not all(known.values()):
            one, other = known if known['num_codes'] else reversed(known)
            found[other] = both - known[one]
    if missing:
        raise ValueError(
            f'load: {where} holds a network of {describe_state(state)}; its weights do not show '
            f'{", nor ".join(missing)}; expected these in network=dict(…) of the config; the rest is inferred.'
        )
    return {**found, **stated}


def _adaptable(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return the sentence that names the changes with which the weights could be fine-tuned; empty if there is more."""
    try:
        theirs, ours = infer_network(state), infer_network(wanted)
    except ValueError:
        return ''
    differing = {key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)}
    if 'HaltonTransformer' in (theirs['type'], ours['type']):  # which has no `adapt`
        return ''
    changes = sorted({_CHANGES[key] for key in differing if key in _CHANGES})
    if not changes or not differing <= set(_CHANGES):
        return ''
    return f' To fine-tune it for these: model.generator.network.adapt="{tuple(changes)}".'


def _infer_latents(depth: int, state: Mapping[str, Tensor]) -> dict[str, Any]:
    width, channels, patch, _ = state['x_embedder.proj.weight'].shape
    outputs = len(state['final_layer.linear.bias']) // patch**2
    if outputs not in (channels, 2 * channels):
        raise ValueError(f'{outputs} output channels for {channels} of the latents')
    return dict(
        type='DiffusionTransformer',
        size=(depth, width, _heads(state, width)),
        patch_size=patch,
        latent_channels=channels,
        latent_size=patch * round(state['pos_embed'].shape[1] ** 0.5),
        num_classes=len(state['y_embedder.embedding_table.weight']) - 1,
        learn_sigma=outputs == 2 * channels,
        qk_norm='blocks.0.attn.q_norm.weight' in state,
        mlp='swiglu' if 'blocks.0.mlp.w12.weight' in state else 'gelu',
        norm='rms' if 'blocks.0.norm1.weight' in state else 'layer',
        rope='feat_rope.freqs_cos' in state,
        adaln_shift=len(state['blocks.0.adaLN_modulation.1.bias']) == 6 * width,
    ) | _infer_projectors(state)


def _infer_projectors(state: Mapping[str, Tensor]) -> dict[str, Any]:
    last = [key for key in state if re.fullmatch(r'projectors\.\d{1,6}\.4\.weight', key)]
    if not last:
        return {}
    dims = tuple(len(state[key]) for key in sorted(last, key=lambda key: int(key.split('.')[1])))
    return dict(type='AlignedTransformer', feature_dims=dims, projector_width=len(state['projectors.0.0.weight']))


def _infer_codes(depth: int, state: Mapping[str, Tensor]) -> dict[str, Any]:
    rows, width = state['tok_emb.weight'].shape
    if 'cls_emb.weight' in state:
        return dict(
            type='HaltonTransformer',
            size=(depth, width, None),
            num_codes=rows - 1,
            grid=round(len(state['pos_emb.weight']) ** 0.5),
            num_classes=len(state['cls_emb.weight']) - 1,
            registers=len(state.get('reg_tokens.weight', ())),
        )
    return dict(
        type='MaskTransformer',
        size=(depth, width, None),
        grid=round((state['pos_emb'].shape[1] - 1) ** 0.5),
        mlp_width=len(state['transformer.layers.0.1.fn.net.0.weight']),
        codes_and_classes=rows - 2,
    )


def _heads(state: Mapping[str, Tensor], width: int) -> int | None:
    """Return the number of heads, where a norm or a rotation shows the width of one."""
    if 'blocks.0.attn.q_norm.weight' in state:
        return width // len(state['blocks.0.attn.q_norm.weight'])
    if 'feat_rope.freqs_cos' in state:
        return width // state['feat_rope.freqs_cos'].shape[1]
    return None


def _depth(state: Mapping[str, Tensor]) -> int:
    return 1 + max((int(found[1]) for found in map(_BLOCK.match, state) if found), default=-1)


def _describe_latents(state: Mapping[str, Tensor]) -> str:
    depth, (width, channels, patch, _) = _depth(state), state['x_embedder.proj.weight'].shape
    side = patch * round(state['pos_embed'].shape[1] ** 0.5)
    outputs = len(state['final_layer.linear.bias']) // patch**2
    classes = len(state['y_embedder.embedding_table.weight']) - 1
    latents = f'latents {channels} x {side} x {side}'
    parts = [part for key, part in _BLOCK_PARTS.items() if f'blocks.0.{key}' in state]
    parts += ['RoPE'] if 'feat_rope.freqs_cos' in state else []
    parts += ['no adaLN shifts'] if len(state['blocks.0.adaLN_modulation.1.bias']) == 4 * width else []
    found = [f'size {_size_name(depth, width)}', f'patch {patch}', latents, f'{outputs} output channels']
    return ', '.join([*found, counted(classes, 'class'), *parts])


def _describe_codes(state: Mapping[str, Tensor]) -> str:
    rows, width = state['tok_emb.weight'].shape
    if 'cls_emb.weight' in state:  # Halton-MaskGIT's
        classes, registers = len(state['cls_emb.weight']) - 1, len(state.get('reg_tokens.weight', ()))
        side = round(len(state['pos_emb.weight']) ** 0.5)
        size = _size_name(_depth(state), width, HALTON_SIZES)
        labels = f'{counted(classes, "class")}, {counted(registers, "register")}'
        return f'size {size}, codes {side} x {side} of {rows - 1:,}, {labels}'
    side = round((state['pos_emb'].shape[1] - 1) ** 0.5)
    size = _size_name(_depth(state), width, MASKGIT_SIZES)
    return f'size {size}, codes {side} x {side}, {rows - 2:,} codes and classes together'


def _size_name(depth: int, width: int, known: Mapping[str, Size] = SIZES) -> str:
    names = {(each.depth, each.width): name for name, each in known.items()}
    return names.get((depth, width), f'({depth} blocks of {width})')


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's weights under its own names; an autoencoder and statistics of its latents are left out."""
    named = {unwrapped(key): value for key, value in state.items()}
    own = {name: value for name, value in named.items() if name.startswith(_PREFIXES[0])}
    bare = {}
    for name, value in (own or named).items():
        while name.startswith(_PREFIXES):
            name = name.split('.', 1)[1]
        if not name.startswith(STATISTICS):
            bare[name] = value
    return bare


def _without_legacy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    first = 1 + max(int(found[1]) for found in map(_BLOCK.match, state) if found)
    return {_LEGACY.sub(lambda found: f'blocks.{int(found[1]) + first}.', key): value for key, value in state.items()}
