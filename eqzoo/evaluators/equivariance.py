"""Equivariance error of an autoencoder: E(τ∘x) against τ∘E(x), with standard errors and curves over a transform."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqzoo.evaluators.base import ROUNDING_SHARE, AutoencoderView, Evaluator
from eqzoo.images import psnr
from eqzoo.precision import to_double
from eqzoo.registry import EVALUATORS, EquivarianceTransform
from eqzoo.transforms import IsotropicScale, Rotate
from eqzoo.transforms.base import require_transform, valid_area

_RATIOS = ('eq_err', 'eq_rec_err')
_KINDS = ('eq_err', 'eq_err_paper', 'eq_rec', 'eq_rec_err')
_ERROR, _SQUARE, _CELLS, _VALUE = 0, 1, 2, 3  # columns of `error_terms`; the last is the first of C channels
_QUANTILE = 1.959964  # of the normal distribution: 95 % of values are within this many standard errors

# Measures that are drawn in one chart: title, label of the axis, label of each measure
_CHARTS = (
    (
        'Equivariance error',
        'squared error, relative to the variance',
        {'eq_err': 'latents', 'eq_rec_err': 'decoded images'},
    ),
    ('Reconstruction of the transformed', 'PSNR / dB', {'eq_rec': 'decoded images'}),
)


class Measure(NamedTuple):
    """A measure of one transform.

    Args:
        value: The mean over cases.
        std: Its standard error.
        cases: The value and the standard error of each case, by name.
    """

    value: float
    std: float
    cases: dict[str, tuple[float, float]]


@EVALUATORS.register_module()
class EquivarianceError(Evaluator):
    """Equivariance error for each named transform, averaged over its cases; `curves` if cases are numbers.

    With E the posterior mean in generator units, a = τ∘E(x), b = E(τ∘x):

    `eq_err/<name>` = Σ ‖a − b‖² / Σ ‖b − μ‖², sums over the images, μ the mean of b per channel over the
    set. 0 is perfect, 1 is as bad as predicting the mean, 2 means unrelated. A factor on the latents or an
    offset on a channel does not change it.

    `eq_err/<name>_std` is its standard error with images as units (a 95 % interval is ± 1.96 of it, from
    about 30 images on).

    `eq_err_paper/<name>` = mean over images of ‖a − b‖² / ‖b‖² (EQ-VAE, App. C.3). An offset on the latents
    lowers it without any gain in equivariance, and constant latents have 0; it is not finite if an image's
    latents are all 0.

    With `image_side`, `eq_rec/<name>` is the PSNR in dB of D(τ∘E(x)) from τ∘x, 8-bit, per image, which is
    the objective that EQ-VAE trains; `eq_rec_err/<name>` and its `_std` are the ratio above for these images.
    Both include the autoencoder's own error: compare with `psnr`.

    `eq_err/<name>/<case>`, and likewise for the others, are the values of single cases. Latents that do not
    vary have no error: the value is NaN.

    Args:
        transforms: By name. Default: rotation by the three quarter turns, and scale by 0.25,
            0.5 and 0.75 with bicubic, antialiased resampling of images and latents, which
            has the lowest floor: about 0.006 for a perfectly equivariant encoder.
        mask: Whether to leave out the cells that transforms fill in at the border. It has no effect on
            exact transforms and on scales. Without it all names contain `_unmasked`.
        image_side: Whether to decode as well: one more decoding for each case.

    Raises:
        ValueError: If there is no transform, a value is none, or a name is empty or has a slash.
    """

    def __init__(
        self,
        transforms: Mapping[str, EquivarianceTransform] | None = None,
        *,
        mask: bool = True,
        image_side: bool = False,
    ) -> None:
        super().__init__()
        if transforms is None:
            scale = IsotropicScale(interpolation='bicubic', antialias=True)
            transforms = {'rotation': Rotate(), 'scale': scale}
        if not transforms or not all(name and '/' not in name for name in transforms):
            raise ValueError(
                'EquivarianceError.transforms must be one or more transforms by name, names without a slash, '
                f'got {dict(transforms)}; leave it out for rotation and scale.'
            )
        for name, transform in transforms.items():
            require_transform(f'EquivarianceError.transforms[{name!r}]', transform)
        self.transforms = dict(transforms)
        self.mask, self.image_side = mask, image_side
        self.cases: dict[str, list[str]] = {}  # known once evaluated

    @torch.no_grad()
    def update(self, view: AutoencoderView) -> None:
        """Add a batch: one encoding for each case, and with `image_side` one decoding.

        Raises:
            ValueError: If τ∘E(x) and E(τ∘x) differ in size, or the mask leaves nothing.
        """
        for name, transform in self.transforms.items():
            cases = transform.cases(tuple(view.latents.shape[2:]))
            terms, decoded_terms, psnrs = [], [], []
            for case, params in cases.items():
                where = f'EquivarianceError: {name} {case}'
                images, latents = (transform(x, params) for x in (view.images, view.latents))
                encoded = view.autoencoder.latents(images)
                _check_sizes(where, latents, encoded)
                mask = self._mask(where, transform, view.latents, params)
                terms.append(error_terms(latents, encoded, mask))
                if self.image_side:
                    decoded = view.autoencoder.decode(view.autoencoder.normalization.denormalize(latents))
                    mask = self._mask(where, transform, view.images, params)
                    decoded_terms.append(error_terms(decoded, images, mask))
                    psnrs.append(psnr(decoded, images, mask))
            self._add_ratio(f'eq_err/{name}', list(cases), terms)
            self._add_mean(f'eq_err_paper/{name}', [each[:, 0] / each[:, 1] for each in terms])
            if self.image_side:
                self._add_ratio(f'eq_rec_err/{name}', list(cases), decoded_terms)
                self._add_mean(f'eq_rec/{name}', psnrs)

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return all measures of each transform, then those of each case alone; set `curves`."""
        # read from the sums: this process may have seen no image, and others did
        known = [key.split('/') for key in sums if key.startswith('eq_err/') and key.count('/') == 2]
        self.cases = {name: [case for _, its, case in known if its == name] for name in self.transforms}
        measures = {
            key: self._measure(key, sums)
            for name in self.transforms
            for key in (f'{kind}/{name}' for kind in _KINDS)
            if key in sums
        }
        self.curves = case_curves(measures, self.transforms)
        for curve in () if self.mask else self.curves:
            curve['title'] += ', unmasked'
        metrics: dict[str, float] = {}
        for key, measure in measures.items():
            metrics[key] = measure.value
            if key.split('/')[0] in _RATIOS:
                metrics[f'{key}_std'] = measure.std
        for key, measure in measures.items():
            if not key.startswith('eq_err_paper/'):
                metrics |= {f'{key}/{case}': value for case, (value, _) in measure.cases.items()}
        return metrics if self.mask else {_unmasked(key): value for key, value in metrics.items()}

    def card(self) -> dict[str, Any]:
        """Return the transforms and the comparison."""
        return {
            'transforms': {name: repr(transform) for name, transform in self.transforms.items()},
            'cases': self.cases,
            'latent': 'posterior mean in generator units',
            'average': 'over cases, never over transforms',
            'border': 'what transforms fill in is left out' if self.mask else 'everything counts',
            'std': 'standard error by the delta method, images being the units',
        }

    def _mask(self, where: str, transform: EquivarianceTransform, x: Tensor, params: Any) -> Tensor | None:
        size = tuple(x.shape[2:])
        area = valid_area(transform, size, params) if self.mask else None
        if area is not None and not area.any():
            raise ValueError(
                f'{where}: the mask leaves nothing of {size[0]} x {size[1]}; use larger images, smaller angles or '
                'shifts, or mask=False.'
            )
        return area

    def _add_ratio(self, key: str, cases: list[str], terms: list[Tensor]) -> None:
        """Add each case's terms to the sum `key/case`, and the second moments of all cases' terms to `key`."""
        for case, each in zip(cases, terms, strict=True):
            self.add(f'{key}/{case}', each)
        together = torch.cat(terms, dim=1)
        self.add_total(key, together.T @ together)

    def _add_mean(self, key: str, values: list[Tensor]) -> None:
        """Add the values (B,) of all cases and their mean, and the squares of these, to the sum `key`."""
        stacked = torch.stack(values, dim=1).double()
        stacked = torch.cat([stacked, stacked.mean(dim=1, keepdim=True)], dim=1)
        self.add(key, torch.stack([stacked, stacked.square()], dim=1))

    def _measure(self, key: str, sums: Mapping[str, Tensor]) -> Measure:
        kind, name = key.split('/')
        cases, count = self.cases[name], sums['count'].item()
        if kind in _RATIOS:
            return ratio_measure({case: sums[f'{key}/{case}'] for case in cases}, sums[key], count)
        return mean_measure(cases, sums[key], count)


