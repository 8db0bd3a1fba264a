"""Metrics of several runs as a text table, and which way each metric is better."""

from collections.abc import Mapping, Sequence

_HIGHER = {'eq_rec', 'psnr', 'ssim', 'is', 'precision', 'recall', 'density', 'coverage', 'codebook/usage'}
_LOWER = {
    'lpips',
    'distance',
    'eq_err',
    'eq_rec_err',
    'swd',
    'kid',
    # Fréchet distances: of generated, reconstructed and interpolated images, on Inception and on other networks
    *(f'{kind}{name}' for kind in ('', 'r', 's', 'i') for name in ('fid', 'fd', 'fdd')),
}


def better(name: str) -> str:
    """Return '↑' where more of the metric `name` is better, '↓' where less is, '' where that is not known.

    A name may go on after `_`, `/` or `#`: `ssim_eqvae` is an `ssim`. A spread, `..._std`, has no better.

    Example:
        >>> [better(name) for name in ('psnr', 'fd_effnet_lite0', 'eq_err/rotation', 'kid_std', 'latent_std')]
        ['↑', '↓', '↓', '', '']
    """
    name = name.split('#')[0]
    if name.endswith('_std'):
        return ''
    words = name.split('/')[0].split('_')
    for known in (name, *('_'.join(words[:count]) for count in range(len(words), 0, -1))):
        if known in _HIGHER or known in _LOWER:
            return '↑' if known in _HIGHER else '↓'
    return ''


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
    lines = [
        [f'{name} {better(name)}'.rstrip(), *(_cell(values, name) for values in rows.values())] for name in metrics
    ]
    return align([['metric', *rows], *lines])


def align(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text: the first column to the left, the others, 7 wide or more, to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, others = widths[0], [max(width, 7) for width in widths[1:]]
    return '\n'.join(
        '  '.join([f'{line[0]:<{first}}', *(f'{cell:>{width}}' for cell, width in zip(line[1:], others, strict=True))])
        for line in lines
    )


def format_number(value: float | None) -> str:
    """Return a metric as tables show it; None, JSON's stand-in for what is no number, as 'nan'."""
    if value is None:
        return 'nan'
    if 0 < abs(value) < 5e-5:  # would look like an exact 0
        return f'{value:.0e}'
    return f'{value:.2f}' if abs(value) >= 10 else f'{value:.4f}'


def _cell(values: Mapping[str, float], name: str) -> str:
    return format_number(values[name]) if name in values else '–'
