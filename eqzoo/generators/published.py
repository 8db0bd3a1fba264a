"""Read a generator's weights, whatever wrote them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eqzoo.autoencoders.files import read_file
from eqzoo.autoencoders.weights import check_fit
from eqzoo.generators.sizes import MASKGIT_SIZES, name_of

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