def _check_sizes(where: str, transformed: Tensor, encoded: Tensor) -> None:
    if transformed.shape != encoded.shape:
        raise ValueError(
            f'{where} turns latents into {tuple(transformed.shape[2:])} cells, '
            f'but the transformed images encode to {tuple(encoded.shape[2:])}; '
            'use cases that are exact on the latent grid.'
        )


def _unmasked(key: str) -> str:
    kind, slash, rest = key.partition('/')
    return f'{kind}_unmasked{slash}{rest}'


def ratio_measure(totals: Mapping[str, Tensor], outer: Tensor, count: float) -> Measure:
    """Return the normalised error from the summed `error_terms` of each case and their second moments `outer`."""
    each, start = {}, 0
    for case, total in totals.items():
        own = slice(start, start := start + len(total))
        each[case] = normalised_error(total), standard_error([total], outer[own, own], count)
    value = sum(each_value for each_value, _ in each.values()) / len(each)
    return Measure(value, standard_error(list(totals.values()), outer, count), each)


def mean_measure(cases: Sequence[str], sums: Tensor, count: float) -> Measure:
    """Return the mean from the sums of values and of their squares, (2, cases + 1); the mean over cases is last."""
    means = sums[0] / count
    variances = (sums[1] / count - means.square()).clamp_min(0) / (count - 1 or float('nan'))
    pairs = list(zip(means.tolist(), variances.sqrt().tolist(), strict=True))
    return Measure(*pairs[-1], dict(zip(cases, pairs[:-1], strict=True)))


