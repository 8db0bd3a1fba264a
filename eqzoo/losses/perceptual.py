"""LPIPS: distance of images in the features of a classification network."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lpips
import torch
from torch import Tensor

from eqzoo.registry import LOSSES, Requirement
from eqzoo.zoo import cached, digest, fetch_command

# torchvision's file names, and their names in the zoo
_TRUNKS = {'vgg': 'vgg16-397923af.pth', 'alex': 'alexnet-owt-7be5be79.pth'}
_SOURCES = {'vgg': 'eqzoo://lpips-vgg16', 'alex': 'eqzoo://lpips-alexnet'}


@LOSSES.register_module()
class LPIPS:
    """Learned perceptual distance (Zhang et al. 2018), by the package `lpips`.

    The linear heads ship with the package; the ImageNet trunk is a file to be had from
    torchvision. It is looked for at `weights`, in `$EQZOO_WEIGHTS_DIR`, in `weights/`, in torch
    hub's cache and in eqzoo's; nothing is downloaded behind the user's back.

    The network is kept out of any module tree: `train()` would wake its dropout, and
    checkpoints, averages and optimizers would carry its 14.7 M constants.

    Args:
        net: The trunk: 'vgg' as LDM and EQ-VAE train, or 'alex'.
        weights: Path of the trunk's file; 'random' keeps random features, for smoke runs only.

    Raises:
        ValueError: If `net` is unknown.
        FileNotFoundError: If the trunk's file is nowhere.
    """

    def __init__(self, net: Literal['vgg', 'alex'] = 'vgg', weights: str | None = None) -> None:
        if net not in _TRUNKS:
            raise ValueError(f'LPIPS.net must be one of {", ".join(_TRUNKS)}, got {net!r}.')
        with warnings.catch_warnings():
            # lpips names torchvision's arguments as before torchvision 0.13
            warnings.filterwarnings('ignore', category=UserWarning, module='torchvision')
            network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        trunk = None if weights == 'random' else _find_trunk(net, weights)
        if trunk is not None:
            _load_trunk(network, trunk)
        self.net, self._trunk = net, trunk
        self._network = network.eval().requires_grad_(False)

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the distance (B,) of images (B, 3, H, W) in [-1, 1]."""
        if next(self._network.parameters()).device != target.device:
            self._network.to(target.device)
        return self._network(reconstruction, target).flatten()

    @property
    def key(self) -> str:
        """What its values are called: 'lpips' and 'lpips_alex', and another name for random features."""
        if self._trunk is None:
            return f'random_{self.net}'
        return 'lpips' if self.net == 'vgg' else f'lpips_{self.net}'

    def card(self) -> dict[str, Any]:
        """Say which network it is; the hash is that of the trunk's file."""
        return {
            'network': f'LPIPS 0.1 ({self.net})',
            'trunk_sha256': digest(self._trunk) if self._trunk else 'random weights',
        }

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Say that the trunk's file is missing, if it is."""
        net, weights = arguments.get('net', 'vgg'), arguments.get('weights')
        if net not in _TRUNKS or weights == 'random':
            return []
        try:
            _find_trunk(net, weights)
        except FileNotFoundError:
            places = ', '.join(str(path) for path in _places(net, weights))
            return [Requirement(f'the LPIPS trunk {_TRUNKS[net]}', places, fetch_command(_SOURCES[net]))]
        return []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the trunk that takes images of 16 pixels, with random features."""
        return {**arguments, 'net': 'vgg', 'weights': 'random'}


def _places(net: str, weights: str | None) -> list[Path]:
    if weights is not None:
        return [Path(weights)]
    folders = [os.environ.get('EQZOO_WEIGHTS_DIR'), 'weights', Path(torch.hub.get_dir()) / 'checkpoints']
    return [Path(folder) / _TRUNKS[net] for folder in folders if folder]


def _find_trunk(net: str, weights: str | None) -> Path:
    places = _places(net, weights)
    downloaded = cached(_SOURCES[net]) if weights is None else None
    for path in [*places, *([downloaded] if downloaded else [])]:
        if path.is_file():
            return path
    raise FileNotFoundError(f'LPIPS: no file {", ".join(map(str, places))}; fetch it: {fetch_command(_SOURCES[net])}')


def _load_trunk(network: lpips.LPIPS, path: Path) -> None:
    """Copy torchvision's feature layers, numbered through, into the slices of `network`."""
    state = torch.load(path, map_location='cpu', weights_only=True)
    for index in range(1, network.net.N_slices + 1):
        layers = getattr(network.net, f'slice{index}')
        layers.load_state_dict({name: state[f'features.{name}'] for name in layers.state_dict()})
