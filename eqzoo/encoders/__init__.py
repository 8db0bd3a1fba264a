"""Vision encoders whose features a generator is aligned with."""

from eqzoo.encoders.base import VisionEncoder
from eqzoo.encoders.effnet import EfficientNetLite0Tokens
from eqzoo.encoders.vit import CLIPTokens, DINOv2Tokens, IJEPATokens, MAETokens

__all__ = [
    'CLIPTokens',
    'DINOv2Tokens',
    'EfficientNetLite0Tokens',
    'IJEPATokens',
    'MAETokens',
    'VisionEncoder',
]
