"""Read a generator's weights, whatever wrote them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eqzoo.autoencoders.files import read_file
from eqzoo.autoencoders.weights import check_fit
from eqzoo.generators.sizes import name_of

# Weights in a file, the first that is there: eqzoo's average and weights; DiT's, SiT's and REPA's.
_NESTS = ('ema_state_dict', 'state_dict', 'ema', 'model')

# Before a network's names: eqzoo's own; torch's DistributedDataParallel and compile.
_PREFIXES = ('generator.', 'network.', 'module.', '_orig_mod.')

# REPA's files of before its release number the blocks after the projected one anew.
_LEGACY = re.compile(r'^decoder_blocks\.(\d+)\.')
_BLOCK = re.compile(r'^blocks\.(\d+)\.')


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
        source: A safetensors or torch file: a state dict of DiT, SiT or REPA; what their
            training scripts write, `{'model', 'ema', 'opt', 'args'}`; a checkpoint of eqzoo's.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, or holds no such network.
    """
    content, _ = read_file(source)
    nest = next((content[name] for name in _NESTS if isinstance(content.get(name), Mapping)), content)
    state = {_bare(key): value for key, value in nest.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not any(_BLOCK.match(key) for key in state):
        raise ValueError(
            f'weights: {str(source)!r} holds no generator; accepted are the weights of DiT, SiT and REPA, what their '
            'training scripts write, and checkpoints of eqzoo; an autoencoder goes to model.autoencoder.weights.'
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
            f'{ours}; change size, patch_size, latent_channels, latent_size, learn_sigma and num_classes, or the file.'
        )
    check_fit(stored.state, wanted, f'{type(network).__name__}.weights: {str(source)!r}')
    network.load_state_dict(stored.state)
    return stored


def describe_state(state: Mapping[str, Tensor]) -> str:
    """Return what a state dict says of its network: size, patch, latents, outputs and classes.

    Example:
        >>> from eqzoo.generators.transformer import DiffusionTransformer
        >>> describe_state(DiffusionTransformer('S', 4, num_classes=10).state_dict())
        'size S, patch 4, latents 4 x 32 x 32, 8 output channels, 10 classes'
    """
    depth = 1 + max((int(found[1]) for found in map(_BLOCK.match, state) if found), default=-1)
    try:
        width, channels, patch, _ = state['x_embedder.proj.weight'].shape
        side = patch * round(state['pos_embed'].shape[1] ** 0.5)
        outputs = len(state['final_layer.linear.bias']) // patch**2
        classes = len(state['y_embedder.embedding_table.weight']) - 1
    except (KeyError, ValueError, IndexError):
        return f'{depth} blocks and other names than those of DiT'
    latents = f'latents {channels} x {side} x {side}'
    size = name_of(depth, width)
    return f'size {size}, patch {patch}, {latents}, {outputs} output channels, {classes:,} classes'


def _bare(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.split('.', 1)[1]
    return key


def _without_legacy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    first = 1 + max(int(found[1]) for found in map(_BLOCK.match, state) if found)
    return {_LEGACY.sub(lambda found: f'blocks.{int(found[1]) + first}.', key): value for key, value in state.items()}
