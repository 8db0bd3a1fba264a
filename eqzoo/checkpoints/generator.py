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
    False: 'size, patch_size, latent_channels, latent_size, learn_sigma and num_classes',
    True: 'size, grid, num_codes and num_classes',
}


class Size(NamedTuple):
    """A transformer's size: blocks, channels of a token, attention heads."""

    depth: int
    width: int
    heads: int


SIZES = {'S': Size(12, 384, 6), 'B': Size(12, 768, 12), 'L': Size(24, 1024, 16), 'XL': Size(28, 1152, 16)}
"""DiT's (arXiv 2212.09748, table 1), which SiT and REPA share."""

MASKGIT_SIZES = {'base': Size(24, 768, 16), 'big': Size(32, 1024, 16), 'huge': Size(48, 1024, 16)}
"""Those of Besnier and Chen's release (arXiv 2310.14400)."""


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
        source: A safetensors or torch file: a state dict of DiT, SiT, REPA or MaskGIT; a file of
            their training scripts, `{'model', 'ema', 'opt', 'args'}` or `{'iter', 'global_epoch',
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
            f'weights: {str(source)!r} holds no generator; expected the weights of DiT, SiT, REPA or MaskGIT, '
            'a file of their training scripts, or a checkpoint of eqzoo; an autoencoder goes to '
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
    """Return whether the content of a file is a generator's alone; files of joint training have an autoencoder."""
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
            f'{ours}; change {_ARGUMENTS["tok_emb.weight" in wanted]}, or the file.'
        )
    check_tensors(file.state, wanted, f'{type(network).__name__}.weights: {str(source)!r}')
    network.load_state_dict(file.state)


def describe_state(state: Mapping[str, Tensor]) -> str:
    """Describe the network of a state dict: size, patch, latents, outputs and classes, or codes.

    Example:
        >>> from eqzoo.generators.transformer import DiffusionTransformer
        >>> describe_state(DiffusionTransformer('S', 4, num_classes=10).state_dict())
        'size S, patch 4, latents 4 x 32 x 32, 8 output channels, 10 classes'
    """
    depth = 1 + max((int(found[1]) for found in map(_BLOCK.match, state) if found), default=-1)
    describe = _describe_codes if 'tok_emb.weight' in state else _describe_latents
    try:
        return describe(depth, state)
    except (KeyError, ValueError, IndexError):
        return f'{depth} blocks and other names than those of DiT and MaskGIT'


def _describe_latents(depth: int, state: Mapping[str, Tensor]) -> str:
    width, channels, patch, _ = state['x_embedder.proj.weight'].shape
    side = patch * round(state['pos_embed'].shape[1] ** 0.5)
    outputs = len(state['final_layer.linear.bias']) // patch**2
    classes = len(state['y_embedder.embedding_table.weight']) - 1
    latents = f'latents {channels} x {side} x {side}'
    return f'size {_size_name(depth, width)}, patch {patch}, {latents}, {outputs} output channels, {classes:,} classes'


def _describe_codes(depth: int, state: Mapping[str, Tensor]) -> str:
    rows, width = state['tok_emb.weight'].shape
    side = round((state['pos_emb'].shape[1] - 1) ** 0.5)
    size = _size_name(depth, width, MASKGIT_SIZES)
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
