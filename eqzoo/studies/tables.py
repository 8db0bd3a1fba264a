"""Markdown tables of a study: means and spread over seeds, differences from controls, scores over steps."""

import itertools
import math
from collections.abc import Iterable, Sequence

from eqzoo.report.table import better, escape_markdown, format_number, markdown_table
from eqzoo.studies.scores import (
    PairedDifference,
    Score,
    SpeedUp,
    Spread,
    by_seed,
    paired_difference,
    score_curves,
    speed_up,
    spread,
    steps_of,
)
from eqzoo.studies.study import Study

# Short names of metrics in tables.
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
    rows = [['', *map(heading, metrics)]]
    for name in study.autoencoders:
        rows.append([name, *(_format_spread(by_seed(scores, metric, name).values()) for metric in metrics)])
    return _table(rows)


def generator_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return a line for each generator on each autoencoder, after its last step."""
    metrics = _present(study.columns['generator'], [each for each in scores if each.generator is not None])
    rows = [['', 'steps', *map(heading, metrics)]]
    for autoencoder, generator in study.pairs():
        last = steps_of(scores, generator.name)[-1]
        arm = autoencoder.name, generator.name, last
        cells = [_format_spread(by_seed(scores, metric, *arm).values()) for metric in metrics]
        rows.append([f'{generator.name} on {autoencoder.name}', f'{last:,}', *cells])
    return _table(rows)


def difference_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return a line for each arm with a control: the differences in all metrics that tables show."""
    own = _present(study.columns['autoencoder'], [each for each in scores if each.generator is None])
    of_samples = [study.score] if study.score and study.generators else []
    titles = [f'{heading(metric, arrow=False)} of {each}' for metric in of_samples for each in study.generators]
    rows = [['', *(heading(each, arrow=False) for each in own), *titles]]
    for name, arm in study.autoencoders.items():
        if arm.against is None:
            continue
        pairs = [(by_seed(scores, metric, name), by_seed(scores, metric, arm.against)) for metric in own]
        for metric, generator in itertools.product(of_samples, study.generators):
            last = steps_of(scores, generator)[-1]
            pairs.append(tuple(by_seed(scores, metric, each, generator, last) for each in (name, arm.against)))
        rows.append([f'{name} − {arm.against}', *(_format_difference(paired_difference(*pair)) for pair in pairs)])
    return _table(rows) if len(rows) > 1 else []


def curve_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return the score of each generator on each autoencoder after each of its steps, and its speed-up."""
    arms = [(autoencoder, generator) for autoencoder, generator in study.pairs() if len(generator.scores) > 1]
    if not arms or study.score is None:
        return []
    steps = sorted({step for _, generator in arms for step in steps_of(scores, generator.name)})
    rows = [['', *(f'{step:,}' for step in steps), 'speed-up']]
    for autoencoder, generator in arms:
        arm = autoencoder.name, generator.name
        cells = [_format_spread(by_seed(scores, study.score, *arm, step).values()) for step in steps]
        faster = None
        if autoencoder.against is not None:
            names = autoencoder.name, autoencoder.against
            faster = speed_up(*(score_curves(study, scores, name, generator.name) for name in names))
        rows.append([f'{generator.name} on {autoencoder.name}', *cells, _format_speed_up(faster)])
    return _table(rows)


def heading(metric: str, *, arrow: bool = True) -> str:
    """Return a metric's name in tables, with an arrow in the better direction.

    Example:
        >>> heading('eq_err/rotation'), heading('fd_effnet_lite0_112px')
        ('error: rotation ↓', 'fd ↓')
    """
    name = metric
    for long, short in _SHORT.items():
        name = name.replace(long, short)
    return f'{name} {better(metric)}'.rstrip() if arrow else name


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return markdown_table([[*map(escape_markdown, row)] for row in rows])


def _present(metrics: Iterable[str], scores: Iterable[Score]) -> list[str]:
    there = {name for each in scores for name in each.metrics}
    return [metric for metric in metrics if metric in there]


def _format_spread(values: Iterable[float]) -> str:
    found = spread(values)
    if found is None:
        return '–'
    if not math.isfinite(found.mean):
        return 'nan'
    # as many decimals as `format_number` gives values below 10; one from 100
    decimals = len(format_number(found.mean).partition('.')[2]) if abs(found.mean) < 10 else 2
    decimals = 1 if abs(found.mean) >= 100 else decimals
    return f'{found.mean:.{decimals}f}{_format_std(found, decimals)}'


def _format_difference(value: PairedDifference | None) -> str:
    if value is None:
        return '–'
    if not math.isfinite(value.spread.mean):
        return 'nan'
    decimals = 2 if abs(value.spread.mean) >= 1 else 3
    sign, size = '−' if value.spread.mean < 0 else '+', abs(value.spread.mean)
    return f'{sign}{size:.{decimals}f}{_format_std(value.spread, decimals)} ({value.agreeing}/{value.spread.count})'


def _format_speed_up(value: SpeedUp | None) -> str:
    if value is None:
        return '–'
    reached = [ratio for ratio in value.ratios if ratio is not None]
    if not reached:
        return f'not reached in {value.last:,}'
    found = spread(reached)
    text = f'{found.mean:.2f}×{_format_std(found, 2)}'
    return text if len(reached) == len(value.ratios) else f'{text} (in {len(reached)} of {len(value.ratios)} seeds)'


def _format_std(value: Spread, decimals: int) -> str:
    return '' if value.std is None else f' ± {value.std:.{decimals}f}'
