"""Perceptual losses: LPIPS and distances of features."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lpips
import torch
from torch import Tensor

from eqzoo.files import sha256_of
from eqzoo.registry import LOSSES, Requirement
from eqzoo.vision.base import FeatureExtractor
from eqzoo.zoo import cached, fetch_command

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
            'trunk_sha256': sha256_of(self._trunk) if self._trunk else 'random weights',
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


_EPSILON = 1e-10  # as LPIPS


@LOSSES.register_module()
class FeatureDistance:
    """LPIPS without learned weights, on the feature maps of a frozen extractor.

    At every place of every map the channels are scaled to unit length; the squared distance of
    the two vectors, in [0, 4], is averaged over places and summed over maps: Zhang et al. 2018,
    Eq. 1 with w = 1. It is not LPIPS, whose weights are fitted to people's judgements; it needs
    no download on `EfficientNetLite0`.

    Args:
        extractor: With `maps(images)`, as FIDInception, DINOv2 and EfficientNetLite0 have.

    Raises:
        TypeError: If it has no maps.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        if not hasattr(extractor, 'maps'):
            raise TypeError(f'FeatureDistance.extractor must have feature maps; {type(extractor).__name__} has none.')
        self.extractor = extractor

    @property
    def key(self) -> str:
        """What its values are called: 'distance_effnet_lite0'."""
        return f'distance_{self.extractor.key}'

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the distance (B,) of images (B, 3, H, W) in [-1, 1]; gradients reach both."""
        pairs = zip(self._unit_maps(reconstruction), self._unit_maps(target), strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]).sum(dim=0)

    def card(self) -> dict[str, Any]:
        """Name the distance and the network."""
        return {'distance': 'unit-length features, squared, summed over maps', 'extractor': self.extractor.card()}

    def _unit_maps(self, images: Tensor) -> list[Tensor]:
        # float32 also under autocast: differences of unit vectors are small
        maps = [each.float() for each in self.extractor.maps(127.5 * (images + 1))]
        return [each / (each.square().sum(dim=1, keepdim=True) + _EPSILON).sqrt() for each in maps]
