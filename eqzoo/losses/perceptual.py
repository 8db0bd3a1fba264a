"""Perceptual losses: LPIPS, and distances of a frozen network's features."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eqzoo.files import expand_home, sha256_of
from eqzoo.registry import LOSSES, Requirement
from eqzoo.vision.base import Dtype, FeatureExtractor, dtype_card, dtype_suffix
from eqzoo.zoo import cached, fetch_command

# torchvision's file names of the trunks, and their names in the zoo
_TRUNKS = {'vgg': 'vgg16-397923af.pth', 'alex': 'alexnet-owt-7be5be79.pth'}
_SOURCES = {'vgg': 'eqzoo://lpips-vgg16', 'alex': 'eqzoo://lpips-alexnet'}
_EPSILON = 1e-10  # under the root of the channels' length, as in LPIPS


@LOSSES.register_module()
class LPIPS:
    """Learned perceptual distance of images (arXiv 1801.03924), from the package `lpips`.

    The linear heads come with the package; the ImageNet trunk is a file of torchvision's. It is searched for at
    `weights`, in `$EQZOO_WEIGHTS_DIR`, in `weights/`, in torch hub's cache and in eqzoo's; it is never
    downloaded without being asked for.

    The network is no submodule: `train()` would switch on its dropout, and checkpoints, averages and
    optimizers would contain its 14.7 M constants.

    Args:
        net: The trunk: 'vgg', used to train LDM and EQ-VAE, or 'alex'.
        weights: Path of the trunk's file; 'random' keeps random features, for smoke runs only.
        dtype: Of the trunk's weights and activations; features are compared in float32. 'bfloat16' is for GPUs, and
            makes another metric, `lpips_bf16` (docs/performance.md has the difference).

    Raises:
        ValueError: If `net` is unknown, or the trunk's file is of another network or cannot be read.
        FileNotFoundError: If the trunk's file is not found.
    """

    def __init__(
        self,
        net: Literal['vgg', 'alex'] = 'vgg',
        weights: str | Path | None = None,
        *,
        dtype: Dtype = 'float32',
    ) -> None:
        # imported here: with torchvision it takes seconds to import
        import lpips

        with warnings.catch_warnings():
            # lpips passes arguments that torchvision renamed in 0.13
            warnings.filterwarnings('ignore', category=UserWarning, module='torchvision')
            network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        trunk = None if weights == 'random' else _find_trunk(net, weights)
        if trunk is not None:
            _load_trunk(network, trunk)
        self.net, self.dtype, self._trunk = net, dtype, trunk
        self._network = network.eval().requires_grad_(False)
        self._network.net.to(getattr(torch, dtype))

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the distances (B,) of images (B, 3, H, W) in [-1, 1]."""
        if next(self._network.parameters()).device != target.device:
            self._network.to(target.device)
        if self.dtype == 'float32' and torch.is_grad_enabled():
            # in a training, the target's activations are not kept for the backward pass
            return self._network(reconstruction, target).flatten()
        return self._distances(reconstruction, target)

    def _distances(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the same distances (B,) from one pass over both images (arXiv 1801.03924, Eq. 1).

        On a CPU VGG takes 0.85 to 1.0 of the time for it (docs/performance.md); values differ by rounding, 2e-7.
        """
        from lpips import normalize_tensor

        pair = self._network.scaling_layer(torch.cat([reconstruction, target]))
        maps = self._network.net(pair.to(getattr(torch, self.dtype), memory_format=torch.channels_last))
        total = torch.zeros(len(target), device=target.device)
        for layer, values in zip(self._network.lins, maps, strict=True):
            # float32 also of bfloat16's maps, which would round small differences of unit vectors away
            first, second = normalize_tensor(values.float()).chunk(2)
            total = total + layer((first - second).square()).mean(dim=(1, 2, 3))
        return total

    @property
    def key(self) -> str:
        """Metric name: 'lpips' or 'lpips_alex'; random features have another name."""
        if self._trunk is None:
            return f'random_{self.net}{dtype_suffix(self.dtype)}'
        return ('lpips' if self.net == 'vgg' else f'lpips_{self.net}') + dtype_suffix(self.dtype)

    def card(self) -> dict[str, Any]:
        """Describe the network for a metric card, with the hash of the trunk's file."""
        return {
            'network': f'LPIPS 0.1 ({self.net})',
            'trunk_sha256': sha256_of(self._trunk) if self._trunk else 'random weights',
            **dtype_card(self.dtype),
        }

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Return the trunk's file if it is missing."""
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
        """Return the arguments for random features of VGG, which takes images of 16 pixels."""
        return {**arguments, 'net': 'vgg', 'weights': 'random'}


@LOSSES.register_module()
class FeatureDistance:
    """Distance of a frozen extractor's feature maps: LPIPS without learned weights (arXiv 1801.03924, Eq. 1, w = 1).

    At every place of every map the channels are scaled to unit length; the squared distance of the two
    vectors, in [0, 4], is averaged over places and summed over maps. Unlike LPIPS, whose weights are fitted to human
    judgements, it needs no download with `EfficientNetLite0`.

    Args:
        extractor: A network with `maps(images)`: FIDInception, DINOv2 or EfficientNetLite0.

    Raises:
        ValueError: If the extractor has no maps.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        if not hasattr(extractor, 'maps'):
            raise ValueError(f'FeatureDistance.extractor must have feature maps, got {type(extractor).__name__}.')
        self.extractor = extractor

    @property
    def key(self) -> str:
        """Metric name, for instance 'distance_effnet_lite0'."""
        return f'distance_{self.extractor.key}'

    def __call__(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Return the distances (B,) of images (B, 3, H, W) in [-1, 1]; gradients reach both."""
        pairs = zip(self._unit_maps(reconstruction), self._unit_maps(target), strict=True)
        return torch.stack([(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]).sum(dim=0)

    def card(self) -> dict[str, Any]:
        """Describe distance and network for a metric card."""
        return {'distance': 'unit-length features, squared, summed over maps', 'extractor': self.extractor.card()}

    def _unit_maps(self, images: Tensor) -> list[Tensor]:
        # float32 also under autocast, whose bfloat16 rounds small differences of unit vectors away
        maps = [each.float() for each in self.extractor.maps(127.5 * (images + 1))]
        return [each / (each.square().sum(dim=1, keepdim=True) + _EPSILON).sqrt() for each in maps]


def _places(net: str, weights: str | None) -> list[Path]:
    if weights is not None:
        return [expand_home(weights)]
    folders = [os.environ.get('EQZOO_WEIGHTS_DIR'), 'weights', Path(torch.hub.get_dir()) / 'checkpoints']
    return [Path(folder) / _TRUNKS[net] for folder in folders if folder]


def _find_trunk(net: str, weights: str | None) -> Path:
    places = _places(net, weights)
    downloaded = cached(_SOURCES[net]) if weights is None else None
    for path in [*places, *([downloaded] if downloaded else [])]:
        if path.is_file():
            return path
    raise FileNotFoundError(f'LPIPS: no file {", ".join(map(str, places))}; fetch it: {fetch_command(_SOURCES[net])}')


def _load_trunk(network: nn.Module, path: Path) -> None:
    """Load torchvision's consecutively numbered feature layers into the slices of `network`.

    Raises:
        ValueError: If the file cannot be read, or is of another network.
    """
    from eqzoo.checkpoints.read import check_finite, check_tensors, read_file

    state, _ = read_file(path)
    slices = [getattr(network.net, f'slice{index}') for index in range(1, network.net.N_slices + 1)]
    wanted = {f'features.{name}': value for layers in slices for name, value in layers.state_dict().items()}
    found = {name: value for name, value in state.items() if name in wanted}  # not the classifier's
    check_tensors(found, wanted, f'LPIPS.weights: {path}')
    check_finite(found, str(path))
    for layers in slices:
        layers.load_state_dict({name: found[f'features.{name}'] for name in layers.state_dict()})
