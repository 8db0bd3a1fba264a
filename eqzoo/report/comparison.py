"""Results side by side, none of them beside one that was measured otherwise."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from eqzoo.report.cards import Difference, differences
from eqzoo.report.charts import draw_chart
from eqzoo.report.page import write_page
from eqzoo.report.results import Result
from eqzoo.report.table import align, better, format_number


class Cell(NamedTuple):
    """One run's value of one metric.

    Args:
        value: None where the value is no number, or there is none.
        text: As tables show it; '–' where the run has no such metric.
        best: Whether no other run's value is better, and some are worse.
        notes: Numbers of the footnotes that hold for it, from 1.
    """

    value: float | None
    text: str
    best: bool = False
    notes: tuple[int, ...] = ()


class Row(NamedTuple):
    """A metric: its name, the arrow to where it is better, a cell for each run."""

    metric: str
    better: str
    cells: list[Cell]


@dataclass
class Comparison:
    """A table of several runs' metrics.

    Args:
        runs: What the columns are called.
        rows: The metrics, in the order in which runs have them.
        notes: What footnotes say, the first one's number being 1.
        remarks: What is to be known about the whole table.
        origins: For each run what was measured, by field.
        curves: All runs' curves, those of one title together.
    """

    runs: list[str]
    rows: list[Row]
    notes: list[str]
    remarks: list[str]
    origins: list[dict[str, str]]
    curves: list[dict[str, Any]]


def compare_results(
    results: Mapping[str, Result], *, allow_unlike: bool = False, with_cases: bool = False
) -> Comparison:
    """Put `results`, by the names of their columns, side by side.

    A metric's values are compared with the first run that has it. The best is marked where the
    direction is known, all values are alike, and they differ as far as the table shows them.

    Args:
        results: By name.
        allow_unlike: Mark values that were measured otherwise than the first run's, instead of refusing them.
        with_cases: Give single cases their lines as well.

    Raises:
        ValueError: If two values of a metric were not measured alike and that is not allowed: the
            metric, the field of the card, and what it is in both.
    """
    values = {run: {**each.metrics, **(each.cases if with_cases else {})} for run, each in results.items()}
    names = list(dict.fromkeys(name for metrics in values.values() for name in metrics))
    unlike = _unlike(results, values, names)
    if unlike and not allow_unlike:
        raise ValueError(_refusal(results, unlike))
    notes: list[str] = []
    rows = []
    for name in names:
        cells = [_cell(values[run], name) for run in results]
        places = {run: place for place, run in enumerate(results)}
        for (metric, first, run), found in unlike.items():
            if metric == name:
                cell = cells[places[run]]
                cells[places[run]] = cell._replace(notes=_numbers(notes, first, run, found))
        if not any(cell.notes for cell in cells):
            cells = _with_best(cells, better(name))
        rows.append(Row(name, better(name), cells))
    remarks = _versions(results)
    curves = _curves(results)
    if curves is None:
        remarks.append('Curves are left out: the cards of the evaluators differ.')
    return Comparison([*results], rows, notes, remarks, _origins(results), curves or [])


_FIELDS = ('config', 'samples', 'weights', 'sha256', 'images', 'eqzoo', 'torch')

# (metric, the first run that has it, a run that was measured otherwise) → where they differ
_Unlike = dict[tuple[str, str, str], list[Difference]]


def _unlike(results: Mapping[str, Result], values: Mapping[str, Any], names: Sequence[str]) -> _Unlike:
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
        f'{metric} was not measured alike: {field} is {one} in {first} ({results[first].path}) '
        f'and {other} in {run} ({results[run].path})'
        + (f'; so with {" and ".join(others)}' if others else '')
        + '. Only values with equal cards are put side by side, whatever their weights and configs; '
        'test again in one way, or mark such values with --allow-unlike.'
    )


def _numbers(notes: list[str], first: str, run: str, found: Sequence[Difference]) -> tuple[int, ...]:
    """Return the footnotes' numbers for `found`, adding those that are new to `notes`."""
    texts = [f'{run} against {first}: {field} is {other}, not {one}' for field, one, other in found]
    notes += [text for text in texts if text not in notes]
    return tuple(notes.index(text) + 1 for text in texts)


def _cell(values: Mapping[str, float | None], name: str) -> Cell:
    return Cell(values[name], format_number(values[name])) if name in values else Cell(None, '–')


def _with_best(cells: Sequence[Cell], arrow: str) -> list[Cell]:
    values = [cell.value for cell in cells if cell.value is not None and cell.value == cell.value]
    if not arrow or len({format_number(value) for value in values}) < 2:
        return [*cells]
    best = format_number(max(values) if arrow == '↑' else min(values))
    return [cell._replace(best=cell.text == best) for cell in cells]


