"""Tables of metrics: text, Markdown and CSV, and the direction in which each metric is better."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from eqzoo.text import printable

_HIGHER = {
    *('eq_rec', 'psnr', 'ssim', 'is', 'precision', 'recall', 'density', 'coverage', 'codebook/usage'),
    # easier for a generator
    *('lnc', 'lds', 'cds'),
}
_LOWER = {
    'lpips',
    'distance',
    'eq_err',
    'eq_rec_err',
    'swd',
    'kid',
    'latent_fd',
    # easier for a generator
    *('viv', 'sec'),
    # Fréchet distances: of generated, reconstructed and interpolated images, on Inception and on other networks
    *(f'{kind}{name}' for kind in ('', 'r', 's', 'i') for name in ('fid', 'fd', 'fdd')),
}


ARROWS = {'higher': '↑', 'lower': '↓', '': ''}  # for what `better` returns


def better(name: str) -> Literal['higher', 'lower', '']:
    """Return whether a higher or a lower value of the metric `name` is better, '' if that is not known.

    A name may continue after `_`, `/`, `@` or `#`: `ssim_eqvae` is an `ssim`. A spread, `..._std`, has no direction.

    Example:
        >>> [better(name) for name in ('psnr', 'fd_effnet_lite0', 'eq_err/rotation', 'lnc@5', 'kid_std', 'latent_std')]
        ['higher', 'lower', 'lower', 'higher', '', '']
    """
    name = name.split('#')[0]
    if name.endswith('_std'):
        return ''
    words = name.split('/')[0].split('@')[0].split('_')
    for known in (name, *('_'.join(words[:count]) for count in range(len(words), 0, -1))):
        if known in _HIGHER or known in _LOWER:
            return 'higher' if known in _HIGHER else 'lower'
    return ''


def format_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return an aligned table: a line for each metric, a column for each run.

    Args:
        rows: The metrics of each run, by name; a run may lack some.

    Example:
        >>> print(format_table({'plain': {'psnr': 25.61, 'eq_err/scale': 0.2131}, 'eq': {'psnr': 25.02}}))
        metric            plain       eq
        psnr ↑            25.61    25.02
        eq_err/scale ↓   0.2131        –
    """
    lines = [['metric', *rows]]
    for name in dict.fromkeys(name for metrics in rows.values() for name in metrics):
        cells = (format_number(values[name]) if name in values else '–' for values in rows.values())
        lines.append([f'{name} {ARROWS[better(name)]}'.rstrip(), *cells])
    return align_columns(lines)


def align_columns(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text: the first column left-aligned, the others right-aligned and at least 7 wide."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, others = widths[0], [max(width, 7) for width in widths[1:]]
    return '\n'.join(
        '  '.join([f'{line[0]:<{first}}', *(f'{cell:>{width}}' for cell, width in zip(line[1:], others, strict=True))])
        for line in lines
    )


def format_number(value: float | None) -> str:
    """Return a metric as tables show it; None, which stands for NaN and infinity in JSON, as 'nan'."""
    if value is None:
        return 'nan'
    if 0 < abs(value) < 5e-5:  # would look like an exact 0
        return f'{value:.0e}'
    return f'{value:.2f}' if abs(value) >= 10 else f'{value:.4f}'


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the first row is the heading, cells are Markdown (see `escape_markdown`).

    Example:
        >>> markdown_table([['metric', 'eq'], ['psnr', '**25.61**']])
        ['| metric | eq |', '| --- | ---: |', '| psnr | **25.61** |']
    """
    rule = ['---', *['---:'] * (len(rows[0]) - 1)]
    return [f'| {" | ".join(line)} |' for line in (rows[0], rule, *rows[1:])]


def escape_markdown(text: str) -> str:
    r"""Escape all that Markdown and HTML would read as markup, and join lines, as a table's cell is one line.

    Example:
        >>> print(escape_markdown('a|b <i>'))
        a\|b &lt;i>
    """
    text = ' '.join(text.split()).replace('\\', '\\\\').replace('&', '&amp;').replace('<', '&lt;')
    for mark in '|*`[]':
        text = text.replace(mark, f'\\{mark}')
    return printable(text)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='\n').writerows(rows)
    return buffer.getvalue()
