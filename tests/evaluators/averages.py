"""A stand-in extractor: means of a 2 x 2 grid, 12 features that are easy to compute another way."""

from torch import nn
from torch.nn import functional as F

from eqzoo.vision import FeatureExtractor, Features


class Averages(FeatureExtractor):
    """With a map and a classifier made of the same means."""

    key = 'averages'
    num_features, num_spatial, num_logits = 12, 3, 4

    def __init__(self):
        self.network = nn.Linear(1, 1)

    def extract(self, images):
        pooled = F.adaptive_avg_pool2d(images, 2).flatten(1)
        return Features(pooled, pooled[:, ::4], pooled[:, :4] / 50)

    def card(self):
        return {'network': 'none'}


class Pinned(Averages):
    """As if it were the pinned Inception, for the names."""

    frechet_key = 'fid'
    suffix = ''
