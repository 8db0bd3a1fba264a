"""Gaussians fitted to features, the Fréchet distance between them, and the number of images it needs."""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eqzoo.lazy import LazyModule
from eqzoo.precision import to_double

blas, lapack = LazyModule('scipy.linalg.blas'), LazyModule('scipy.linalg.lapack')


class Gaussian:
    """A normal distribution by its mean and covariance, as stored in a reference file.

    Args:
        mean: (D,), of any real type; kept in float64 on the CPU.
        covariance: (D, D), symmetric.

    Raises:
        ValueError: If the shapes do not fit together, or a value is not finite.
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        size = mean.numel()
        if mean.ndim != 1 or not size or covariance.shape != (size, size):
            raise ValueError(
                f'Gaussian: mean {tuple(mean.shape)} and covariance {tuple(covariance.shape)}; '
                'expected (D,) and (D, D).'
            )
        self.mean, self.covariance = mean.cpu().double(), covariance.cpu().double()
        if not (self.mean.isfinite().all() and self.covariance.isfinite().all()):
            raise ValueError(
                'Gaussian: mean or covariance is NaN or infinite; expected finite features; '
                'look for NaN in the images, or for half precision in the network that made them.'
            )

    @cached_property
    def factor(self) -> Tensor:
        """A (D, r) with A Aᵀ = covariance, where r is its numerical rank; computed once.

        By Cholesky decomposition with pivoting, which stops where only rounding is left (D times the machine
        precision, LAPACK's default): 0.3 s at D = 2,048 on one core, where `eigh` takes 3 s.
        """
        lower, pivots, rank, _ = lapack.dpstrf(self.covariance.numpy(), lower=1)
        factor = np.empty((len(lower), rank))
        factor[pivots - 1] = np.tril(lower)[:, :rank]
        return torch.from_numpy(factor)


class MomentSums(NamedTuple):
    """The sums behind mean and covariance, over batches and processes, in float64.

    Args:
        count: Of images, ().
        value: Of the features, (D,).
        outer: Of their outer products, (D, D).
    """

    count: Tensor
    value: Tensor
    outer: Tensor


class FeatureMoments:
    """Mean and covariance of features that come in batches.

    The sums are in float64: within 2e-10 of two passes over 50,000 Inception features, and equal up to
    rounding for any number of processes.

    Args:
        num_features: D.

    Example:
        >>> moments = FeatureMoments(1)
        >>> moments.add(torch.tensor([[1.0], [2.0], [3.0]]))
        >>> moments.count, moments.mean.item(), moments.covariance.item()
        (3, 2.0, 1.0)
    """

    def __init__(self, num_features: int) -> None:
        if num_features < 1:
            raise ValueError(f'FeatureMoments.num_features must be at least 1, got {num_features}.')
        self.num_features = num_features
        zeros = torch.zeros(num_features, dtype=torch.float64)
        self.sums = MomentSums(torch.zeros((), dtype=torch.float64), zeros, torch.diag(zeros))

    @classmethod
    def from_sums(cls, sums: MomentSums) -> 'FeatureMoments':
        """Return the moments with these sums."""
        moments = cls(len(sums.value))
        moments.sums = sums
        return moments

    def add(self, features: Tensor) -> None:
        """Add the features (B, D) of a batch; the sums move to the features' device unless it has no float64.

        Raises:
            ValueError: If they have another size.
        """
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(
                f'FeatureMoments.add: features {tuple(features.shape)}; expected (B, {self.num_features}); '
                'use one feature extractor for all batches.'
            )
        x = to_double(features.detach())
        if self.sums.outer.device != x.device:
            self.sums = MomentSums(*(total.to(x.device) for total in self.sums))
        self.sums.count.add_(len(x))
        self.sums.value.add_(x.sum(dim=0))
        self.sums.outer.addmm_(x.T, x)

    @property
    def count(self) -> int:
        """The number of images."""
        return int(self.sums.count)

    @property
    def mean(self) -> Tensor:
        """(D,), float64, on the CPU."""
        self._need(1, 'a mean')
        return (self.sums.value / self.sums.count).cpu()

    @property
    def covariance(self) -> Tensor:
        """(D, D), float64, on the CPU; divided by N - 1, as in `np.cov`, which ADM's evaluator uses."""
        self._need(2, 'a covariance')
        count, value, outer = self.sums
        return ((outer - value[:, None] * (value / count)) / (count - 1)).cpu()

    def gaussian(self) -> Gaussian:
        """Return the distribution with these moments.

        Raises:
            ValueError: If there are fewer than two images, or a feature was not finite.
        """
        return Gaussian(self.mean, self.covariance)

    def _need(self, needed: int, statistic: str) -> None:
        if self.count < needed:
            raise ValueError(
                f'FeatureMoments: {self.count} image(s); {statistic} needs at least {needed}; evaluate more images.'
            )


def frechet_distance(first: Gaussian | FeatureMoments, second: Gaussian | FeatureMoments) -> float:
    """Return |m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁ S₂)^½) (Dowson and Landau 1982; FID, Heusel et al. 2017, Eq. 6).

    With S₁ = A Aᵀ and S₂ = B Bᵀ the last trace is the sum of the singular values of P = Aᵀ B, computed as the
    roots of the eigenvalues of Pᵀ P. These are real for any ranks, nothing is added to a diagonal, and fewer
    images than features are exact (`sqrtm` is off by 5e-8 to 2e-6 there, and 7 to 30 times slower). The
    value is biased by the number of images: compare values of one number only.

    Args:
        first: Of the measured images.
        second: Of the reference; a `Gaussian` keeps its factor for the next call.

    Raises:
        ValueError: If the features have different sizes or are not finite.

    Example:
        >>> narrow, wide = Gaussian(torch.zeros(2), torch.eye(2)), Gaussian(torch.ones(2), 4 * torch.eye(2))
        >>> round(frechet_distance(narrow, wide), 9)
        4.0
    """
    first, second = (each if isinstance(each, Gaussian) else each.gaussian() for each in (first, second))
    if len(first.mean) != len(second.mean):
        raise ValueError(
            f'frechet_distance: features of {len(first.mean)} and {len(second.mean)} values; '
            'expected equal sizes; compare features of one extractor.'
        )
    root = _sum_of_singular_values(first.factor.T @ second.factor)
    traces = first.covariance.trace() + second.covariance.trace()
    distance = (first.mean - second.mean).square().sum() + traces - 2 * root
    return max(distance.item(), 0.0)  # equal sets may come out at -1e-12 of the traces


def _sum_of_singular_values(product: Tensor) -> Tensor:
    if not product.numel():  # a set without spread; BLAS would complain
        return product.new_zeros(())
    # the smaller of Pᵀ P and P Pᵀ: the larger has eigenvalues that are pure rounding, whose roots would add up
    is_tall = product.shape[0] >= product.shape[1]
    square = blas.dsyrk(1.0, product.numpy(), trans=is_tall, lower=True)  # the lower triangle: half the work
    return torch.linalg.eigvalsh(torch.from_numpy(square), UPLO='L').clamp_min(0).sqrt().sum()


def moments_of(sums: Mapping[str, Tensor], name: str) -> FeatureMoments:
    """Return the moments whose sums are called `<name> count`, `<name> value` and `<name> outer`."""
    return FeatureMoments.from_sums(MomentSums(*(sums[f'{name} {part}'] for part in MomentSums._fields)))


def choose_min_images(min_images: int | None, num_features: int) -> int:
    """Return the smallest number of images to accept: `min_images`, by default one more than features.

    From there on the covariance has full rank.

    Raises:
        ValueError: If it is below 2.
    """
    if min_images is not None and min_images < 2:
        raise ValueError(f'min_images must be at least 2, for a covariance, got {min_images}.')
    return min_images or num_features + 1


def refuse_too_few(key: str, num_images: int, min_images: int) -> None:
    """Refuse fewer than `min_images`.

    Raises:
        ValueError: With the number needed.
    """
    if num_images < min_images:
        raise ValueError(
            f'{key}: {num_images} images, but it needs {min_images} or more for a covariance of full rank; use more '
            'images, or min_images=2 for a number that is comparable at this number of images only.'
        )
