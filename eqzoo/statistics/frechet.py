"""The Fréchet distance between two normal distributions: FID, sFID and their kin."""

import torch
from scipy.linalg import blas
from torch import Tensor

from eqzoo.statistics.gaussian import FeatureMoments, Gaussian


def frechet_distance(first: Gaussian | FeatureMoments, second: Gaussian | FeatureMoments) -> float:
    """Return |m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁ S₂)^½) (Dowson and Landau 1982; FID, Heusel et al. 2017, Eq. 6).

    With S₁ = A Aᵀ and S₂ = B Bᵀ the last trace is the sum of the singular values of P = Aᵀ B, here the roots of
    the eigenvalues of Pᵀ P. They are real whatever the ranks, nothing is added to a diagonal, and fewer
    images than features are exact (`sqrtm` is 5e-8 to 2e-6 off there, and 7 to 30 times slower). The
    value is biased by the number of images: compare such of one number only.

    Args:
        first: Of the images that are measured.
        second: Of the reference; a `Gaussian` keeps its factor for the next call.

    Raises:
        ValueError: If they have features of different sizes, or not finite ones.

    Example:
        >>> narrow, wide = Gaussian(torch.zeros(2), torch.eye(2)), Gaussian(torch.ones(2), 4 * torch.eye(2))
        >>> round(frechet_distance(narrow, wide), 9)
        4.0
    """
    first, second = (each if isinstance(each, Gaussian) else each.gaussian() for each in (first, second))
    if len(first.mean) != len(second.mean):
        raise ValueError(
            f'frechet_distance: features of {len(first.mean)} and {len(second.mean)} values; '
            'accepted are equal sizes; compare features of one extractor.'
        )
    root = _sum_of_singular_values(first.factor.T @ second.factor)
    traces = first.covariance.trace() + second.covariance.trace()
    distance = (first.mean - second.mean).square().sum() + traces - 2 * root
    return max(distance.item(), 0.0)  # equal sets may come out at -1e-12 of the traces


def _sum_of_singular_values(product: Tensor) -> Tensor:
    if not product.numel():  # a set without spread; BLAS would complain
        return product.new_zeros(())
    # the smaller of both squares: the larger has eigenvalues that are only rounding, whose roots would count
    is_tall = product.shape[0] >= product.shape[1]
    square = blas.dsyrk(1.0, product.numpy(), trans=is_tall, lower=True)  # the lower triangle: half the work
    return torch.linalg.eigvalsh(torch.from_numpy(square), UPLO='L').clamp_min(0).sqrt().sum()