def _versions(results: Mapping[str, Result]) -> list[str]:
    remarks = []
    for name in ('eqzoo', 'torch'):
        versions = {run: str(each.card.get(name, 'not stated')) for run, each in results.items()}
        if len(set(versions.values())) > 1:
            told = ', '.join(f'{version} in {run}' for run, version in versions.items())
            remarks.append(f'Versions of {name} differ: {told}.')
    return remarks


def _origins(results: Mapping[str, Result]) -> list[dict[str, str]]:
    """Return what was measured in each run, by the fields that any of them has."""
    origins = [_origin(each) for each in results.values()]
    fields = sorted({name for each in origins for name in each}, key=_FIELDS.index)
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


def _curves(results: Mapping[str, Result]) -> list[dict[str, Any]] | None:
    """Return the runs' curves in one chart for each title; None if one cannot know that they are alike.

    Curves do not say which evaluator gave them: all of the evaluators that runs share must agree.
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


_BEST = '*'


def to_text(comparison: Comparison) -> str:
    """Return an aligned table: `*` marks the best, `[1]` refers to a footnote."""
    columns = []
    for place, run in enumerate(comparison.runs):
        cells = [row.cells[place] for row in comparison.rows]
        width = max([len(_marks(cell)) for cell in cells], default=0)
        # numbers end under each other, marks stand behind them
        columns.append([run + ' ' * width, *(f'{cell.text:>7}{_marks(cell):<{width}}' for cell in cells)])
    first = ['metric', *map(_named, comparison.rows)]
    lines = [line.rstrip() for line in align([*zip(first, *columns, strict=True)]).splitlines()]
    lines += [''] if _legend(comparison) else []
    return '\n'.join([*lines, *_legend(comparison)])


def to_markdown(comparison: Comparison) -> str:
    """Return a Markdown table, the best in bold, with its footnotes and what was measured."""
    rows = [[_escaped(_named(row)), *map(_markdown_cell, row.cells)] for row in comparison.rows]
    lines = _markdown_table(['metric', *map(_escaped, comparison.runs)], rows)
    notes = [f'[{number}] {note}' for number, note in enumerate(comparison.notes, start=1)]
    for line in [*notes, *comparison.remarks]:
        lines += ['', _escaped(line)]
    origins = zip(comparison.runs, comparison.origins, strict=True)
    rows = [[*map(_escaped, (run, *origin.values()))] for run, origin in origins]
    lines += ['', *_markdown_table(['run', *comparison.origins[0]], rows)]
    return '\n'.join(lines) + '\n'


def to_csv(comparison: Comparison) -> str:
    """Return CSV with all digits: metric, which way is better, each run's value, footnotes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    writer.writerow(['metric', 'better', *comparison.runs, 'unlike'])
    words = {'↑': 'higher', '↓': 'lower', '': ''}
    for row in comparison.rows:
        numbers = sorted({number for cell in row.cells for number in cell.notes})
        values = ['' if cell.text == '–' else 'nan' if cell.value is None else repr(cell.value) for cell in row.cells]
        unlike = '; '.join(comparison.notes[number - 1] for number in numbers)
        writer.writerow([row.metric, words[row.better], *values, unlike])
    return buffer.getvalue()


def _marks(cell: Cell) -> str:
    notes = ' ' + ''.join(f'[{number}]' for number in cell.notes) if cell.notes else ''
    return (f' {_BEST}' if cell.best else '') + notes


def _legend(comparison: Comparison) -> list[str]:
    best = [f'{_BEST} best of its line'] if any(cell.best for row in comparison.rows for cell in row.cells) else []
    notes = [f'[{number}] {note}' for number, note in enumerate(comparison.notes, start=1)]
    return [*best, *notes, *comparison.remarks]


def _named(row: Row) -> str:
    return f'{row.metric} {row.better}'.rstrip()


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    rule = ['---', *['---:'] * (len(head) - 1)]
    return [f'| {" | ".join(line)} |' for line in (head, rule, *rows)]


def _markdown_cell(cell: Cell) -> str:
    return (f'**{cell.text}**' if cell.best else cell.text) + ''.join(f' [{number}]' for number in cell.notes)


def _escaped(text: str) -> str:
    """Keep what Markdown and HTML would read as more than text; a cell is one line."""
    text = text.replace('\\', '\\\\').replace('&', '&amp;').replace('<', '&lt;')
    for mark in '|*`[]':
        text = text.replace(mark, f'\\{mark}')
    return ' '.join(text.split())


def write_comparison_page(path: str | Path, comparison: Comparison) -> None:
    """Write a comparison's table, footnotes and curves, and what was measured, as one page."""
    values = dict(
        title='Comparison: ' + ', '.join(comparison.runs),
        comparison=comparison,
        charts=[draw_chart(curve, number) for number, curve in enumerate(comparison.curves)],
    )
    write_page(path, 'comparison.html', values)
