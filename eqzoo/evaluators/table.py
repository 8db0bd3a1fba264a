"""Metrics of several runs as a text table."""

from collections.abc import Mapping

_BETTER = {'psnr': '↑', 'ssim': '↑', 'eq_err': '↓', 'eq_err_paper': '↓'}


def format_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return an aligned table: a line for each metric, a column for each run.

    Args:
        rows: For each run its metrics by name; a run may lack some.

    Example:
        >>> print(format_table({'plain': {'psnr': 25.61, 'eq_err/scale': 0.2131}, 'eq': {'psnr': 25.02}}))
        metric            plain       eq
        psnr ↑            25.61    25.02
        eq_err/scale ↓   0.2131        –
    """
    metrics = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    labels = {name: f'{name} {_BETTER.get(name.split("/")[0], "")}'.rstrip() for name in metrics}
    first = max([len('metric'), *map(len, labels.values())])
    widths = {run: max(len(run), 7) for run in rows}
    lines = ['  '.join([f'{"metric":<{first}}', *(f'{run:>{widths[run]}}' for run in rows)])]
    for name in metrics:
        cells = (f'{_number(values.get(name)):>{widths[run]}}' for run, values in rows.items())
        lines.append('  '.join([f'{labels[name]:<{first}}', *cells]))
    return '\n'.join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return '–'
    if 0 < abs(value) < 5e-5:  # would look like an exact 0
        return f'{value:.0e}'
    return f'{value:.2f}' if abs(value) >= 10 else f'{value:.4f}'
