"""Weights of frozen vision networks: finding the file, loading it, identifying it by its sha256."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eqzoo.checkpoints.read import check_finite, check_tensors, read_file
from eqzoo.files import sha256_of
from eqzoo.randomness import seeded
from eqzoo.registry import Requirement
from eqzoo.zoo import cached, fetch_command, located, resolve, weights_requirements

RANDOM = 'random'


@dataclass(frozen=True)
class KnownFile:
    """The published weights file of a network, which gives its metrics their plain names.

    Args:
        what: Its name in messages.
        sha256: Of its bytes.
        places: Where to look for it, in this order.
        remedy: The command that fetches it.
    """

    what: str
    sha256: str
    places: tuple[Path, ...]
    remedy: str

    def find(self) -> Path | None:
        """Return the first place where the file exists, or None."""
        return next((path for path in self.places if path.is_file()), None)


@dataclass(frozen=True)
class WeightsIdentity:
    """Identity of the weights that a network has loaded.

    Args:
        sha256: Of their file; None for random weights.
        is_known: Whether the file is the network's `KnownFile`.
    """

    sha256: str | None
    is_known: bool

    def key(self, name: str) -> str:
        """Return the name of a network with these weights: `name` itself for the known file only.

        Example:
            >>> WeightsIdentity('0a1b2c3d4e', is_known=False).key('effnet_lite0')
            'effnet_lite0_0a1b2c3d'
        """
        if self.is_known:
            return name
        return f'random_{name}' if self.sha256 is None else f'{name}_{self.sha256[:8]}'

    def card(self) -> str:
        """Return the hash for a card."""
        return self.sha256 or 'random weights'


def zoo_file(what: str, source: str, *names: str) -> KnownFile:
    """Return the known file that the zoo's index describes as `source`.

    It is looked for in `$EQZOO_WEIGHTS_DIR`, in `weights/`, in torch hub's cache and in eqzoo's.

    Args:
        what: Its name in messages.
        source: `eqzoo://name`; the index has its sha256.
        names: Other file names under which other projects keep the same bytes.
    """
    file = resolve(source)
    folders = [os.environ.get('EQZOO_WEIGHTS_DIR'), 'weights', Path(torch.hub.get_dir()) / 'checkpoints']
    places = [Path(folder) / name for folder in folders if folder for name in (file.name, *names)]
    downloaded = cached(source)
    return KnownFile(what, file.sha256, (*places, *([downloaded] if downloaded else [])), fetch_command(source))


def load_frozen(
    network: nn.Module,
    known: KnownFile,
    weights: str | Path | None,
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> WeightsIdentity:
    """Load weights into a network on the device 'meta', freeze it in evaluation mode, and identify the weights.

    Args:
        network: With parameters on 'meta'.
        known: The file to load if `weights` is None.
        weights: Another file, as a path or URL; or 'random', the same numbers every time.
        convert: From the file's content to the network's state dict.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read safely or does not fit, or if `weights` is None and the file found
            is not the known one.
    """
    path, identity = find_weights(known, weights)
    if path is None:
        state = random_state(network)
    else:
        content, _ = read_file(path)
        state = {name: value for name, value in convert(content).items() if isinstance(value, Tensor)}
        check_tensors(state, network.state_dict(), f'weights: {str(path)!r}')
        check_finite(state, repr(str(path)))
        state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)
    return identity


def find_weights(known: KnownFile, weights: str | Path | None) -> tuple[Path | None, WeightsIdentity]:
    """Return the file to load, None for random weights, and the identity of its weights; arguments of `load_frozen`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If `weights` is None and the file found is not the known one.
    """
    if weights == RANDOM:
        return None, WeightsIdentity(None, is_known=False)
    path = _locate(known, weights)
    sha256 = sha256_of(path)
    identity = WeightsIdentity(sha256, is_known=sha256 == known.sha256)
    if weights is None and not identity.is_known:
        raise ValueError(
            f'weights: {path} has the sha256 {sha256}; expected {known.sha256}, {known.what}. Delete the file and '
            f'fetch the right one: {known.remedy}; or give weights={str(path)!r}, which puts its hash into the '
            'names of metrics.'
        )
    return path, identity


def missing_weights(known: KnownFile, weights: str | Path | None) -> Sequence[Requirement]:
    """Return the requirement for the weights file if it does not exist; for a component's `requirements`."""
    if weights == RANDOM:
        return []
    if weights is None:
        if known.find() is not None:
            return []
        return [Requirement(known.what, ', '.join(map(str, known.places)), known.remedy)]
    return weights_requirements(known.what, weights)


def _locate(known: KnownFile, weights: str | Path | None) -> Path:
    if weights is not None:
        return located(weights)
    path = known.find()
    if path is None:
        places = ', '.join(map(str, known.places))
        raise FileNotFoundError(f'weights: {known.what} is not in {places}; fetch it: {known.remedy}')
    return path


def random_state(network: nn.Module) -> dict[str, Any]:
    """Return random weights that keep features dependent on the image.

    Scales are 1 and shifts 0; matrices and kernels have a variance of 2 / fan-in (He et al. 2015), which keeps
    the variance of activations through ReLUs.
    """
    generator, state = seeded(0), {}
    for name, like in network.state_dict().items():
        if like.ndim >= 2:
            scale = math.sqrt(2 / like[0].numel())
            state[name] = torch.randn(like.shape, generator=generator) * scale
        else:
            is_scale = name.endswith(('weight', 'gamma', 'running_var'))
            state[name] = torch.full(like.shape, int(is_scale), dtype=like.dtype)
    return state
