"""Weights of feature extractors: where they are, and which they are by their hash."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqzoo.checkpoints.read import check_tensors, read_file
from eqzoo.files import sha256_of
from eqzoo.randomness import seeded
from eqzoo.registry import Requirement
from eqzoo.zoo import cached, fetch_command, located, resolve, weights_requirements

RANDOM = 'random'


@dataclass(frozen=True)
class KnownFile:
    """The file of weights that an extractor's plain name stands for.

    Args:
        what: What messages call it.
        sha256: Of its bytes.
        places: Where it is looked for, in this order.
        remedy: The command that gets it.
    """

    what: str
    sha256: str
    places: tuple[Path, ...]
    remedy: str

    def find(self) -> Path | None:
        """Return where the file is, if it is anywhere."""
        return next((path for path in self.places if path.is_file()), None)


@dataclass(frozen=True)
class Identity:
    """Which weights a network has.

    Args:
        sha256: Of their file; None for random ones.
        is_known: Whether it is the file that the extractor's plain name stands for.
    """

    sha256: str | None
    is_known: bool

    def key(self, name: str) -> str:
        """Return what metrics on these weights are called after: `name` itself for the known file alone.

        Example:
            >>> Identity('0a1b2c3d4e', is_known=False).key('effnet_lite0')
            'effnet_lite0_0a1b2c3d'
        """
        if self.is_known:
            return name
        return f'random_{name}' if self.sha256 is None else f'{name}_{self.sha256[:8]}'

    def card(self) -> str:
        """Return the hash for a card."""
        return self.sha256 or 'random weights'


def of_the_zoo(what: str, source: str, *names: str) -> KnownFile:
    """Return the file of the zoo's `source`, with what the index knows of it.

    It is looked for in `$EQZOO_WEIGHTS_DIR`, in `weights/`, in torch hub's cache and in eqzoo's.

    Args:
        what: What messages call it.
        source: `eqzoo://name`; the index has its sha256.
        names: Further names that others keep the same file under.
    """
    file = resolve(source)
    folders = [os.environ.get('EQZOO_WEIGHTS_DIR'), 'weights', Path(torch.hub.get_dir()) / 'checkpoints']
    places = [Path(folder) / name for folder in folders if folder for name in (file.name, *names)]
    downloaded = cached(source)
    return KnownFile(what, file.sha256, (*places, *([downloaded] if downloaded else [])), fetch_command(source))


def load_weights(
    network: nn.Module,
    known: KnownFile,
    weights: str | Path | None,
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Identity:
    """Give weights to a network on the device 'meta', freeze it, and say which weights they are.

    Args:
        network: In any mode; it is put into evaluation mode.
        known: The file to take where `weights` is None.
        weights: Another file, as a path or URL; or 'random', the same numbers every time.
        convert: From the file's content to the network's state dict.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read safely, does not fit, or is not the known file where
            `weights` is None.
    """
    if weights == RANDOM:
        state, identity = _random_state(network), Identity(None, is_known=False)
    else:
        path = _found(known, weights)
        sha256 = sha256_of(path)
        identity = Identity(sha256, is_known=sha256 == known.sha256)
        if weights is None and not identity.is_known:
            raise ValueError(
                f'weights: {path} has the sha256 {sha256}; accepted is {known.sha256}, {known.what}. Delete it and get '
                f'that: {known.remedy}; or give weights={str(path)!r}, and metrics will be called after its hash.'
            )
        content, _ = read_file(path)
        state = {name: value for name, value in convert(content).items() if isinstance(value, Tensor)}
        check_tensors(state, network.state_dict(), f'weights: {str(path)!r}')
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)
    return identity


def requirements(known: KnownFile, weights: str | Path | None) -> Sequence[Requirement]:
    """Say that the file is missing, if it is; for a component's method of that name."""
    if weights == RANDOM:
        return []
    if weights is None:
        if known.find() is not None:
            return []
        return [Requirement(known.what, ', '.join(map(str, known.places)), known.remedy)]
    return weights_requirements(known.what, weights)


def _found(known: KnownFile, weights: str | Path | None) -> Path:
    if weights is not None:
        return located(weights)
    path = known.find()
    if path is None:
        places = ', '.join(map(str, known.places))
        raise FileNotFoundError(f'weights: {known.what} is not in {places}; get it: {known.remedy}')
    return path


def _random_state(network: nn.Module) -> dict[str, Any]:
    """Return features that depend on the image: scales of one, shifts of zero, products that keep the variance."""
    generator, state = seeded(0), {}
    for name, like in network.state_dict().items():
        if like.ndim >= 2:
            scale = math.sqrt(2 / like[0].numel())
            state[name] = torch.randn(like.shape, generator=generator) * scale
        else:
            is_scale = name.endswith(('weight', 'gamma', 'running_var'))
            state[name] = torch.full(like.shape, int(is_scale), dtype=like.dtype)
    return state
