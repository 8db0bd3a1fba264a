"""DINOv2: self-supervised vision transformers, the network of FDD."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from eqzoo.registry import EXTRACTORS, Requirement
from eqzoo.vision.base import FeatureExtractor, Features
from eqzoo.vision.weights import KnownFile, load_weights, of_the_zoo, requirements

_SIZE = 224
_PATCH = 14
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# timm's name and the width
_SIZES = {'s': ('small', 384), 'b': ('base', 768), 'l': ('large', 1024)}


@EXTRACTORS.register_module()
class DINOv2(FeatureExtractor):
    """DINOv2 of patch 14 without registers (Oquab et al. 2023); `pooled` is the class token after the last norm.

    Images are resized to 224 pixels, bicubic and antialiased, and normalised by ImageNet's mean
    and standard deviation, as EDM2 does. Positions are resampled as Meta's code does, not as
    timm's: on random weights features equal the former's to the bit, and are a third off with
    the latter's.

    A Fréchet distance on the large network with Meta's weights is `fdd`; on the others it is
    `fd_dinov2_vitb14`, `fd_dinov2_vits14`: trackers that are not comparable with published FDD.

    Args:
        size: 's', 'b' or 'l'.
        weights: Path or URL of Meta's file. Default: looked for in `$EQZOO_WEIGHTS_DIR`, in
            `weights/`, in torch hub's cache and in eqzoo's. 'random' for smoke runs only.

    Raises:
        FileNotFoundError: If the weights are nowhere.
        ValueError: If they do not fit or are not what they should be, or `size` is none of these.
    """

    def __init__(self, size: Literal['s', 'b', 'l'] = 'l', *, weights: str | Path | None = None) -> None:
        if size not in _SIZES:
            raise ValueError(f'DINOv2.size must be one of {", ".join(_SIZES)}, got {size!r}.')
        name, self.num_features = _SIZES[size]
        with torch.device('meta'):
            self._network = timm.create_model(
                f'vit_{name}_patch14_dinov2', pretrained=False, num_classes=0, img_size=_SIZE
            )
        self._weights = load_weights(self._network, _known_file(size), weights, _from_meta)
        self.size = size
        self.key = self._weights.key(f'dinov2_vit{size}14')

    @property
    def frechet_key(self) -> str:
        """`fdd` for the large network with Meta's weights, else as for any network."""
        return 'fdd' if self.size == 'l' and self._weights.is_known else super().frechet_key

    def extract(self, images: Tensor) -> Features:
        """Return the class tokens (B, D) of `images` (B, 3, H, W), float in [0, 255]."""
        return Features(self._network.forward_features(_prepare(images))[:, 0])

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the patches' tokens (B, D, 16, 16) after each quarter of the blocks, of images as `extract` takes."""
        self._to(images.device)
        depth = len(self._network.blocks)
        quarters = [depth * part // 4 - 1 for part in (1, 2, 3, 4)]
        return self._network.forward_intermediates(_prepare(images), indices=quarters, intermediates_only=True)

    def card(self) -> dict[str, Any]:
        """Name the network, its weights, and how images are prepared."""
        return {
            'network': f'DINOv2 ViT-{self.size.upper()}/14, class token',
            'weights_sha256': self._weights.card(),
            'resize': f'{_SIZE} pixels, bicubic, antialiased',
        }

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Say that the weights are missing, if they are."""
        size = arguments.get('size', 'l')
        return requirements(_known_file(size), arguments.get('weights')) if size in _SIZES else []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the small network with random weights."""
        return {**arguments, 'size': 's', 'weights': 'random'}


def _known_file(size: str) -> KnownFile:
    return of_the_zoo(f'DINOv2 ViT-{size.upper()}/14', f'eqzoo://dinov2-vit{size}14')


def _prepare(images: Tensor) -> Tensor:
    resized = F.interpolate(images, (_SIZE, _SIZE), mode='bicubic', antialias=True)
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (resized / 255 - mean) / std


def _from_meta(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights for 224 pixels: no mask token, and positions on 16 x 16 patches."""
    state = {name: value for name, value in state.items() if name != 'mask_token'}
    if state.get('pos_embed', torch.empty(0)).ndim == 3:
        state['pos_embed'] = _resample_positions(state['pos_embed'].float())
    return state


def _resample_positions(positions: Tensor) -> Tensor:
    """Resample positions (1, 1 + N, D) of the class token and N patches as Meta's own code does.

    Differs from timm's loader: no antialiasing, and a tenth of a patch more in the scale.
    """
    side, wanted = round((positions.shape[1] - 1) ** 0.5), _SIZE // _PATCH
    if side in (0, wanted) or side**2 != positions.shape[1] - 1:
        return positions
    of_patches = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resampled = F.interpolate(of_patches, scale_factor=(wanted + 0.1) / side, mode='bicubic')
    return torch.cat([positions[:, :1], resampled.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
