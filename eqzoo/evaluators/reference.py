"""What a reference set is measured to, and what is noted of samples' classes."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from torch import Tensor

from eqzoo.distributed import rank_and_world_size
from eqzoo.evaluators.base import Evaluator
from eqzoo.evaluators.frechet import moments_of
from eqzoo.evaluators.reconstruction import to_uint8
from eqzoo.evaluators.view import SampleView
from eqzoo.extractors import FeatureExtractor
from eqzoo.statistics.gaussian import FeatureMoments

# What shrunk configs compare samples with.
SMOKE_REFERENCE = dict(type='Shapes', num_images=16, size=64)

_BATCH = 64


class ReferenceMoments(Evaluator):
    """Moments of a reference set's features, in `pooled` and `spatial` once evaluated.

    Args:
        extractor: The features.
        stored: Numbers of the images that the reference keeps. Of those that can be read, `stored` has the
            numbers (N,), in order, and `features` the pooled features (N, D) once evaluated.
    """

    def __init__(self, extractor: FeatureExtractor, stored: Iterable[int] = ()) -> None:
        super().__init__()
        self.extractor = extractor
        self.stored = torch.tensor(sorted(stored), dtype=torch.int64)
        self.features: Tensor | None = None
        self.pooled: FeatureMoments | None = None
        self.spatial: FeatureMoments | None = None
        self._moments: dict[str, FeatureMoments] = {}

    @torch.no_grad()
    def update(self, view: SampleView) -> None:
        """Add a batch's features."""
        features = self.extractor(to_uint8(view.images))
        for name in ('pooled', 'spatial') if self.extractor.num_spatial else ('pooled',):
            values = getattr(features, name)
            self._moments.setdefault(name, FeatureMoments(values.shape[1])).add(values)
        numbers = view.numbers.cpu()
        is_stored = torch.isin(numbers, self.stored)
        if is_stored.any():
            self.keep('numbers', numbers[is_stored], numbers[is_stored])
            self.keep('features', features.pooled.cpu()[is_stored], numbers[is_stored])

    def flush(self) -> None:
        """Hand the moments' sums over."""
        moments, self._moments = self._moments, {}
        for name, each in moments.items():
            self.add_totals(name, each.sums._asdict())

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Set the moments and features over all processes; there is no metric."""
        self.stored, self.features = self.kept.get('numbers', self.stored[:0]), self.kept.get('features')
        self.pooled = moments_of(sums, 'pooled')
        self.spatial = moments_of(sums, 'spatial') if self.extractor.num_spatial else None
        return {}

    def card(self) -> dict[str, Any]:
        """Name the features."""
        return {'extractor': self.extractor.card()}


@torch.no_grad()
def image_features(extractor: FeatureExtractor, images: np.ndarray) -> Tensor:
    """Return pooled features (N, D) of images (N, H, W, 3), uint8, each process extracting a share."""
    rank, world_size = rank_and_world_size()
    numbers = range(rank, len(images), world_size)
    device = torch.device('cuda', torch.cuda.current_device()) if torch.cuda.is_available() else torch.device('cpu')
    own = []
    for start in range(0, len(numbers), _BATCH):
        batch = np.ascontiguousarray(images[list(numbers[start : start + _BATCH])])
        own.append(extractor(torch.from_numpy(batch).permute(0, 3, 1, 2).to(device)).pooled.cpu())
    features = torch.empty(len(images), extractor.num_features)
    for other, share in enumerate(all_gather_object(torch.cat(own) if own else torch.empty(0, 0))):
        features[other::world_size] = share
    return features


def label_scheme(labels: Tensor | None) -> str:
    """Say how samples (N,) in their order are spread over classes; the Inception Score depends on it.

    Example:
        >>> label_scheme(torch.tensor([0, 1, 0, 1])), label_scheme(torch.tensor([0, 0, 1, 1]))
        ('balanced, mixed', 'balanced, grouped by class')
    """
    if labels is None or len(labels.unique()) < 2:
        return 'not given'
    counts = labels.unique(return_counts=True)[1]
    spread = 'balanced' if counts.max() - counts.min() <= 1 else f'{int(counts.min())} to {int(counts.max())} a class'
    changes = int((labels[1:] != labels[:-1]).sum())
    return f'{spread}, ' + ('grouped by class' if changes == len(counts) - 1 else 'mixed')
