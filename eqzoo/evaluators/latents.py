"""Latent statistics: spread, kurtosis, effective rank; and the base class of evaluators that keep latents."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import ROUNDING_SHARE, AutoencoderView, Evaluator
from eqzoo.precision import to_double
from eqzoo.randomness import seeded
from eqzoo.registry import EVALUATORS

JACKKNIFE_GROUPS = 10
_SEED = 0


class LatentSample(Evaluator):
    """Base class that keeps the latents of at most `max_images`, drawn once, the same for any batches and processes.

    In `compute`, `latents` returns them (N, C, h, w), float32, in the order of the data set, on the GPU if
    they were computed there.

    Args:
        max_images: How many are kept.
        min_images: Fewer images in the data set are refused.
    """

    def __init__(self, max_images: int, min_images: int) -> None:
        super().__init__()
        if not 0 < min_images <= max_images:
            raise ValueError(
                f'{type(self).__name__}: max_images must be at least min_images, '
                f'got max_images={max_images}, min_images={min_images}.'
            )
        self.max_images, self.min_images = max_images, min_images
        self._chosen: Tensor | None = None
        self._device = torch.device('cpu')

    def check(self, num_images: int) -> None:
        """Draw which images are kept."""
        self._chosen = torch.zeros(num_images, dtype=torch.bool)
        self._chosen[torch.randperm(num_images, generator=seeded(_SEED, num_images))[: self.max_images]] = True

    def update(self, view: AutoencoderView) -> None:
        """Keep the latents of the drawn images of a batch; of all images if `check` was not called."""
        latents, chosen = self.latents_of(view).float(), self.are_kept(view.numbers)
        if latents.is_cuda:
            self._device = latents.device
        self.keep('latents', latents.cpu()[chosen], view.numbers.cpu()[chosen])

    def latents_of(self, view: AutoencoderView) -> Tensor:
        """Return the latents (B, C, h, w) of a batch that are kept: in generator units."""
        return view.latents

    def are_kept(self, numbers: Tensor) -> Tensor:
        """Return whether the latents of the images `numbers` (B,) are kept, (B,), on the CPU."""
        numbers = numbers.cpu()
        return torch.ones(len(numbers), dtype=torch.bool) if self._chosen is None else self._chosen[numbers]

    def latents(self) -> Tensor:
        """Return the kept latents of all processes."""
        return self.kept['latents'].to(self._device)

    def card(self) -> dict[str, Any]:
        """Return the kind of latents."""
        return {'latent': 'posterior mean in generator units', 'max_images': self.max_images}


@EVALUATORS.register_module()
class LatentStatistics(Evaluator):
    """`latent_std` and `latent_kurtosis`, in generator units; `curves` has each channel.

    `latent_std` is the root of the variance, averaged over channels. A value near 0 is a collapse, which
    lowers uncentred errors; a value far from 1 after fine-tuning means that the autoencoder's scale must be
    measured again.

    `latent_kurtosis` is the excess kurtosis, averaged over channels: 0 for a normal distribution, -1.2 for a
    uniform one, above 0 with heavy tails. Channels that do not vary are left out; if no channel varies it is
    NaN.
    """

    def update(self, view: AutoencoderView) -> None:
        """Add a batch's moments per channel."""
        latents = to_double(view.latents)
        for power in (1, 2, 3, 4):
            self.add(f'power {power}', latents.pow(power).sum(dim=(2, 3)))
        self.add('cells', torch.full((len(latents),), float(latents[0, 0].numel())))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return both; set `curves`."""
        mean, square, cube, fourth = (sums[f'power {power}'] / sums['cells'] for power in (1, 2, 3, 4))
        variance = (square - mean.square()).clamp_min(0)
        # the fourth central moment from raw moments: safe, because latents are near 0 and sums are in float64
        central = fourth - 4 * mean * cube + 6 * mean.square() * square - 3 * mean.pow(4)
        kurtosis = (central / variance.square() - 3)[variance > ROUNDING_SHARE * square]
        self.curves = [_channel_curve(mean, variance.sqrt())]
        return {
            'latent_std': variance.mean().sqrt().item(),
            'latent_kurtosis': kurtosis.mean().item(),  # NaN if no channel varies
        }

    def card(self) -> dict[str, Any]:
        """Return the kind of latents and of averages."""
        return {'latent': 'posterior mean in generator units', 'average': 'variance and kurtosis over channels'}


def _channel_curve(mean: Tensor, std: Tensor) -> dict[str, Any]:
    series = {
        'label': 'mean ± standard deviation',
        'x': list(range(len(mean))),
        'y': mean.tolist(),
        'low': (mean - std).tolist(),
        'high': (mean + std).tolist(),
    }
    return {'title': 'Latent channels', 'x': 'channel', 'y': 'latents', 'log': False, 'series': [series]}


@EVALUATORS.register_module()
class EffectiveRank(Evaluator):
    """`effective_rank`, its standard error `_std`, and `condition_number` of the covariance of channels.

    The covariance (C, C) is that of all cells of all images, in generator units. Its effective rank is the
    participation ratio (Σ λ)² / Σ λ² of its eigenvalues: C if all channels vary independently and equally, 1
    if all are multiples of one. The condition number is the largest eigenvalue divided by the smallest;
    infinite if a channel does not vary, or depends linearly on others. Neither has a better direction: high
    ranks use the latents well, low ones make a generator's task smaller (arXiv 2606.03578, Eq. 6).

    A scale and a shift common to all channels change neither; a scale for each channel changes both. If no
    channel varies, both are NaN.
    """

    def update(self, view: AutoencoderView) -> None:
        """Add a batch's first and second moments, each image to one of ten groups by its number."""
        latents = to_double(view.latents).flatten(2)
        group = (view.numbers % JACKKNIFE_GROUPS).to(latents.device)
        for name, moments in (
            ('cells', torch.full_like(latents[:, 0, 0], latents.shape[2])),
            ('value', latents.sum(dim=2)),
            ('outer', latents @ latents.mT),
        ):
            total = moments.new_zeros(JACKKNIFE_GROUPS, *moments.shape[1:])
            self.add_total(name, total.index_add_(0, group, moments))

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the three numbers."""
        parts = sums['cells'], sums['value'], sums['outer']
        covariance = _covariance(*(part.sum(dim=0) for part in parts))
        filled = (parts[0] > 0).nonzero()[:, 0]
        without = [
            _participation_ratio(_covariance(*(part.sum(dim=0) - part[group] for part in parts)))
            for group in (filled if len(filled) > 1 else [])
        ]
        eigenvalues = torch.linalg.eigvalsh(covariance)
        largest, smallest = eigenvalues[-1].item(), eigenvalues[0].item()
        condition = largest / smallest if smallest > ROUNDING_SHARE * largest else math.inf
        return {
            'effective_rank': _participation_ratio(covariance),
            'effective_rank_std': jackknife_error(torch.tensor(without, dtype=torch.float64)),
            'condition_number': condition if largest > 0 else math.nan,
        }

    def card(self) -> dict[str, Any]:
        """Return the kind of latents and of covariance."""
        return {
            'latent': 'posterior mean in generator units',
            'covariance': 'of channels, over all cells of all images',
            'std': f'jackknife, {JACKKNIFE_GROUPS} groups of images',
        }


def jackknife_error(values: Tensor) -> float:
    """Return the standard error of a statistic from its `values` (G,) without each of G groups of images.

    √((G − 1) / G · Σ (θ_g − θ̄)²), the jackknife of Quenouille and Tukey; for the mean of groups of one size it
    is the usual standard error. NaN for fewer than two groups.

    Example:
        >>> round(jackknife_error(torch.tensor([2.5, 2.0, 1.5])), 6)  # the mean of 1, 2 and 3, each left out once
        0.57735
    """
    count = len(values)
    if count < 2:
        return math.nan
    return math.sqrt((count - 1) / count * (values - values.mean()).square().sum().item())


def _covariance(cells: Tensor, value: Tensor, outer: Tensor) -> Tensor:
    """Return the covariance (C, C) from sums over cells; channels that do not vary have exactly 0."""
    mean = value / cells
    square = outer / cells
    covariance = square - mean[:, None] * mean
    varies = covariance.diagonal() > ROUNDING_SHARE * square.diagonal()
    return covariance * varies * varies[:, None]


def _participation_ratio(covariance: Tensor) -> float:
    """Return (Σ λ)² / Σ λ² = (tr Σ)² / tr Σ², NaN if nothing varies."""
    return (covariance.trace().square() / covariance.square().sum()).item()
