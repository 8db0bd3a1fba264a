"""The Inception network of FID: TensorFlow's of 2015-12-05, in torch-fidelity's conversion."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.registry import VISION, Requirement
from eqzoo.vision.base import Dtype, FeatureExtractor, Features, dtype_card, dtype_suffix
from eqzoo.vision.folding import fold_batch_norms
from eqzoo.vision.weights import KnownFile, load_frozen, missing_weights, zoo_file

_SIZE = 299
_NUM_SPATIAL_CHANNELS = 7  # of 192, as in ADM's evaluator

# What each way of resizing adds to the names of metrics. The second is pytorch-fid's; its name has no 'fid' in it,
# because networks with other weights than the pinned ones get it too.
_VARIANTS = {'tf1': '', 'pytorch-fid': '_halfpixel'}


@VISION.register_module()
class FIDInception(FeatureExtractor):
    """The network of FID, sFID, Inception Score and, as in ADM, of precision and recall.

    On the pinned weights (sha256 6726825d…) a Fréchet distance is called `fid`, or `fid_halfpixel` if images
    are resized as in pytorch-fid; on any other weights it is `fd_random_inception` or `fd_inception_<hash>`.

    - `pooled` (B, 2048): `pool_3:0` of the TensorFlow graph.
    - `spatial` (B, 2023): the first 7 channels of `mixed_6/conv` after its ReLU, flattened in
      the order height, width, channel. (In torch's order sFID would be 299 instead of 6.14.)
    - `logits` (B, 1008): the pooled features times the classifier's weight, without its bias.

    Args:
        weights: The file's path or URL. Default: looked for in `$EQZOO_WEIGHTS_DIR`, in
            `weights/`, in torch hub's cache and in eqzoo's. 'random' for smoke runs only.
        resize: To 299 pixels: 'tf1', without half-pixel centres or antialiasing, as the graph
            itself does (ADM, torch-fidelity); or 'pytorch-fid', with half-pixel centres, as in the rFID of
            EQ-VAE and LightningDiT.
        dtype: Of weights and activations. 'bfloat16' is for GPUs, and makes another metric, `fid_bf16`
            (docs/metrics.md has the difference).

    Raises:
        FileNotFoundError: If the weights are not found.
        ValueError: If they do not fit, their hash is not the expected one, or `resize` is neither.
    """

    num_features = 2048
    num_spatial = 17 * 17 * _NUM_SPATIAL_CHANNELS
    num_logits = 1008

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        resize: Literal['tf1', 'pytorch-fid'] = 'tf1',
        dtype: Dtype = 'float32',
    ) -> None:
        with torch.device('meta'):
            self.network = _build()
        self._weights = load_frozen(self.network, _known_file(), weights)
        # on a CPU both together save a quarter of the time (docs/performance.md); features differ by rounding
        fold_batch_norms(self.network)
        self.network.to(getattr(torch, dtype), memory_format=torch.channels_last)
        self.resize, self.dtype = resize, dtype
        self.key = self._weights.key(f'inception{self._variant}')

    @property
    def frechet_key(self) -> str:
        """`fid`, `fid_halfpixel`, `fid_bf16` … on the pinned weights; otherwise as for any network."""
        return f'fid{self._variant}' if self._weights.is_known else super().frechet_key

    @property
    def suffix(self) -> str:
        """Nothing, `_halfpixel`, `_bf16` … on the pinned weights; otherwise as for any network."""
        return self._variant if self._weights.is_known else super().suffix

    @property
    def _variant(self) -> str:
        return _VARIANTS[self.resize] + dtype_suffix(self.dtype)

    def extract(self, images: Tensor) -> Features:
        """Return all three features of `images` (B, 3, H, W), float in [0, 255]."""
        found = self._activations(images, ('Mixed_6c', 'Mixed_7c'))
        pooled = self.network.AvgPool(found['Mixed_7c'].float()).flatten(1)
        # mixed_6/conv is a branch of the next layer, and torch-fidelity's module includes its ReLU
        spatial = self.network.Mixed_6d.branch1x1(found['Mixed_6c'])[:, :_NUM_SPATIAL_CHANNELS]
        logits = pooled.to(spatial.dtype) @ self.network.fc.weight.T
        return Features(pooled, spatial.permute(0, 2, 3, 1).flatten(1).float(), logits.float())

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return feature maps (B, C, h, w) at five depths; images as for `extract`."""
        self._move_to(images.device)
        names = ('Conv2d_2b_3x3', 'Conv2d_4a_3x3', 'Mixed_5d', 'Mixed_6e', 'Mixed_7c')
        return list(self._activations(images, names).values())

    def card(self) -> dict[str, Any]:
        """Return the network, its weights, and the resizing of images."""
        resizing = {'tf1': "TensorFlow 1's bilinear", 'pytorch-fid': "pytorch-fid's bilinear, half-pixel centres"}
        return {
            'network': 'Inception 2015-12-05 (torch-fidelity)',
            'weights_sha256': self._weights.card(),
            'resize': f'{_SIZE} pixels, {resizing[self.resize]}, no antialiasing',
            **dtype_card(self.dtype),
        }

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Return the weights as a requirement if the file does not exist."""
        return missing_weights(_known_file(), arguments.get('weights'))

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same network with random weights."""
        return {**arguments, 'weights': 'random'}

    def _activations(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs of the layers `names`; layers after the last of them are not run."""
        x, found = self._prepare(images), {}
        for name, layer in self.network.named_children():
            x = layer(x)
            if name in names:
                found[name] = x
            if len(found) == len(names):
                break
        return found

    def _prepare(self, images: Tensor) -> Tensor:
        size = (_SIZE, _SIZE)
        if self.resize == 'tf1':
            from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

            scaled = (interpolate_bilinear_2d_like_tensorflow1x(images, size, align_corners=False) - 128) / 128
        else:
            scaled = F.interpolate(images, size, mode='bilinear', align_corners=False) / 127.5 - 1
        return scaled.to(getattr(torch, self.dtype), memory_format=torch.channels_last)


def _known_file() -> KnownFile:
    # pytorch-fid and its followers keep the same bytes under the second name
    return zoo_file('the Inception of FID', 'eqzoo://fid-inception', 'pt_inception-2015-12-05-6726825d.pth')


def _build() -> nn.Sequential:
    """Return torch-fidelity's network with its layer names, without the download in its constructor."""
    # imported here: with torchvision it takes seconds to import
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    conv = fidelity.BasicConv2d
    return nn.Sequential(
        OrderedDict(
            Conv2d_1a_3x3=conv(3, 32, kernel_size=3, stride=2),
            Conv2d_2a_3x3=conv(32, 32, kernel_size=3),
            Conv2d_2b_3x3=conv(32, 64, kernel_size=3, padding=1),
            MaxPool_1=nn.MaxPool2d(kernel_size=3, stride=2),
            Conv2d_3b_1x1=conv(64, 80, kernel_size=1),
            Conv2d_4a_3x3=conv(80, 192, kernel_size=3),
            MaxPool_2=nn.MaxPool2d(kernel_size=3, stride=2),
            Mixed_5b=fidelity.InceptionA(192, pool_features=32),
            Mixed_5c=fidelity.InceptionA(256, pool_features=64),
            Mixed_5d=fidelity.InceptionA(288, pool_features=64),
            Mixed_6a=fidelity.InceptionB(288),
            Mixed_6b=fidelity.InceptionC(768, channels_7x7=128),
            Mixed_6c=fidelity.InceptionC(768, channels_7x7=160),
            Mixed_6d=fidelity.InceptionC(768, channels_7x7=160),
            Mixed_6e=fidelity.InceptionC(768, channels_7x7=192),
            Mixed_7a=fidelity.InceptionD(768),
            Mixed_7b=fidelity.InceptionE_1(1280),
            Mixed_7c=fidelity.InceptionE_2(2048),
            AvgPool=nn.AdaptiveAvgPool2d(1),
            fc=nn.Linear(2048, 1008),
        )
    )
