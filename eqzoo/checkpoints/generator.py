"""Published generators: their sizes, and how their weights are read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from eqzoo.checkpoints.read import check_fit, read_file


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
    """Return a size by its published name in `known`, or (depth, width, heads) checked.

    Raises:
        ValueError: If the name is unknown, or the width cannot be cut into heads and sines.

    Example:
        >>> size_of('B')
        Size(depth=12, width=768, heads=12)
    """
    if isinstance(size, str):
        if size not in known:
            raise ValueError(f'size: got {size!r}; accepted are {", ".join(known)}, or (depth, width, heads).')
        return known[size]
    if len(size) != 3 or min(size) < 1 or size[1] % size[2] or size[1] % 4:
        raise ValueError(
            f'size: got {tuple(size)}; accepted is (depth, width, heads) with a width that heads and 4 divide, '
            f'or one of {", ".join(known)}.'
        )
    return Size(*size)


def name_of(depth: int, width: int, known: Mapping[str, Size] = SIZES) -> str:
    """Return the published name of a size, or its numbers."""
    names = {(each.depth, each.width): name for name, each in known.items()}
    return names.get((depth, width), f'({depth} blocks of {width})')


# Weights in a file, the first that is there: eqzoo's average and weights; DiT's, SiT's and REPA's; MaskGIT's.
_NESTS = ('ema_state_dict', 'state_dict', 'ema', 'model', 'model_state_dict')

# Before a network's names: eqzoo's own; torch's DistributedDataParallel and compile.
_PREFIXES = ('generator.', 'network.', 'module.', '_orig_mod.')

# REPA's files of before its release number the blocks after the projected one anew.
_LEGACY = re.compile(r'^decoder_blocks\.(\d+)\.')
_BLOCK = re.compile(r'^(?:blocks|transformer\.layers)\.(\d+)\.')

# What makes a network's size, by whether it is of codes.
_ARGUMENTS = {
    False: 'size, patch_size, latent_channels, latent_size, learn_sigma and num_classes',
    True: 'size, grid, num_codes and num_classes',
}


@dataclass
class StoredGenerator:
    """A generator as a file holds it.

    Args:
        state: The network's weights, the average where there is one, under the published names.
        latents: What tells the latents it learned from others, where the file says: the
            autoencoder's hash, `shift` and `scale`.
    """

    state: dict[str, Tensor]
    latents: dict[str, Any] | None = None


def read_generator(source: str | Path) -> StoredGenerator:
    """Read a generator, on the CPU, running no code of the file.

    Args:
        source: A safetensors or torch file: a state dict of DiT, SiT, REPA or MaskGIT; what their
            training scripts write, `{'model', 'ema', 'opt', 'args'}` and `{'iter', 'global_epoch',
            'model_state_dict', 'optimizer_state_dict'}`; a checkpoint of eqzoo's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, or holds no such network.
    """
    content, _ = read_file(source)
    nest = next((content[name] for name in _NESTS if isinstance(content.get(name), Mapping)), content)
    state = {_bare(key): value for key, value in nest.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not any(_BLOCK.match(key) for key in state):
        raise ValueError(
            f'weights: {str(source)!r} holds no generator; accepted are the weights of DiT, SiT, REPA and MaskGIT, '
            'what their training scripts write, and checkpoints of eqzoo; an autoencoder goes to '
            'model.autoencoder.weights.'
        )
    latents = content.get('latents')
    return StoredGenerator(_without_legacy(state), latents if isinstance(latents, Mapping) else None)


def load_generator(network: nn.Module, source: str | Path) -> StoredGenerator:
    """Load a file into a network, every tensor of it, and return what was read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another network, saying of which size.
    """
    stored, wanted = read_generator(source), network.state_dict()
    ours, theirs = describe_state(wanted), describe_state(stored.state)
    if ours != theirs:
        raise ValueError(
            f'{type(network).__name__}.weights: {str(source)!r} is of a network of {theirs}; the config describes '
            f'{ours}; change {_ARGUMENTS["tok_emb.weight" in wanted]}, or the file.'
        )
    check_fit(stored.state, wanted, f'{type(network).__name__}.weights: {str(source)!r}')
    network.load_state_dict(stored.state)
    return stored


def describe_state(state: Mapping[str, Tensor]) -> str:
    """Return what a state dict says of its network: size, patch, latents, outputs and classes, or codes.

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
    return f'size {name_of(depth, width)}, patch {patch}, {latents}, {outputs} output channels, {classes:,} classes'


def _describe_codes(depth: int, state: Mapping[str, Tensor]) -> str:
    rows, width = state['tok_emb.weight'].shape
    side = round((state['pos_emb'].shape[1] - 1) ** 0.5)
    size = name_of(depth, width, MASKGIT_SIZES)
    return f'size {size}, codes {side} x {side}, {rows - 2:,} codes and classes together'


def _bare(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.split('.', 1)[1]
    return key


def _without_legacy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    first = 1 + max(int(found[1]) for found in map(_BLOCK.match, state) if found)
    return {_LEGACY.sub(lambda found: f'blocks.{int(found[1]) + first}.', key): value for key, value in state.items()}
