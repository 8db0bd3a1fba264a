"""Results side by side, as text, Markdown, CSV and a page; values that were measured differently are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from eqzoo.report.cards import CardDifference, differences
from eqzoo.report.charts import draw_chart
from eqzoo.report.page import write_page
from eqzoo.report.results import Result
from eqzoo.report.table import (
    ARROWS,
    align_columns,
    better,
    csv_text,
    escape_markdown,
    format_number,
    markdown_table,
)

_ORIGIN_FIELDS = ('config', 'samples', 'weights', 'sha256', 'images', 'eqzoo', 'torch')
_BEST = '*'

# (metric, the first run that has it, a run whose card differs) → the differences
_Unlike = dict[tuple[str, str, str], list[CardDifference]]


class Cell(NamedTuple):
    """One run's value of one metric.

    Args:
        value: None if the value is not a number, or if there is none.
        text: As tables show it; '–' if the run does not have the metric.
        best: Whether no other run's value is better, and some are worse.
        notes: Numbers of the footnotes that apply to it, from 1.
    """

    value: float | None
    text: str
    best: bool = False
    notes: tuple[int, ...] = ()


class MetricRow(NamedTuple):
    """A metric: its name, which values are better, 'higher' or 'lower', a cell for each run."""

    metric: str
    better: str
    cells: list[Cell]


@dataclass
class ResultComparison:
    """A table of several runs' metrics.

    Args:
        runs: The names of the columns.
        rows: The metrics, in the order in which the runs have them.
        notes: The texts of the footnotes; the first one has the number 1.
        remarks: Remarks on the whole table.
        origins: For each run the source of its numbers, by field.
        curves: The curves of all runs, those of one title together.
    """

    runs: list[str]
    rows: list[MetricRow]
    notes: list[str]
    remarks: list[str]
    origins: list[dict[str, str]]
    curves: list[dict[str, Any]]


def compare_results(
    results: Mapping[str, Result], *, allow_unlike: bool = False, with_cases: bool = False
) -> ResultComparison:
    """Put `results`, by the names of their columns, side by side.

    The values of a metric are compared with the first run that has it. The best is marked if the
    direction of the metric is known, all values were measured in the same way, and they differ in
    the digits that the table shows.

    Args:
        results: By name.
        allow_unlike: Mark values that were measured differently from the first run's, instead of refusing them.
        with_cases: Add a line for each single case.

    Raises:
        ValueError: If two values of a metric were measured differently and `allow_unlike` is off;
            names the metric, the field of the card, and both its values.
    """
    values = {run: {**each.metrics, **(each.cases if with_cases else {})} for run, each in results.items()}
    names = list(dict.fromkeys(name for metrics in values.values() for name in metrics))
    unlike = _find_unlike(results, values, names)
    if unlike and not allow_unlike:
        raise ValueError(_refusal(results, unlike))
    notes: list[str] = []
    rows = []
    for name in names:
        cells = {
            run: Cell(own[name], format_number(own[name])) if name in own else Cell(None, '–')
            for run, own in values.items()
        }
        for (metric, first, run), found in unlike.items():
            if metric == name:
                cells[run] = cells[run]._replace(notes=_footnotes(notes, first, run, found))
        cells = [*cells.values()]
        if not any(cell.notes for cell in cells):
            cells = _with_best(cells, better(name))
        rows.append(MetricRow(name, better(name), cells))
    remarks = _version_remarks(results)
    curves = _merge_curves(results)
    if curves is None:
        remarks.append('Curves are left out: the cards of the evaluators differ.')
    return ResultComparison([*results], rows, notes, remarks, _origins(results), curves or [])


def _find_unlike(results: Mapping[str, Result], values: Mapping[str, Any], names: Sequence[str]) -> _Unlike:
    unlike = {}
    for name in names:
        first, *others = (run for run in results if name in values[run])
        for run in others:
            found = differences(name, results[first], results[run])
            if found:
                unlike[name, first, run] = found
    return unlike


def _refusal(results: Mapping[str, Result], unlike: _Unlike) -> str:
    (metric, first, run), found = next(iter(unlike.items()))
    field, one, other = found[0]
    more = len({name for name, _, _ in unlike}) - 1
    others = [f'{len(found) - 1} more field(s) of it'] if found[1:] else []
    others += [f'{more} more metric(s)'] if more else []
    return (
        f'{metric} was measured differently: {field} is {one} in {first} ({results[first].path}) '
        f'and {other} in {run} ({results[run].path})'
        + (f'; also {" and ".join(others)}' if others else '')
        + '. Only values with equal cards can be compared; weights and configs may differ. '
        'Repeat the tests in one way, or mark such values with --allow-unlike.'
    )


def _footnotes(notes: list[str], first: str, run: str, found: Sequence[CardDifference]) -> tuple[int, ...]:
    """Return the numbers of the footnotes for `found`; append new ones to `notes`."""
    texts = [f'{run} against {first}: {field} is {other}, not {one}' for field, one, other in found]
    notes += [text for text in texts if text not in notes]
    return tuple(notes.index(text) + 1 for text in texts)


def _with_best(cells: Sequence[Cell], direction: str) -> list[Cell]:
    values = [cell.value for cell in cells if cell.value is not None and cell.value == cell.value]
    if not direction or len({format_number(value) for value in values}) < 2:
        return [*cells]
    best = format_number(max(values) if direction == 'higher' else min(values))
    return [cell._replace(best=cell.text == best) for cell in cells]


def _version_remarks(results: Mapping[str, Result]) -> list[str]:
    remarks = []
    for name in ('eqzoo', 'torch'):
        versions = {run: str(each.card.get(name, 'not stated')) for run, each in results.items()}
        if len(set(versions.values())) > 1:
            listed = ', '.join(f'{version} in {run}' for run, version in versions.items())
            remarks.append(f'Versions of {name} differ: {listed}.')
    return remarks


def _origins(results: Mapping[str, Result]) -> list[dict[str, str]]:
    """Return the source of each run's numbers, by the fields that any run has."""
    origins = [_origin(each) for each in results.values()]
    fields = sorted({name for each in origins for name in each}, key=_ORIGIN_FIELDS.index)
    return [{name: each.get(name, '–') for name in fields} for each in origins]


def _origin(result: Result) -> dict[str, str]:
    card = result.card
    weights = card.get('weights')
    weights = weights if isinstance(weights, Mapping) else {'file': weights}
    fields = {
        'config': card.get('config'),
        'samples': card.get('samples'),
        'weights': weights.get('file'),
        'sha256': str(weights.get('sha256') or '')[:12],
        'images': card.get('num_images'),
        'eqzoo': card.get('eqzoo'),
        'torch': card.get('torch'),
    }
    return {name: str(value) for name, value in fields.items() if value not in (None, '')}


def _merge_curves(results: Mapping[str, Result]) -> list[dict[str, Any]] | None:
    """Return one curve for each title with the series of all runs, or None if they may have been measured differently.

    Curves do not name their evaluator, so all evaluators that the runs share have to agree.
    """
    with_curves = [run for run, each in results.items() if each.curves]
    if any(differences('', results[with_curves[0]], results[run]) for run in with_curves[1:]):
        return None
    together: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in with_curves:
        for curve in results[run].curves:
            key = tuple(curve.get(name) for name in ('title', 'x', 'y', 'log'))
            merged = together.setdefault(key, {**curve, 'series': []})
            for series in curve['series']:
                label = series.get('label')
                merged['series'].append({**series, 'label': f'{run}: {label}' if label else run})
    return [*together.values()]


def to_text(comparison: ResultComparison) -> str:
    """Return an aligned table: `*` marks the best, `[1]` refers to a footnote."""
    columns = []
    for place, run in enumerate(comparison.runs):
        cells = [row.cells[place] for row in comparison.rows]
        width = max([len(_marks(cell)) for cell in cells], default=0)
        # numbers are right-aligned, marks follow them
        columns.append([run + ' ' * width, *(f'{cell.text:>7}{_marks(cell):<{width}}' for cell in cells)])
    first = ['metric', *map(_label, comparison.rows)]
    lines = [line.rstrip() for line in align_columns([*zip(first, *columns, strict=True)]).splitlines()]
    best = [f'{_BEST} best of its line'] if any(cell.best for row in comparison.rows for cell in row.cells) else []
    legend = [*best, *_numbered_notes(comparison), *comparison.remarks]
    return '\n'.join([*lines, *([''] if legend else []), *legend])


def to_markdown(comparison: ResultComparison) -> str:
    """Return a Markdown table, the best in bold, with its footnotes and the source of each run's numbers."""
    rows = [['metric', *map(escape_markdown, comparison.runs)]]
    for row in comparison.rows:
        cells = [
            (f'**{cell.text}**' if cell.best else cell.text) + ''.join(f' [{number}]' for number in cell.notes)
            for cell in row.cells
        ]
        rows.append([escape_markdown(_label(row)), *cells])
    lines = markdown_table(rows)
    for line in [*_numbered_notes(comparison), *comparison.remarks]:
        lines += ['', escape_markdown(line)]
    origins = [['run', *comparison.origins[0]]]
    for run, origin in zip(comparison.runs, comparison.origins, strict=True):
        origins.append([*map(escape_markdown, (run, *origin.values()))])
    return '\n'.join([*lines, '', *markdown_table(origins)]) + '\n'


def to_csv(comparison: ResultComparison) -> str:
    """Return CSV with all digits: metric, better direction, each run's value, footnotes."""
    rows = [['metric', 'better', *comparison.runs, 'unlike']]
    for row in comparison.rows:
        numbers = sorted({number for cell in row.cells for number in cell.notes})
        values = ['' if cell.text == '–' else 'nan' if cell.value is None else repr(cell.value) for cell in row.cells]
        unlike = '; '.join(comparison.notes[number - 1] for number in numbers)
        rows.append([row.metric, row.better, *values, unlike])
    return csv_text(rows)


def _marks(cell: Cell) -> str:
    notes = ' ' + ''.join(f'[{number}]' for number in cell.notes) if cell.notes else ''
    return (f' {_BEST}' if cell.best else '') + notes


def _numbered_notes(comparison: ResultComparison) -> list[str]:
    return [f'[{number}] {note}' for number, note in enumerate(comparison.notes, start=1)]


def _label(row: MetricRow) -> str:
    return f'{row.metric} {ARROWS[row.better]}'.rstrip()


def write_comparison_page(path: str | Path, comparison: ResultComparison) -> None:
    """Write a comparison as one page: its table, footnotes, curves, and the source of each run's numbers."""
    values = dict(
        title='Comparison: ' + ', '.join(comparison.runs),
        comparison=comparison,
        charts=[draw_chart(curve, number) for number, curve in enumerate(comparison.curves)],
    )
    write_page(path, 'comparison.html', values)
