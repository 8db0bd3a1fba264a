"""The intrinsic dimension of a set of points, by the ratio of the distances to two neighbours (TwoNN)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from eqzoo.statistics.nearest import nearest

DISCARD_FRACTION = 0.1  # of Facco et al. 2017; `fraction=0.9` in DADApy, with which EQ-VAE measured
NUM_RESAMPLES = 100
MIN_POINTS = 10


class IntrinsicDimension(NamedTuple):
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


def intrinsic_dimension(points: Tensor, *, generator: Generator) -> IntrinsicDimension:
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
        return IntrinsicDimension(*[float('nan')] * 3, len(distinct))
    pairs = nearest(distinct, 2)[0].cpu()
    draws = torch.randint(len(pairs), (NUM_RESAMPLES, len(pairs)), generator=generator)
    spread = np.std([_fit(pairs[draw], 'linear') for draw in draws], ddof=1)
    return IntrinsicDimension(_fit(pairs, 'linear'), float(spread), _fit(pairs, 'mle'), len(distinct))


def _fit(pairs: Tensor, method: str) -> float:
    # here, not at the top: it takes seconds to import
    from skdim.id import TwoNN

    estimator = TwoNN(discard_fraction=DISCARD_FRACTION, dist=True, method=method)
    return float(estimator.fit(pairs.numpy()).dimension_)
