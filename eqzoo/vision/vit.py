"""Vision transformers of timm as encoders, prepared as REPA prepares them (arXiv 2410.06940)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.registry import ENCODERS, Requirement
from eqzoo.vision.base import VisionEncoder
from eqzoo.vision.weights import KnownFile, load_weights, of_the_zoo, requirements

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class _ViTTokens(VisionEncoder):
    """The patches' tokens of a vision transformer.

    Images are resized to a patch a token, bicubic and not antialiased, which at 256 pixels and
    `grid=16` is what REPA does; positions are resampled by timm.

    Args:
        name: timm's.
        key: What it is called.
        file: The weights that are looked for.
        grid: Tokens a side, which have to be the generator's.
        weights: Path or URL of timm's file, or the authors'; 'random' for smoke runs only.
    """

    normalization: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = _IMAGENET
    before_norm: ClassVar[bool] = False
    """Whether tokens are taken before the network's last norm."""

    def __init__(self, name: str, key: str, file: KnownFile, grid: int, weights: str | Path | None) -> None:
        if grid < 1:
            raise ValueError(f'{type(self).__name__}.grid must be at least 1, got {grid}.')
        patch = int(name.split('patch')[1].split('_')[0])
        self.grid, self.size = grid, grid * patch
        with torch.device('meta'):
            self.network = timm.create_model(name, pretrained=False, num_classes=0, img_size=self.size)
        found = load_weights(self.network, file, weights, self._from_published)
        if self.before_norm:
            self.network.norm = nn.Identity()
        self.num_features, self.key, self._weights = self.network.embed_dim, found.key(key), found

    def _from_published(self, content: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the network's weights in a file of timm's or the authors', without what comes after the tokens."""
        state = checkpoint_filter_fn(dict(content), self.network)
        return {name: value for name, value in state.items() if not name.startswith('head.')}

    def encode(self, images: Tensor) -> Tensor:
        """Return features (B, T, D) of `images` (B, 3, H, W), float in [0, 255]."""
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in self.normalization)
        images = (images / 255 - mean) / std
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode='bicubic')
        return self.network.forward_features(images)[:, self.network.num_prefix_tokens :]

    def card(self) -> dict[str, Any]:
        """Name the network, its weights, and how images are prepared."""
        return {
            'network': self.key,
            'weights_sha256': self._weights.card(),
            'resize': f'{self.size} pixels, bicubic',
            'tokens': 'before the last norm' if self.before_norm else 'after the last norm',
        }

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the encoder that comes with eqzoo in place of a large one: 8 x 8 tokens."""
        return dict(type='EfficientNetLite0Tokens', stride=16, size=128)


_DINOV2_SIZES = {'s': 'small', 'b': 'base', 'l': 'large', 'g': 'giant'}


@ENCODERS.register_module()
class DINOv2Tokens(_ViTTokens):
    """DINOv2 of patch 14: tokens after the last norm; REPA's best is the base size.

    Args:
        size: 's', 'b', 'l' or 'g', with 384, 768, 1024 or 1536 features.
        grid: Tokens a side.
        weights: Meta's file, as a path or URL. Default for s, b and l: looked for where `DINOv2` looks.

    Raises:
        ValueError: If there is no such size, or weights do not fit.
        FileNotFoundError: If there are no weights.
    """

    def __init__(
        self, size: Literal['s', 'b', 'l', 'g'] = 'b', *, grid: int = 16, weights: str | Path | None = None
    ) -> None:
        if size not in _DINOV2_SIZES:
            raise ValueError(f'DINOv2Tokens.size must be one of {", ".join(_DINOV2_SIZES)}, got {size!r}.')
        name = f'vit_{_DINOV2_SIZES[size]}_patch14_dinov2'
        super().__init__(name, f'dinov2_vit{size}14_tokens', self._file(size), grid, weights)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Say that the weights are missing, if they are."""
        size = arguments.get('size', 'b')
        return requirements(cls._file(size), arguments.get('weights')) if size in _DINOV2_SIZES else []

    @staticmethod
    def _file(size: str) -> KnownFile:
        if size == 'g':
            return _named('DINOv2 ViT-G/14', 'dinov2_vitg14_pretrain.pth')
        return of_the_zoo(f'DINOv2 ViT-{size.upper()}/14', f'eqzoo://dinov2-vit{size}14')


class _NamedTokens(_ViTTokens):
    """An encoder whose weights a config has to name."""

    timm_name: ClassVar[str]
    title: ClassVar[str]
    where: ClassVar[str]
    """Where its weights are to be had."""

    def __init__(self, weights: str | Path | None = None, *, grid: int = 16) -> None:
        name = type(self).__name__.removesuffix('Tokens').lower()
        super().__init__(self.timm_name, f'{name}_tokens', _named(self.title, self.where), grid, weights)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Say that the weights are missing, if they are."""
        return requirements(_named(cls.title, cls.where), arguments.get('weights'))


@ENCODERS.register_module()
class CLIPTokens(_NamedTokens):
    """OpenAI's CLIP ViT-L/14: tokens before the last norm, 1024 features.

    Args:
        weights: Path or URL of timm's file, vit_large_patch14_clip_quickgelu_224.openai.
        grid: Tokens a side.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not fit.
    """

    timm_name, title = 'vit_large_patch14_clip_quickgelu_224', 'CLIP ViT-L/14'
    where = 'https://huggingface.co/timm/vit_large_patch14_clip_quickgelu_224.openai'
    normalization, before_norm = _CLIP, True


@ENCODERS.register_module()
class MAETokens(_NamedTokens):
    """MAE's ViT-L/16: tokens before the last norm, 1024 features. Its weights are for non-commercial use.

    Args:
        weights: Path or URL of timm's file, vit_large_patch16_224.mae, or of Meta's.
        grid: Tokens a side.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not fit.
    """

    timm_name, title = 'vit_large_patch16_224', 'MAE ViT-L/16'
    where = 'https://huggingface.co/timm/vit_large_patch16_224.mae'
    before_norm = True


@ENCODERS.register_module()
class IJEPATokens(_NamedTokens):
    """I-JEPA's ViT-H/14: tokens after the last norm, 1280 features. Its weights are for non-commercial use.

    Args:
        weights: Path or URL of Meta's IN1K-vit.h.14-300e.pth.tar, or of timm's file.
        grid: Tokens a side.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it does not fit.
    """

    timm_name, title = 'vit_huge_patch14_gap_224', 'I-JEPA ViT-H/14'
    where = 'https://dl.fbaipublicfiles.com/ijepa/IN1K-vit.h.14-300e.pth.tar'


def _named(what: str, where: str) -> KnownFile:
    return KnownFile(what, '', (), f'fetch {where} and set weights=PATH')
