"""Spectrum of latents by the discrete cosine transform: its slope, and shares of high frequencies, SEC among them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqzoo.dct import dct
from eqzoo.evaluators.base import ROUNDING_SHARE, AutoencoderView, Evaluator
from eqzoo.precision import to_double
from eqzoo.registry import EVALUATORS

_NUM_BINS = 16
_MIN_SIDE = 4  # gives three bins, the fewest that have a slope
_SEC_RATIOS = (0.25, 0.5)  # of the public implementation of arXiv 2606.03578


class Spectrum(NamedTuple):
    """Power as a function of the distance from frequency 0.

    Args:
        frequency: Of each non-empty bin, ascending, relative to Nyquist: the geometric mean of its frequencies,
            which reproduces the slope of known spectra best (within 2 % on 8 to 32 cells, 9 % on 64).
        power: Mean of each bin.
        slope: Of the straight line through both logarithms, each bin with equal weight: 0 for white noise,
            negative if fine structure is weak.
        high_share: The share of power at half of Nyquist's frequency and above, without frequency 0: 0.75
            for white noise.
    """

    frequency: Tensor
    power: Tensor
    slope: float
    high_share: float


def radial_spectrum(power: Tensor) -> Spectrum:
    """Return the radial average of the squares of a DCT (H, W), which are means over images and channels.

    Frequency u of H is u / H of Nyquist's. The distance from 0 to 1 is divided into 16 bins; the corners
    beyond 1 are left out, and so is frequency 0.

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


def energy_concentration(power: Tensor, ratio: float) -> float:
    """Return SEC: the share of the `power` (H, W) of a DCT at frequencies with u + v > ratio · (H − 1 + W − 1).

    From "Diffusing in the Right Space" (arXiv 2606.03578, Eq. 9). Frequency 0 counts in the whole. NaN without
    any power.

    Example:
        >>> energy_concentration(torch.ones(8, 8), 0.25) == 54 / 64  # white noise: all but ten cells
        True
    """
    power = power.cpu().double()
    return (power[is_beyond(tuple(power.shape), ratio)].sum() / power.sum()).item()


def is_beyond(size: tuple[int, int], ratio: float) -> Tensor:
    """Return which frequencies (H, W) have u + v > ratio · (H − 1 + W − 1)."""
    rows, columns = (torch.arange(side) for side in size)
    return rows[:, None] + columns > ratio * (sum(size) - 2)


def check_sides(size: tuple[int, int]) -> None:
    """Refuse latents of a `size` (H, W) too small for a spectrum.

    Raises:
        ValueError: If a side is below 4.
    """
    if min(size) < _MIN_SIDE:
        raise ValueError(
            f'spectrum: {size[0]} x {size[1]} cells; expected at least {_MIN_SIDE} a side; use larger images.'
        )


def _slope(x: Tensor, y: Tensor) -> float:
    x = x - x.mean()
    return ((x * y).sum() / x.square().sum()).item()


