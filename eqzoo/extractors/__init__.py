"""Feature extractors: frozen networks that sets of images are compared by."""

from eqzoo.extractors.base import FeatureExtractor, Features

__all__ = ['FeatureExtractor', 'Features']
