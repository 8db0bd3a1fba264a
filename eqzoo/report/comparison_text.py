"""A comparison as aligned text, as Markdown and as CSV."""

import csv
import io

from eqzoo.report.comparison import Cell, Comparison, Row
from eqzoo.report.table import align

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
