"""Means over seeds, what differs between arms seed by seed, and how much sooner one gets where another ends."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import NamedTuple

from eqzoo.report.table import better, format_number
from eqzoo.studies.scores import Score, steps_of
from eqzoo.studies.study import Study

Curve = Sequence[tuple[int, float]]


class Spread(NamedTuple):
    """A mean over seeds, the standard deviation of one seed (n - 1), and how many there are."""

    mean: float
    std: float | None
    count: int


class Difference(NamedTuple):
    """By how much two arms differ, seed by seed, and in how many seeds so: of the sign of the mean."""

    spread: Spread
    agreeing: int


class SpeedUp(NamedTuple):
    """How many times sooner an arm reaches the other's last score.

    Args:
        ratios: One a seed; None where it does not reach it within its steps.
        last: The other's last step.
    """

    ratios: tuple[float | None, ...]
    last: int


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and standard deviation of `values`; None if there are none, NaN where one is no number.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        Spread(mean=2.0, std=1.0, count=3)
    """
    values = [*values]
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return Spread(math.nan, None, len(values))
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def by_seed(
    scores: Iterable[Score], metric: str, autoencoder: str, generator: str | None = None, step: int | None = None
) -> dict[int, float]:
    """Return a metric of one arm for each seed; NaN where it is no number."""
    return {
        each.seed: math.nan if each.metrics[metric] is None else each.metrics[metric]
        for each in scores
        if (each.autoencoder, each.generator, each.step) == (autoencoder, generator, step) and metric in each.metrics
    }


def difference(arm: Mapping[int, float], control: Mapping[int, float]) -> Difference | None:
    """Return how an arm differs from its control, the seeds paired; None if they have none in common.

    Example:
        >>> difference({0: 2.0, 1: 3.5}, {0: 1.0, 1: 4.0})
        Difference(spread=Spread(mean=0.25, std=1.0606601717798212, count=2), agreeing=1)
    """
    values = [arm[seed] - control[seed] for seed in arm if seed in control]
    found = spread(values)
    if found is None:
        return None
    return Difference(found, sum(value * found.mean > 0 for value in values))


def speed_up(arm: Mapping[int, Curve], control: Mapping[int, Curve]) -> SpeedUp | None:
    """Return how many times sooner `arm` reaches the last score of `control`, the seeds paired; less is better.

    Between steps that were scored curves are straight lines. A score that is there at the first
    step already gives a ratio that is too small, not too large.
    """
    seeds = [seed for seed in control if seed in arm]
    if not seeds:
        return None
    last = control[seeds[0]][-1][0]
    reached = [first_below(arm[seed], control[seed][-1][1]) for seed in seeds]
    return SpeedUp(tuple(None if step is None else last / step for step in reached), last)


def first_below(curve: Curve, target: float) -> float | None:
    """Return the step at which `curve` first comes down to `target`; None if it does not.

    Example:
        >>> first_below([(100, 9.0), (200, 5.0), (300, 4.0)], 7.0)
        150.0
    """
    if curve[0][1] <= target:
        return float(curve[0][0])
    for (before, high), (after, low) in pairwise(curve):
        if low <= target:
            return before + (after - before) * (high - target) / (high - low)
    return None


# What tables call a metric whose own name is long.
_SHORT = {
    'eq_err/': 'error: ',
    'intrinsic_dimension': 'dimension',
    'fd_effnet_lite0': 'fd',
    'precision_effnet_lite0': 'precision',
    'recall_effnet_lite0': 'recall',
    'coverage_effnet_lite0': 'coverage',
    'density_effnet_lite0': 'density',
    '_112px': '',
    'codebook/usage': 'codes used',
    'codebook/perplexity': 'perplexity',
}


def autoencoder_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return a line for each autoencoder: means and standard deviations over seeds."""
    metrics = _present(study.columns['autoencoder'], [each for each in scores if each.generator is None])
    rows = [
        [name, *(_shown(spread(by_seed(scores, metric, name).values())) for metric in metrics)]
        for name in study.autoencoders
    ]
    return markdown([['', *map(heading, metrics)], *rows])


def generator_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return a line for each generator on each autoencoder, after its last step."""
    metrics = _present(study.columns['generator'], [each for each in scores if each.generator is not None])
    rows = []
    for autoencoder, generator in study.pairs():
        last = steps_of(scores, generator.name)[-1]
        arm = autoencoder.name, generator.name, last
        cells = [_shown(spread(by_seed(scores, metric, *arm).values())) for metric in metrics]
        rows.append([f'{generator.name} on {autoencoder.name}', f'{last:,}', *cells])
    return markdown([['', 'steps', *map(heading, metrics)], *rows])


