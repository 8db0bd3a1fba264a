"""A ratio of sums over images, Σ ‖a − b‖² / Σ ‖b − μ‖², and its standard error, from sums alone."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eqzoo.evaluators.base import to_double

_ERROR, _SQUARE, _CELLS, _VALUE = 0, 1, 2, 3  # columns of the terms; one value for each channel from the last on


def error_terms(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return what each image adds to the sums, (B, 3 + C), float64.

    In this order: ‖a − b‖², ‖b‖², the cells of a channel, and the sum of b in each channel.

    Args:
        a: (B, C, H, W).
        b: As a.
        mask: Which cells count, (H, W), bool; None for all.
    """
    a, b = (to_double(x).flatten(2) for x in (a, b))
    if mask is not None:
        mask = mask.flatten().to(a.device)
        a, b = a[..., mask], b[..., mask]
    cells = b.new_full((len(b), 1), b.shape[2])
    errors, squares = ((each.square().sum(dim=(1, 2)))[:, None] for each in (a - b, b))
    return torch.cat([errors, squares, cells, b.sum(dim=2)], dim=1)


def normalised_error(total: Tensor) -> float:
    """Return the ratio that summed terms (3 + C,) give; μ is the mean of b in each channel.

    It is NaN if b does not vary. The variation follows from moments, safe in float64.
    """
    variation = _variation(total)
    # rounding leaves about 1e-16 of the squares: anything below 1e-12 of them is a constant
    if variation <= 1e-12 * total[_SQUARE]:
        return float('nan')
    return (total[_ERROR] / variation).item()


def standard_error(totals: Sequence[Tensor], outer: Tensor, count: float) -> float:
    """Return the standard error of the mean over cases of `normalised_error`, images being the units.

    By the delta method: each image's influence on the mean is linear in its terms (that of μ
    vanishes, as μ is where Σ ‖b − μ‖² is least), so its variance over images is a product of
    the terms' second moments. All cases are of the same images; what they have in common counts.

    Args:
        totals: Of each case its summed terms (3 + C,).
        outer: The sum over images of zᵀz, z all cases' terms in one row, (K, K).
        count: How many images. Of one alone there is no error: NaN.
    """
    influence = torch.cat([_influence(total) for total in totals]) / len(totals)
    if count < 2 or not influence.isfinite().all():
        return float('nan')
    variance = (influence @ outer @ influence).clamp_min(0) / (1 - 1 / count)
    return math.sqrt(variance)


def _variation(total: Tensor) -> Tensor:
    return total[_SQUARE] - (total[_VALUE:].square() / total[_CELLS]).sum()


def _influence(total: Tensor) -> Tensor:
    """Return what an image's terms are multiplied by to give (‖a − b‖² − ratio · ‖b − μ‖²) / Σ ‖b − μ‖²."""
    ratio, mean = normalised_error(total), total[_VALUE:] / total[_CELLS]
    factors = torch.cat([total.new_tensor([1, -ratio, -ratio * mean.square().sum()]), 2 * ratio * mean])
    return factors / _variation(total)
