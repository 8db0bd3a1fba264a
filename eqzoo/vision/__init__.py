"""Frozen vision networks, for metrics, losses and alignment."""

from eqzoo.vision.base import FeatureExtractor, Features, VisionEncoder, VisionNetwork
from eqzoo.vision.dinov2 import DINOv2, DINOv2Tokens
from eqzoo.vision.effnet import EfficientNetLite0, EfficientNetLite0Tokens
from eqzoo.vision.inception import FIDInception
from eqzoo.vision.vit import CLIPTokens, IJEPATokens, MAETokens

__all__ = [
    'CLIPTokens',
    'DINOv2',
    'DINOv2Tokens',
    'EfficientNetLite0',
    'EfficientNetLite0Tokens',
    'FIDInception',
    'FeatureExtractor',
    'Features',
    'IJEPATokens',
    'MAETokens',
    'VisionEncoder',
    'VisionNetwork',
]
