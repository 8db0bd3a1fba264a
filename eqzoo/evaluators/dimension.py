"""Intrinsic dimension of latents by TwoNN: from the ratio of the distances to the two nearest neighbours."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from eqzoo.evaluators.latents import LatentSample
from eqzoo.evaluators.neighbours import nearest_neighbors
from eqzoo.lazy import LazyModule
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS
from eqzoo.registry.ranges import PositiveInt, Range

linalg = LazyModule('scipy.linalg')

DISCARD_FRACTION = 0.1  # of Facco et al. 2017; `fraction=0.9` in DADApy, which EQ-VAE used
NUM_RESAMPLES = 100
MIN_POINTS = 10
_SEED = 1


@EVALUATORS.register_module()
class IntrinsicDimension(LatentSample):
    """`intrinsic_dimension` of whole latents by TwoNN, with its `_std` and a second estimate, `_mle`.

    EQ-VAE reports it (App. B, Table 5: 62.2 for SD-VAE, 39.4 after EQ-VAE) without the number of images and
    without saying whether latents are means or samples. It is a relative measure: it falls short above 15
    dimensions and grows with the number of images. No picture should be in the set twice, nor flips or crops
    of one; exact duplicates are dropped. With fewer than ten distinct latents it is NaN.

    Args:
        max_images: How many latents are kept at most, drawn once from all: 160 MB at 4,096 values each.
        min_images: Fewer are refused; the error is about d / √N for a dimension of d.

    Raises:
        ValueError: If `min_images` is below 10 or above `max_images`.
    """

    def __init__(
        self, *, max_images: PositiveInt = 10_000, min_images: Annotated[int, Range(at_least=MIN_POINTS)] = 100
    ) -> None:
        super().__init__(max_images, min_images)
        self._num_points = 0  # known once evaluated

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same for the smallest number of images."""
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
        """Return the dimension, its spread and the second estimate."""
        found = intrinsic_dimension(self.latents().flatten(1), generator=seeded(_SEED))
        self._num_points = found.num_points
        return {
            'intrinsic_dimension': found.dimension,
            'intrinsic_dimension_std': found.std,
            'intrinsic_dimension_mle': found.likelihood,
        }

    def card(self) -> dict[str, Any]:
        """Return the method and the number of points."""
        return {
            **super().card(),
            # the values equal that package's to the bit: results measured with it stay comparable
            'method': 'scikit-dimension 0.5.0 TwoNN, linear; mle: its maximum likelihood',
            'discard_fraction': DISCARD_FRACTION,
            'points': self._num_points,
            'std': f'bootstrap of the pairs of distances, {NUM_RESAMPLES} times',
        }


class DimensionEstimate(NamedTuple):
    """The dimension of a set of points by TwoNN.

    Args:
        dimension: By the straight line through the distribution of log(r₂ / r₁).
        std: Its standard deviation over sets of the same size, drawn from this one with replacement.
        likelihood: By maximum likelihood, as a second estimate: if both differ by more than `std`, the set
            has no single dimension at the scale of its neighbours.
        num_points: The number of points; exact duplicates count once.
    """

    dimension: float
    std: float
    likelihood: float
    num_points: int


def intrinsic_dimension(points: Tensor, *, generator: Generator) -> DimensionEstimate:
    """Return the dimension by TwoNN (Facco et al. 2017), without the largest tenth of ratios.

    It is low above about 15 dimensions and grows with the number of points: compare at one number
    (docs/metrics.md has values on known manifolds). Points that are almost the same, such as one picture at
    two qualities, destroy it: half of a set doubled with a jitter of 1e-6 gives 0.08. Noise raises it to the
    dimension of the noise. A factor on all points does not change it.

    Args:
        points: (N, D), finite. With fewer than ten distinct ones all values are NaN.
        generator: Of the resampling.

    Raises:
        ValueError: If a point is not finite.
    """
    distinct = points.unique(dim=0)
    if len(distinct) < MIN_POINTS:
        return DimensionEstimate(*[float('nan')] * 3, len(distinct))
    distances = nearest_neighbors(distinct, 2)[0].cpu()
    ratios = (distances[:, 1] / distances[:, 0]).numpy()
    draws = torch.randint(len(ratios), (NUM_RESAMPLES, len(ratios)), generator=generator).numpy()
    spread = np.std([dimension_by_line(ratios[draw]) for draw in draws], ddof=1)
    return DimensionEstimate(dimension_by_line(ratios), float(spread), dimension_by_likelihood(ratios), len(distinct))


def dimension_by_line(ratios: np.ndarray) -> float:
    """Return the slope of the line through the origin and (log μ, -log(1 - F(μ))), where μ are r₂ / r₁ (N,).

    μ follows a Pareto law with exponent d, so -log(1 - F) = d log μ (Facco et al. 2017, Eq. 5 and 6).
    """
    logarithms = np.log(_smallest(ratios))[:, None]
    empirical = np.arange(1, len(logarithms) + 1)[:, None] / len(ratios)
    # LAPACK's least squares rather than x·y / x·x: scikit-dimension's bits
    return float(linalg.lstsq(logarithms, -np.log(1 - empirical))[0][0, 0])


def dimension_by_likelihood(ratios: np.ndarray) -> float:
    """Return the unbiased maximum-likelihood dimension of the ratios r₂ / r₁ (N,).

    log μ is exponentially distributed with the rate d. The largest ratios are known only to be at least as
    large as the largest that is kept (type II censoring).
    """
    logarithms = np.log(_smallest(ratios))
    num_kept = len(logarithms)
    total = np.sum(logarithms) + (len(ratios) - num_kept) * logarithms[-1]
    return float((num_kept - 1) / total)


def _smallest(ratios: np.ndarray) -> np.ndarray:
    """Return the ratios that are kept, sorted."""
    return np.sort(ratios)[: int(len(ratios) * (1 - DISCARD_FRACTION))]