def difference_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return, for each arm that has a control, how it differs from that in all metrics that tables show."""
    own = _present(study.columns['autoencoder'], [each for each in scores if each.generator is None])
    of_samples = [study.score] if study.score and study.generators else []
    rows = []
    for name, arm in study.autoencoders.items():
        if arm.against is None:
            continue
        cells = [_told(difference(by_seed(scores, each, name), by_seed(scores, each, arm.against))) for each in own]
        for metric, generator in itertools.product(of_samples, study.generators):
            last = steps_of(scores, generator)[-1]
            both = (by_seed(scores, metric, each, generator, last) for each in (name, arm.against))
            cells.append(_told(difference(*both)))
        rows.append([f'{name} − {arm.against}', *cells])
    titles = [f'{heading(metric, arrow=False)} of {each}' for metric in of_samples for each in study.generators]
    return markdown([['', *(heading(each, arrow=False) for each in own), *titles], *rows]) if rows else []


def curve_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return the score of each generator on each autoencoder after each of its steps, and its speed-up."""
    arms = [(autoencoder, generator) for autoencoder, generator in study.pairs() if len(generator.scores) > 1]
    if not arms or study.score is None:
        return []
    steps = sorted({step for _, generator in arms for step in steps_of(scores, generator.name)})
    rows = []
    for autoencoder, generator in arms:
        cells = [
            _shown(spread(by_seed(scores, study.score, autoencoder.name, generator.name, step).values()))
            for step in steps
        ]
        faster = (
            _times(speed_up(*(curves_of(study, scores, name, generator.name) for name in (autoencoder.name, control))))
            if (control := autoencoder.against) is not None
            else '–'
        )
        rows.append([f'{generator.name} on {autoencoder.name}', *cells, faster])
    return markdown([['', *(f'{step:,}' for step in steps), 'speed-up'], *rows])


def curves_of(study: Study, scores: Sequence[Score], autoencoder: str, generator: str) -> dict[int, list]:
    """Return each seed's (step, score) of a generator on an autoencoder."""
    curves: dict[int, list] = {}
    for step in steps_of(scores, generator):
        for seed, value in by_seed(scores, study.score, autoencoder, generator, step).items():
            curves.setdefault(seed, []).append((step, value))
    return curves


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells, the first one the heading, as a Markdown table."""
    lines = ['| ' + ' | '.join(cell.replace('|', '\\|') for cell in row) + ' |' for row in rows]
    return [lines[0], '|' + ' --- |' + ' ---: |' * (len(rows[0]) - 1), *lines[1:]]


def heading(metric: str, *, arrow: bool = True) -> str:
    """Return what tables call a metric, with the arrow to where it is better.

    Example:
        >>> heading('eq_err/rotation'), heading('fd_effnet_lite0_112px')
        ('error: rotation ↓', 'fd ↓')
    """
    name = metric
    for long, short in _SHORT.items():
        name = name.replace(long, short)
    return f'{name} {better(metric)}'.rstrip() if arrow else name


def _present(metrics: Iterable[str], scores: Iterable[Score]) -> list[str]:
    there = {name for each in scores for name in each.metrics}
    return [metric for metric in metrics if metric in there]


def _shown(value: Spread | None) -> str:
    if value is None:
        return '–'
    if not math.isfinite(value.mean):
        return 'nan'
    decimals = _decimals(value.mean)
    return f'{value.mean:.{decimals}f}' + ('' if value.std is None else f' ± {value.std:.{decimals}f}')


def _told(value: Difference | None) -> str:
    if value is None:
        return '–'
    if not math.isfinite(value.spread.mean):
        return 'nan'
    decimals = 2 if abs(value.spread.mean) >= 1 else 3
    sign = '−' if value.spread.mean < 0 else '+'
    std = '' if value.spread.std is None else f' ± {value.spread.std:.{decimals}f}'
    return f'{sign}{abs(value.spread.mean):.{decimals}f}{std} ({value.agreeing}/{value.spread.count})'


def _decimals(value: float) -> int:
    return len(format_number(value).partition('.')[2]) if abs(value) < 10 else 1 if abs(value) >= 100 else 2


def _times(value: SpeedUp | None) -> str:
    if value is None:
        return '–'
    reached = [ratio for ratio in value.ratios if ratio is not None]
    if not reached:
        return f'not reached in {value.last:,}'
    found = spread(reached)
    text = f'{found.mean:.2f}×' + ('' if found.std is None else f' ± {found.std:.2f}')
    return text if len(reached) == len(value.ratios) else f'{text} (in {len(reached)} of {len(value.ratios)} seeds)'