@EVALUATORS.register_module()
class LatentSpectrum(Evaluator):
    """`spectrum/slope`, `…/high_share` and `…/checkerboard`, `sec/0.25` and `sec/0.5` of the latents' DCT-II.

    For the spectrum each channel is scaled to a variance of 1 over the set, so that all have equal weight; then
    powers are averaged over images and channels. White noise has slope 0 and high share 0.75; images and random
    codes of patches lie between that and -4 and 0.02. See `radial_spectrum` for the bins; `curves` has the
    spectrum. Latents that diffusion models learn easily fall more steeply (Skorokhodov et al. 2025). Channels
    that do not vary are left out; if none varies, these are NaN. The checkerboard is the power at the finest
    frequency of both directions, where neighbouring cells alternate: 1 for white noise. Filtered scaling removes it,
    so that an objective with antialiased scales leaves latents free to hide detail there (docs/differences.md).

    `sec/…` is the spectral energy concentration of arXiv 2606.03578, which predicts generators' FID there (correlation
    .80): see `energy_concentration`. **Lower is easier**; white noise on 8 x 8 cells has 0.84 and 0.44. It is of the
    latents as a generator sees them: its units have one scale for all channels or one for each, as the autoencoder's
    normalisation says. The paper does not state its units, and the public implementation takes the latents as they are.
    One scale for all channels changes nothing; a scale per channel gives the channels other weights. The channels'
    means count at frequency 0. The standard errors `sec/…_std` have images as units.

    Raises:
        ValueError: By `update`, if a side of the latents is below 4, or they change in size.
    """

    def update(self, view: AutoencoderView) -> None:
        """Add a batch's powers (C, h, w) and moments per channel.

        Raises:
            ValueError: If the latents are too small, or their size differs from that of earlier batches.
        """
        latents = to_double(view.latents)
        size = tuple(latents.shape[2:])
        check_sides(size)
        if 'power' in self.sums and self.sums['power'].shape[1:] != size:
            before = tuple(self.sums['power'].shape[1:])
            raise ValueError(f'LatentSpectrum: latents of {size} after {before} cells; use images of one size.')
        power = dct(latents).square()
        self.add('power', power)
        self.add('value', latents.sum(dim=(2, 3)))
        self.add('square', latents.square().sum(dim=(2, 3)))
        each = power.sum(dim=1)
        shares = [each[:, is_beyond(size, ratio).to(each.device)].sum(dim=1) for ratio in _SEC_RATIOS]
        terms = torch.stack([each.sum(dim=(1, 2)), *shares], dim=1)
        self.add_total('energy', terms.T @ terms)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return slope, share and SEC; set `curves`."""
        power = sums['power'] / sums['count']
        cells = sums['count'] * power[0].numel()
        square = sums['square'] / cells
        variance = square - (sums['value'] / cells).square()
        varies = variance > ROUNDING_SHARE * square
        # the mean of no channel is NaN, and so are all values computed from it
        relative = (power[varies] / variance[varies, None, None]).mean(dim=0)
        spectrum = radial_spectrum(relative)
        series = {
            'label': 'latents',
            'x': spectrum.frequency.tolist(),
            'y': spectrum.power.tolist(),
            'low': None,
            'high': None,
        }
        labels = {'title': 'Latent spectrum', 'x': 'frequency / Nyquist', 'y': 'power', 'log': True}
        self.curves = [{**labels, 'series': [series]}] if varies.any() else []
        metrics = {
            'spectrum/slope': spectrum.slope,
            'spectrum/high_share': spectrum.high_share,
            'spectrum/checkerboard': relative[-1, -1].item(),
        }
        whole = sums['power'].sum(dim=0)
        for number, ratio in enumerate(_SEC_RATIOS, start=1):
            share = energy_concentration(whole, ratio)
            metrics[f'sec/{ratio}'] = share
            metrics[f'sec/{ratio}_std'] = _share_error(share, number, sums['energy'], whole.sum(), sums['count'].item())
        return metrics

    def card(self) -> dict[str, Any]:
        """Return the kind of latents and the transform."""
        return {
            'latent': 'posterior mean in generator units, each channel of variance 1 over the set',
            'transform': 'DCT-II, orthonormal; 16 bins of the distance from frequency 0 up to Nyquist, 0 left out',
            'sec': 'of generator units as they are, frequency 0 in the whole; u + v above the share of its maximum',
        }


def _share_error(share: float, number: int, outer: Tensor, whole: Tensor, count: float) -> float:
    """Return the standard error of the share R = Σ h / Σ t by the delta method, images being the units.

    An image's influence is (h − R t) / Σ t.

    Args:
        share: R.
        number: The place of h among the terms; t is the first.
        outer: The sum over images of the terms' products, (K, K).
        whole: Σ t, ().
        count: The number of images; NaN for one.
    """
    factors = torch.zeros(len(outer), dtype=outer.dtype)
    factors[0], factors[number] = -share, 1.0
    variance = (factors @ outer @ factors).clamp_min(0) / whole.square()
    return math.sqrt(variance / (1 - 1 / count)) if count > 1 else math.nan
