"""What sums say of a transform: a value with its standard error, for all cases together and for each; as curves."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from eqzoo.evaluators.base import to_double
from eqzoo.evaluators.equivariance_ratio import normalised_error, standard_error
from eqzoo.evaluators.reconstruction import to_uint8

_QUANTILE = 1.959964  # of the normal distribution: 95 % are within as many standard errors
_MIN_SQUARED_ERROR = 1e-10  # of values in [0, 1]: 100 dB at most, as `psnr`

# Which measures are drawn together, over what
_CHARTS = (
    ('Equivariance error', 'error / variation', {'eq_err': 'latents', 'eq_rec_err': 'decoded images'}),
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


def ratio_measure(totals: Mapping[str, Tensor], outer: Tensor, count: float) -> Measure:
    """Return the measure that `error_terms` add up to, of each case, and their second moments `outer`."""
    each, start = {}, 0
    for case, total in totals.items():
        own = slice(start, start := start + len(total))
        each[case] = normalised_error(total), standard_error([total], outer[own, own], count)
    value = sum(each_value for each_value, _ in each.values()) / len(each)
    return Measure(value, standard_error(list(totals.values()), outer, count), each)


def mean_measure(cases: Sequence[str], sums: Tensor, count: float) -> Measure:
    """Return the measure that values and their squares add up to, (2, cases + 1), the mean over cases last."""
    means = sums[0] / count
    variances = (sums[1] / count - means.square()).clamp_min(0) / (count - 1 or float('nan'))
    pairs = list(zip(means.tolist(), variances.sqrt().tolist(), strict=True))
    return Measure(*pairs[-1], dict(zip(cases, pairs[:-1], strict=True)))


def psnr(images: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return each image's PSNR in dB, (B,), of 8-bit values, as `ReconstructionMetric` does.

    Args:
        images: (B, C, H, W), about [-1, 1].
        target: As images.
        mask: Which pixels count, (H, W), bool; None for all.
    """
    difference = (to_double(to_uint8(images)) - to_double(to_uint8(target))).flatten(2) / 255
    if mask is not None:
        difference = difference[..., mask.flatten().to(difference.device)]
    error = difference.square().mean(dim=(1, 2))
    return -10 * error.clamp_min(_MIN_SQUARED_ERROR).log10()


def curves_of(measures: Mapping[str, Measure], transforms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return curves over what cases are numbers of, with 95 % intervals; none where names are words, or one alone.

    Args:
        measures: By kind and transform: `eq_err/rotation`.
        transforms: By name; their `parameter` is the horizontal axis's label.
    """
    curves = []
    for name, transform in transforms.items():
        for title, label, kinds in _CHARTS:
            found = {told: measures[key] for kind, told in kinds.items() if (key := f'{kind}/{name}') in measures}
            series = [_series(told, measure) for told, measure in found.items() if _are_numbers(measure.cases)]
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
