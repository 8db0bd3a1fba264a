"""Feature extractors: frozen networks that sets of images are compared by."""

from eqzoo.extractors.base import FeatureExtractor, Features
from eqzoo.extractors.dinov2 import DINOv2
from eqzoo.extractors.effnet import EfficientNetLite0
from eqzoo.extractors.inception import FIDInception

__all__ = ['DINOv2', 'EfficientNetLite0', 'FIDInception', 'FeatureExtractor', 'Features']
