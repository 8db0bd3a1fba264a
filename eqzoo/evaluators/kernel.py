"""The kernel distance between two sets of features: KID."""

from typing import NamedTuple

import torch
from torch import Tensor


class KernelDistance(NamedTuple):
    """Squared maximum mean discrepancy.

    Args:
        mean: Over the subsets; what is reported as `kid`. Unbiased: about zero, also below, for two
            samples of one distribution, whatever their number.
        std: Over the subsets, divided by their number; it shrinks with the subsets' size.
    """

    mean: float
    std: float


def kernel_distance(
    first: Tensor,
    second: Tensor,
    *,
    generator: torch.Generator,
    subsets: int = 100,
    subset_size: int = 1000,
) -> KernelDistance:
    """Return the kernel distance of random subsets, by the kernel (x·y / D + 1)³ (Binkowski et al. 2018, KID).

    The definition and both defaults are torch-fidelity's. Differs from it: the subsets are
    drawn by torch's generator, and all is in float64.

    Args:
        first: Features (N, D).
        second: Features (M, D).
        generator: Of the subsets, on the CPU.
        subsets: How many.
        subset_size: Images of each set in each subset.

    Raises:
        ValueError: If a set is smaller than a subset, the sizes of the features differ, or a value
            is not finite.
    """
    check_features('KID', first, second)
    if subsets < 1 or subset_size < 2:
        raise ValueError(f'KID: {subsets} subsets of {subset_size}; accepted are 1 or more of 2 or more.')
    if min(len(first), len(second)) < subset_size:
        raise ValueError(
            f'KID: sets of {len(first)} and {len(second)} images; subsets of {subset_size} need at least '
            f'{subset_size} in both; evaluate more images, or set a smaller subset_size and say so.'
        )
    values = [
        squared_discrepancy(_draw(first, subset_size, generator), _draw(second, subset_size, generator))
        for _ in range(subsets)
    ]
    distances = torch.stack(values)
    return KernelDistance(distances.mean().item(), distances.std(correction=0).item())


def squared_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Return the unbiased estimate (), float64, from equally many features (N, D) each (Gretton et al. 2012, Eq. 3)."""
    first, second = first.double(), second.double()
    count = len(first)
    within = [_kernel(each, each) for each in (first, second)]
    own = sum(kernel.sum() - kernel.diagonal().sum() for kernel in within) / (count * (count - 1))
    return own - 2 * _kernel(first, second).mean()


def check_features(where: str, first: Tensor, second: Tensor) -> None:
    """Refuse sets of features (N, D) and (M, D) that cannot be compared.

    Raises:
        ValueError: If they have no common D, or a value is not finite.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f'{where}: features {tuple(first.shape)} and {tuple(second.shape)}; accepted are (N, D) and (M, D); '
            'compare features of one extractor.'
        )
    for features in (first, second):
        damaged = ~features.isfinite().all(dim=1)
        if damaged.any():
            raise ValueError(
                f'{where}: {int(damaged.sum())} of {len(features)} images have NaN or infinite features, '
                f'the first is {int(damaged.nonzero()[0])}; look at that image.'
            )


def _draw(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(len(features), generator=generator)[:count]
    return features[chosen.to(features.device)]


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
