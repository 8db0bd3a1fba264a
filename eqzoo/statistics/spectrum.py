"""Spectra by the discrete cosine transform: power over frequency, its slope and its high part."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_NUM_BINS = 16
_MIN_SIDE = 4  # three bins or more: fewer make no slope


class Spectrum(NamedTuple):
    """Power over the distance from frequency 0.

    Args:
        frequency: Of each bin that has any, ascending, over Nyquist's: the geometric mean, which is nearest to the
            slope of known spectra (within 2 % on 8 to 32 cells, 9 % on 64).
        power: Mean of each bin.
        slope: Of the straight line through both logarithms, each bin counting once: 0 for white noise, below it
            where fine structure is weak.
        high_share: The part of all power, but that of frequency 0, which is at half of Nyquist's
            frequency or above it: 0.75 for white noise.
    """

    frequency: Tensor
    power: Tensor
    slope: float
    high_share: float


def dct(x: Tensor) -> Tensor:
    """Return the orthonormal DCT-II of the last two dimensions of x (..., H, W), in float64 as `scipy.fft.dctn`.

    Example:
        >>> dct(torch.ones(2, 2)).round(decimals=6)
        tensor([[2., 0.],
                [0., 0.]], dtype=torch.float64)
    """
    rows, columns = (_dct_matrix(side).to(x.device) for side in x.shape[-2:])
    return rows @ x.double() @ columns.T


def radial_spectrum(power: Tensor) -> Spectrum:
    """Return what the squares of a DCT (H, W), averaged over images and channels, are over the distance from 0.

    Frequency u of H is u / H of Nyquist's. The distance goes to 1 in 16 bins; the corners
    beyond are left out, and so is frequency 0.

    Raises:
        ValueError: If a side is below 4.

    Example:
        >>> white = radial_spectrum(torch.ones(64, 64))
        >>> round(white.slope, 6), round(white.high_share, 2)
        (0.0, 0.75)
    """
    check_sides(tuple(power.shape))
    vertical, horizontal = (torch.arange(side, dtype=torch.float64) / side for side in power.shape)
    distance = torch.hypot(vertical[:, None].expand(power.shape), horizontal.expand(power.shape)).flatten()
    counted = (distance > 0) & (distance <= 1)
    distance, values = distance[counted], power.cpu().double().flatten()[counted]
    bins = (distance * _NUM_BINS).long().clamp_max(_NUM_BINS - 1)
    counts = torch.bincount(bins, minlength=_NUM_BINS)
    filled = counts > 0
    logarithm, mean = (
        torch.bincount(bins, weights=each, minlength=_NUM_BINS)[filled] / counts[filled]
        for each in (distance.log(), values)
    )
    high = values[distance >= 0.5].sum() / values.sum()
    return Spectrum(logarithm.exp(), mean, _slope(logarithm, mean.log()), high.item())


def check_sides(size: tuple[int, int]) -> None:
    """Refuse latents of a `size` (H, W) that has no spectrum.

    Raises:
        ValueError: If a side is below 4.
    """
    if min(size) < _MIN_SIDE:
        raise ValueError(
            f'spectrum: {size[0]} x {size[1]} cells; accepted are {_MIN_SIDE} or more a side; use larger images.'
        )


def _slope(x: Tensor, y: Tensor) -> float:
    x = x - x.mean()
    return ((x * y).sum() / x.square().sum()).item()


def _dct_matrix(side: int) -> Tensor:
    """Return C with C x the orthonormal DCT-II of x (side,); in float64: a float32 basis is off by 1e-5."""
    places = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi / side * places[:, None] * (places + 0.5)) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix
