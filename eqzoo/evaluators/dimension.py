"""The intrinsic dimension of a set of points, by the ratio of the distances to two neighbours (TwoNN)."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from eqzoo.evaluators.latents import LatentSample
from eqzoo.evaluators.neighbours import nearest
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS

DISCARD_FRACTION = 0.1  # of Facco et al. 2017; `fraction=0.9` in DADApy, with which EQ-VAE measured
NUM_RESAMPLES = 100
MIN_POINTS = 10


class DimensionEstimate(NamedTuple):
    """What TwoNN says of a set.

    Args:
        dimension: By the straight line through the distribution of log(r₂ / r₁).
        std: Its deviation over sets of as many points, drawn from this one's with replacement.
        likelihood: The same by maximum likelihood, as a second opinion: where both differ by
            more than `std`, the set is not of one dimension at the scale of its neighbours.
        num_points: Of how many points: exact duplicates count once.
    """

    dimension: float
    std: float
    likelihood: float
    num_points: int


def intrinsic_dimension(points: Tensor, *, generator: Generator) -> DimensionEstimate:
    """Return the dimension by scikit-dimension's TwoNN (Facco et al. 2017), the largest tenth of ratios left out.

    It is low above about 15 dimensions, and grows with the number of points: compare at one number
    (docs/metrics.md has it on known manifolds). Points that are almost the same, such as the same picture at
    two qualities, destroy it: half of a set doubled with a jitter of 1e-6 gives 0.08. Noise raises
    it to that of the noise. It does not change with a factor on all points.

    Args:
        points: (N, D), finite. If fewer than ten are distinct, all is NaN.
        generator: Of the resampling.

    Raises:
        ValueError: If a point is not finite.
    """
    distinct = points.unique(dim=0)
    if len(distinct) < MIN_POINTS:
        return DimensionEstimate(*[float('nan')] * 3, len(distinct))
    pairs = nearest(distinct, 2)[0].cpu()
    draws = torch.randint(len(pairs), (NUM_RESAMPLES, len(pairs)), generator=generator)
    spread = np.std([_fit(pairs[draw], 'linear') for draw in draws], ddof=1)
    return DimensionEstimate(_fit(pairs, 'linear'), float(spread), _fit(pairs, 'mle'), len(distinct))


def _fit(pairs: Tensor, method: str) -> float:
    # here, not at the top: it takes seconds to import
    from skdim.id import TwoNN

    estimator = TwoNN(discard_fraction=DISCARD_FRACTION, dist=True, method=method)
    return float(estimator.fit(pairs.numpy()).dimension_)


_SEED = 1


@EVALUATORS.register_module()
class IntrinsicDimension(LatentSample):
    """`intrinsic_dimension` of whole latents by TwoNN, with its `_std` and the second opinion `_mle`.

    EQ-VAE reports it (App. B, Table 5: 62.2 for SD-VAE, 39.4 after EQ-VAE); number of images, and
    posterior mean or sample, are not stated there. It is a relative measure: it falls short above
    15 dimensions and grows with the number of images. The set should hold no picture
    twice, no flips or crops of one; exact duplicates are dropped. Where fewer than ten latents are
    distinct, it is NaN.

    Args:
        max_images: How many latents are kept, at most, drawn once from all: 160 MB at 4,096
            values each.
        min_images: Fewer are refused; the error is about d / √N for a dimension of d.

    Raises:
        ValueError: If `min_images` is below 10 or above `max_images`.
    """

    def __init__(self, *, max_images: int = 10_000, min_images: int = 100) -> None:
        super().__init__(max_images, min_images)
        if min_images < MIN_POINTS:
            raise ValueError(f'IntrinsicDimension.min_images must be at least {MIN_POINTS}, got {min_images}.')
        self._num_points = 0  # known once evaluated

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same, for as few images as there may be."""
        return {**arguments, 'min_images': MIN_POINTS}

    def check(self, num_images: int) -> None:
        """Refuse too few images, and draw which are kept.

        Raises:
            ValueError: With the number needed.
        """
        if num_images < self.min_images:
            raise ValueError(
                f'intrinsic_dimension: {num_images} images, but it needs {self.min_images} or more; use more images, '
                f'or a smaller min_images ({MIN_POINTS} or more) for a number with a larger error.'
            )
        super().check(num_images)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the dimension, its spread and the second opinion."""
        found = intrinsic_dimension(self.latents().flatten(1), generator=seeded(_SEED))
        self._num_points = found.num_points
        return {
            'intrinsic_dimension': found.dimension,
            'intrinsic_dimension_std': found.std,
            'intrinsic_dimension_mle': found.likelihood,
        }

    def card(self) -> dict[str, Any]:
        """Say by what it is fitted, and to how many points."""
        return {
            **super().card(),
            'method': f'scikit-dimension {version("scikit-dimension")} TwoNN, linear; mle: its maximum likelihood',
            'discard_fraction': DISCARD_FRACTION,
            'points': self._num_points,
            'std': f'bootstrap of the pairs of distances, {NUM_RESAMPLES} times',
        }