def error_terms(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the terms of each image whose sums give the normalised error, (B, 3 + C), float64.

    In this order: ‖a − b‖², ‖b‖², the number of cells of a channel, and the sum of b in each channel.

    Args:
        a: (B, C, H, W).
        b: As a.
        mask: The cells that count, (H, W), bool; None for all.
    """
    a, b = (to_double(x).flatten(2) for x in (a, b))
    if mask is not None:
        mask = mask.flatten().to(a.device)
        a, b = a[..., mask], b[..., mask]
    cells = b.new_full((len(b), 1), b.shape[2])
    errors, squares = ((each.square().sum(dim=(1, 2)))[:, None] for each in (a - b, b))
    return torch.cat([errors, squares, cells, b.sum(dim=2)], dim=1)


def normalised_error(total: Tensor) -> float:
    """Return Σ ‖a − b‖² / Σ ‖b − μ‖² from summed terms (3 + C,); μ is the mean of b in each channel.

    It is NaN if b does not vary.
    """
    variation = _variation(total)
    if variation <= ROUNDING_SHARE * total[_SQUARE]:
        return float('nan')
    return (total[_ERROR] / variation).item()


def standard_error(totals: Sequence[Tensor], outer: Tensor, count: float) -> float:
    """Return the standard error of the mean over cases of `normalised_error`, with images as units.

    By the delta method: each image's influence on the mean is linear in its terms, so the variance of the
    influences follows from the terms' second moments. All cases are of the same images, so their covariances
    count.

    Args:
        totals: The summed terms (3 + C,) of each case.
        outer: The sum over images of zᵀz, where z is all cases' terms in one row, (K, K).
        count: The number of images; NaN for one.
    """
    influence = torch.cat([_influence(total) for total in totals]) / len(totals)
    if count < 2 or not influence.isfinite().all():
        return float('nan')
    variance = (influence @ outer @ influence).clamp_min(0) / (1 - 1 / count)
    return math.sqrt(variance)


def _variation(total: Tensor) -> Tensor:
    """Return Σ ‖b − μ‖² = Σ ‖b‖² − (Σ b)² / cells; the difference of moments is safe in float64."""
    return total[_SQUARE] - (total[_VALUE:].square() / total[_CELLS]).sum()


def _influence(total: Tensor) -> Tensor:
    """Return the factors (3 + C,) that turn an image's terms into its influence on the ratio R.

    The derivative of R = Σe / Σv with respect to the weight of one image is (e − R v) / Σv, with e = ‖a − b‖²
    and v = ‖b − μ‖². (μ depends on the weights too, but Σv is smallest at μ, so that part vanishes.) Expanding
    v = ‖b‖² − 2 μ·Σb + cells ‖μ‖² gives one factor for each of the terms e, ‖b‖², cells and Σb.
    """
    ratio, mean = normalised_error(total), total[_VALUE:] / total[_CELLS]
    # in the order of `error_terms`
    factors = torch.cat([total.new_tensor([1, -ratio, -ratio * mean.square().sum()]), 2 * ratio * mean])
    return factors / _variation(total)


def case_curves(measures: Mapping[str, Measure], transforms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return curves of measures over the cases, with 95 % intervals, for transforms with several numeric cases.

    Args:
        measures: By kind and transform: `eq_err/rotation`.
        transforms: By name; their `parameter` labels the horizontal axis.
    """
    curves = []
    for name, transform in transforms.items():
        for title, label, kinds in _CHARTS:
            found = {legend: measures[key] for kind, legend in kinds.items() if (key := f'{kind}/{name}') in measures}
            series = [_series(legend, measure) for legend, measure in found.items() if _are_numbers(measure.cases)]
            if series:
                axis = getattr(transform, 'parameter', None) or name
                curves.append({'title': f'{title}: {name}', 'x': axis, 'y': label, 'log': False, 'series': series})
    return curves


def _series(label: str, measure: Measure) -> dict[str, Any]:
    points = sorted((float(case), value, _QUANTILE * std) for case, (value, std) in measure.cases.items())
    return {
        'label': label,
        'x': [x for x, _, _ in points],
        'y': [value for _, value, _ in points],
        'low': [value - half for _, value, half in points],
        'high': [value + half for _, value, half in points],
    }


def _are_numbers(cases: Mapping[str, Any]) -> bool:
    try:
        return len([float(case) for case in cases]) > 1
    except ValueError:
        return False
