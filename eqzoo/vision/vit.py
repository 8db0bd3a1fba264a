"""Vision transformers of timm as token encoders, with REPA's preparation of images (arXiv 2410.06940)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.registry import VISION, Requirement
from eqzoo.registry.ranges import PositiveInt
from eqzoo.vision.base import VisionEncoder, per_channel
from eqzoo.vision.weights import KnownFile, load_frozen, missing_weights

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of RGB in [0, 1]
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ViTTokens(VisionEncoder):
    """The patch tokens of a vision transformer.

    Images are resized to one patch per token, bicubic and not antialiased, as in REPA at 256 pixels and
    `grid=16`; timm resamples the positions.

    Args:
        name: timm's name of the network.
        key: Its name in eqzoo.
        file: The known weights.
        grid: Tokens a side, equal to the generator's.
        weights: Path or URL of timm's file or the authors'; 'random' for smoke runs only.
    """

    normalization: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]] = IMAGENET
    before_norm: ClassVar[bool] = False
    """Whether tokens are taken before the network's last norm."""

    def __init__(self, name: str, key: str, file: KnownFile, grid: int, weights: str | Path | None) -> None:
        patch = int(name.split('patch')[1].split('_')[0])
        self.grid, self.size = grid, grid * patch
        # imported here: timm takes seconds to import, and a config is checked without it
        import timm

        with torch.device('meta'):
            self.network = timm.create_model(name, pretrained=False, num_classes=0, img_size=self.size)
        self._weights = load_frozen(self.network, file, weights, self._from_published)
        if self.before_norm:
            self.network.norm = nn.Identity()
        self.num_features, self.key = self.network.embed_dim, self._weights.key(key)

    def _from_published(self, content: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the network's weights in a file of timm or the authors, without the head."""
        from timm.models.vision_transformer import checkpoint_filter_fn

        state = checkpoint_filter_fn(dict(content), self.network)
        return {name: value for name, value in state.items() if not name.startswith('head.')}

    def encode(self, images: Tensor) -> Tensor:
        """Return features (B, T, D) of `images` (B, 3, H, W), float in [0, 255]."""
        mean, std = (per_channel(values, images) for values in self.normalization)
        images = (images / 255 - mean) / std
        if images.shape[-1] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode='bicubic')
        return self.network.forward_features(images)[:, self.network.num_prefix_tokens :]

    def card(self) -> dict[str, Any]:
        """Return the network, its weights, and the preparation of images."""
        return {
            'network': self.key,
            'weights_sha256': self._weights.card(),
            'resize': f'{self.size} pixels, bicubic',
            'tokens': 'before the last norm' if self.before_norm else 'after the last norm',
        }

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the encoder whose weights are installed with eqzoo, with 8 x 8 tokens."""
        return dict(type='EfficientNetLite0Tokens', stride=16, size=128)


class _TokensOfNamedFile(ViTTokens):
    """An encoder without a known file: a config must set `weights`."""

    timm_name: ClassVar[str]
    title: ClassVar[str]
    where: ClassVar[str]
    """The page or address of its weights."""

    def __init__(self, weights: str | Path | None = None, *, grid: PositiveInt = 16) -> None:
        name = type(self).__name__.removesuffix('Tokens').lower()
        super().__init__(self.timm_name, f'{name}_tokens', named_file(self.title, self.where), grid, weights)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> Sequence[Requirement]:
        """Return the weights as a requirement if the file does not exist."""
        return missing_weights(named_file(cls.title, cls.where), arguments.get('weights'))


@VISION.register_module()
class CLIPTokens(_TokensOfNamedFile):
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


@VISION.register_module()
class MAETokens(_TokensOfNamedFile):
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


@VISION.register_module()
class IJEPATokens(_TokensOfNamedFile):
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


def named_file(what: str, where: str) -> KnownFile:
    """Return a known file that is nowhere: the user fetches it from `where` and sets `weights`."""
    return KnownFile(what, '', (), f'fetch {where} and set weights=PATH')
