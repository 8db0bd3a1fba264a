"""Markdown tables of a study: means and spread, differences from controls, scores over steps, gates and predictions."""

import itertools
import math
from collections.abc import Iterable, Sequence

from eqzoo.report.table import ARROWS, better, escape_markdown, markdown_table
from eqzoo.studies.criterion import Judgement
from eqzoo.studies.gates import Gatekeeper, condition
from eqzoo.studies.plan import Gated, StudyPlan
from eqzoo.studies.predictors import Correlation, Prediction
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
    """Return a line for each autoencoder: means and standard deviations over seeds; none if nothing was measured."""
    own = [each for each in scores if each.generator is None]
    metrics = _present(study.columns['autoencoder'], own)
    rows = [['', *map(heading, metrics)]]
    for name in study.autoencoders:
        rows.append([name, *(_format_spread(by_seed(own, metric, name).values()) for metric in metrics)])
    counts = [sum(each.autoencoder == name for each in own) for name in study.autoencoders]
    return _table(_with_counts(rows, counts)) if metrics else []


def generator_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return a line for each generator on each autoencoder, after its last step; none if nothing was measured."""
    metrics = _present(study.columns['generator'], [each for each in scores if each.generator is not None])
    rows, counts = [['', 'steps', *map(heading, metrics)]], []
    for autoencoder, generator in study.pairs():
        last = steps_of(scores, generator.name)[-1:]
        arm = autoencoder.name, generator.name, *last
        cells = [_format_spread(by_seed(scores, metric, *arm).values()) for metric in metrics]
        rows.append([f'{generator.name} on {autoencoder.name}', f'{last[0]:,}' if last else '–', *cells])
        counts.append(len({each.seed for each in scores if (each.autoencoder, each.generator) == arm[:2]}))
    return _table(_with_counts(rows, counts)) if metrics else []


def gate_table(study: Study, keeper: Gatekeeper, plan: StudyPlan) -> list[str]:
    """Return a line for each start and each autoencoder in each seed: the values of gates, and the verdict."""
    if not study.gates:
        return []
    rows = [['', 'seed', *(f'{name}: {condition(gate)}' for name, gate in study.gates.items()), 'verdict']]
    order = [*study.autoencoders]
    arms = sorted((Gated('arm', *arm) for arm in plan.measured), key=lambda arm: (order.index(arm[1]), arm.seed))
    for gated in (*keeper.starts(), *arms):
        is_run = gated.of == 'start' or keeper.is_open(gated._replace(of='start'))
        # one whose seed was stopped may have a test, of an earlier run or of another study
        outcomes = {each.gate.name: str(each) for each in (keeper.outcomes(gated) if is_run else None) or []}
        test = (plan.started if gated.of == 'start' else plan.measured)[gated.autoencoder, gated.seed]
        verdict = {True: 'passed', False: 'stopped', None: 'not decided'}[keeper.is_open(gated)]
        verdict = 'not run' if not is_run else verdict if test.record() is not None else 'not tested'
        name = f'start of {gated.autoencoder}' if gated.of == 'start' else gated.autoencoder
        rows.append([name, str(gated.seed), *(outcomes.get(each, '–') for each in study.gates), verdict])
    return _table(rows)


def criterion_table(study: Study, judgements: Sequence[Judgement]) -> list[str]:
    """Return a line for each autoencoder that the criterion is about."""
    if study.criterion is None:
        return []
    rows = [['', f'{study.criterion.better} in', 'difference', 'p', 'criterion']]
    for each in judgements:
        count = len(each.differences)
        verdict = each.verdict
        if verdict == 'not decidable':
            verdict = f'not decidable with {count} of {study.criterion.of_seeds} seeds'
        difference = _format_signed(spread(each.differences.values()))
        against = study.autoencoders[each.autoencoder].against
        chance = f'{each.chance:.2g}' if count else '–'
        rows.append([f'{each.autoencoder} − {against}', f'{each.agreeing} of {count}', difference, chance, verdict])
    return _table(rows)


def predictor_table(study: Study, found: Sequence[Prediction]) -> list[str]:
    """Return a line for each predictor: the expected sign, and its correlations with the scores of generators."""
    columns = list(dict.fromkeys((each.generator, each.score) for each in found))
    if not columns:
        return []
    titles = [
        f'{heading(score, arrow=False)} of {generator}, {points}'
        for generator, score in columns
        for points in ('arms', 'arms and seeds')
    ]
    rows = [['', 'expected', *titles]]
    for predictor, direction in study.predictors.items():
        own = {(each.generator, each.score): each for each in found if each.predictor == predictor}
        cells = [
            cell
            for column in columns
            for cell in (
                [_format_correlation(each) for each in (own[column].over_arms(), own[column].over_seeds())]
                if column in own
                else ['not measured'] * 2
            )
        ]
        rows.append([heading(predictor, arrow=False), {'lower': '+', 'higher': '−', '': '–'}[direction], *cells])
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
            last = steps_of(scores, generator)[-1:]
            pairs.append(tuple(by_seed(scores, metric, each, generator, *last) for each in (name, arm.against)))
        rows.append([f'{name} − {arm.against}', *(_format_difference(paired_difference(*pair)) for pair in pairs)])
    return _table(rows) if any(cell != '–' for row in rows[1:] for cell in row[1:]) else []


def curve_table(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return the score of each generator on each autoencoder after each of its steps, and its speed-up."""
    arms = [(autoencoder, generator) for autoencoder, generator in study.pairs() if len(generator.scores) > 1]
    if not arms or study.score is None:
        return []
    steps = sorted({step for _, generator in arms for step in steps_of(scores, generator.name)})
    if not steps:
        return []
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
    return f'{name} {ARROWS[better(metric)]}'.rstrip() if arrow else name


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    return markdown_table([[*map(escape_markdown, row)] for row in rows])


