"""DINOv2, self-supervised vision transformers: features of images (the network of FDD), and tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from eqzoo.registry import VISION, Requirement
from eqzoo.registry.ranges import PositiveInt
from eqzoo.vision.base import Dtype, FeatureExtractor, Features, dtype_card, dtype_suffix, per_channel
from eqzoo.vision.vit import IMAGENET, ViTTokens, named_file
from eqzoo.vision.weights import KnownFile, load_frozen, missing_weights, zoo_file

_SIZE = 224
_PATCH = 14
_SIZES = {'s': 'small', 'b': 'base', 'l': 'large', 'g': 'giant'}  # as timm names them
_EXTRACTOR_SIZES = ('s', 'b', 'l')


@VISION.register_module()
class DINOv2(FeatureExtractor):
    """DINOv2 with patches of 14 pixels, without registers (Oquab et al. 2023).

    `pooled` is the class token after the last norm. Images are resized to 224 pixels, bicubic and
    antialiased, and normalised by ImageNet's mean and standard deviation, as in EDM2. Positions are
    resampled as in Meta's code, not as in timm's: on random weights features equal Meta's to the bit, and
    are off by a third with timm's.

    A Fréchet distance on the large network with Meta's weights is `fdd`; on the others it is
    `fd_dinov2_vitb14`, `fd_dinov2_vits14`, which track progress but are not comparable with published FDD.

    Args:
        size: 's', 'b' or 'l'.
        weights: Path or URL of Meta's file. Default: looked for in `$EQZOO_WEIGHTS_DIR`, in
            `weights/`, in torch hub's cache and in eqzoo's. 'random' for smoke runs only.
        dtype: Of weights and activations. 'bfloat16' is for GPUs, and makes another metric, `fdd_bf16`
            (docs/metrics.md has the difference).

    Raises:
        FileNotFoundError: If the weights are not found.
        ValueError: If they do not fit, their hash is not the expected one, or `size` is unknown.
    """

    def __init__(
        self, size: Literal['s', 'b', 'l'] = 'l', *, weights: str | Path | None = None, dtype: Dtype = 'float32'
    ) -> None:
        # imported here: timm takes seconds to import, and a config is checked without it
        import timm

        with torch.device('meta'):
            self.network = timm.create_model(_timm_name(size), pretrained=False, num_classes=0, img_size=_SIZE)
        self._weights = load_frozen(self.network, _known_file(size), weights, _from_meta)
        self.network.to(getattr(torch, dtype))
        self.size, self.num_features, self.dtype = size, self.network.embed_dim, dtype
        self.key = self._weights.key(f'dinov2_vit{size}14{dtype_suffix(dtype)}')

    @property
    def frechet_key(self) -> str:
        """`fdd`, or `fdd_bf16`, for the large network with Meta's weights; otherwise as for any network."""
        return f'fdd{dtype_suffix(self.dtype)}' if self.size == 'l' and self._weights.is_known else super().frechet_key

    def extract(self, images: Tensor) -> Features:
        """Return the class tokens (B, D) of `images` (B, 3, H, W), float in [0, 255]."""
        return Features(self.network.forward_features(self._prepare(images))[:, 0].float())

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the patch tokens (B, D, 16, 16) after each quarter of the blocks; images as for `extract`."""
        self._move_to(images.device)
        depth = len(self.network.blocks)
        quarters = [depth * part // 4 - 1 for part in (1, 2, 3, 4)]
        return self.network.forward_intermediates(self._prepare(images), indices=quarters, intermediates_only=True)

    def card(self) -> dict[str, Any]:
        """Return the network, its weights, and the preparation of images."""
        return {
            'network': f'DINOv2 ViT-{self.size.upper()}/14, class token',
            'weights_sha256': self._weights.card(),
            'resize': f'{_SIZE} pixels, bicubic, antialiased',
            **dtype_card(self.dtype),
        }

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Return the weights as a requirement if the file does not exist."""
        size = arguments.get('size', 'l')
        return missing_weights(_known_file(size), arguments.get('weights')) if size in _EXTRACTOR_SIZES else []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the small network with random weights."""
        return {**arguments, 'size': 's', 'weights': 'random'}

    def _prepare(self, images: Tensor) -> Tensor:
        resized = F.interpolate(images, (_SIZE, _SIZE), mode='bicubic', antialias=True)
        mean, std = (per_channel(values, images) for values in IMAGENET)
        return ((resized / 255 - mean) / std).to(getattr(torch, self.dtype))


@VISION.register_module()
class DINOv2Tokens(ViTTokens):
    """DINOv2 with patches of 14 pixels: tokens after the last norm; REPA's best is the base size.

    Args:
        size: 's', 'b', 'l' or 'g', with 384, 768, 1024 or 1536 features.
        grid: Tokens a side.
        weights: Meta's file, as a path or URL. Default for s, b and l: looked for where `DINOv2` looks.

    Raises:
        ValueError: If there is no such size, or weights do not fit.
        FileNotFoundError: If the weights are not found.
    """

    def __init__(
        self, size: Literal['s', 'b', 'l', 'g'] = 'b', *, grid: PositiveInt = 16, weights: str | Path | None = None
    ) -> None:
        super().__init__(_timm_name(size), f'dinov2_vit{size}14_tokens', _known_file(size), grid, weights)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Return the weights as a requirement if the file does not exist."""
        size = arguments.get('size', 'b')
        return missing_weights(_known_file(size), arguments.get('weights')) if size in _SIZES else []


def _timm_name(size: str) -> str:
    return f'vit_{_SIZES[size]}_patch14_dinov2'


def _known_file(size: str) -> KnownFile:
    if size == 'g':  # not in the zoo
        return named_file('DINOv2 ViT-G/14', 'dinov2_vitg14_pretrain.pth')
    return zoo_file(f'DINOv2 ViT-{size.upper()}/14', f'eqzoo://dinov2-vit{size}14')


def _from_meta(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights for 224 pixels: no mask token, and positions on 16 x 16 patches."""
    state = {name: value for name, value in state.items() if name != 'mask_token'}
    if state.get('pos_embed', torch.empty(0)).ndim == 3:
        state['pos_embed'] = _resample_positions(state['pos_embed'].float())
    return state


def _resample_positions(positions: Tensor) -> Tensor:
    """Resample positions (1, 1 + N, D) of the class token and N patches as Meta's code does.

    Differs from timm's loader: no antialiasing, and a tenth of a patch more in the scale.
    """
    side, wanted = round((positions.shape[1] - 1) ** 0.5), _SIZE // _PATCH
    if side in (0, wanted) or side**2 != positions.shape[1] - 1:
        return positions
    of_patches = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resampled = F.interpolate(of_patches, scale_factor=(wanted + 0.1) / side, mode='bicubic')
    return torch.cat([positions[:, :1], resampled.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