def _present(metrics: Iterable[str], scores: Iterable[Score]) -> list[str]:
    there = {name for each in scores for name in each.metrics}
    return [metric for metric in metrics if metric in there]


def _with_counts(rows: Sequence[Sequence[str]], counts: Sequence[int]) -> list[list[str]]:
    """Return a table with the number of seeds of each line after its name, where they differ."""
    if len({*counts}) < 2:
        return [[*row] for row in rows]
    return [[row[0], number, *row[1:]] for row, number in zip(rows, ['seeds', *map(str, counts)], strict=True)]


def _format_spread(values: Iterable[float]) -> str:
    found = spread(values)
    if found is None:
        return '–'
    if not math.isfinite(found.mean):
        return 'nan'
    decimals = _decimals(found, 4 if abs(found.mean) < 10 else 2 if abs(found.mean) < 100 else 1)
    return f'{found.mean:.{decimals}f}{_format_std(found, decimals)}'


def _decimals(found: Spread, usual: int) -> int:
    """Return `usual`, or more decimals if mean or deviation would be rounded to zero: two digits of the smaller one.

    A mean below a tenth of its deviation may be zero, and so may a deviation of rounding errors.
    """
    mean, std = abs(found.mean), found.std or 0.0
    sizes = [*([mean] if mean > 0.1 * std else []), *([std] if std > 1e-5 * mean else [])]
    lost = [each for each in sizes if float(f'{each:.{usual}f}') == 0]
    return max([usual, *(1 - math.floor(math.log10(each)) for each in lost)])


def _format_correlation(found: Correlation) -> str:
    """Return a correlation with its number of points; few points have none."""
    if found.value is None:
        return f'– (n {found.count})'
    if not math.isfinite(found.value):
        return f'constant (n {found.count})'
    return f'{"−" if found.value < 0 else "+"}{abs(found.value):.2f} (n {found.count})'


def _format_difference(value: PairedDifference | None) -> str:
    if value is None or not math.isfinite(value.spread.mean):
        return _format_signed(value and value.spread)
    return f'{_format_signed(value.spread)} ({value.agreeing}/{value.spread.count})'


def _format_signed(found: Spread | None) -> str:
    if found is None:
        return '–'
    if not math.isfinite(found.mean):
        return 'nan'
    decimals = _decimals(found, 2 if abs(found.mean) >= 1 else 3)
    return f'{"−" if found.mean < 0 else "+"}{abs(found.mean):.{decimals}f}{_format_std(found, decimals)}'


def _format_speed_up(value: SpeedUp | None) -> str:
    if value is None:
        return '–'
    reached = [ratio for ratio in value.ratios if ratio is not None]
    if not reached:
        return f'not reached in {value.last:,}'
    found = spread(reached)
    text = f'{"≥ " if value.is_bound else ""}{found.mean:.2f}×{_format_std(found, 2)}'
    return text if len(reached) == len(value.ratios) else f'{text} (in {len(reached)} of {len(value.ratios)} seeds)'


def _format_std(value: Spread, decimals: int) -> str:
    return '' if value.std is None else f' ± {value.std:.{decimals}f}'
