"""Charts: curves as inline SVG. Matplotlib draws the geometry, the page writes titles, labels and legends."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from eqzoo.files import replacing
from eqzoo.lazy import LazyModule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

matplotlib = LazyModule('matplotlib')
figures = LazyModule('matplotlib.figure')
ticker = LazyModule('matplotlib.ticker')

# Markers distinguish series in print and for the colour-blind: matplotlib's name, and the legend's character.
MARKERS = (('o', '●'), ('s', '■'), ('^', '▲'), ('D', '◆'), ('v', '▼'), ('P', '✚'))
SVG_STYLE = {
    'svg.hashsalt': 'eqzoo',  # the same curves give the same bytes
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
}
_SIZE = (5.8, 3.2)  # inches of 72 px: 418 px, so that text keeps its size in half a page and on a phone
_NUM_COLOURS = 6
# Matplotlib takes no CSS variables. These stand-ins are replaced by variables of the page's style sheet, which has
# values for light and for dark. They are near black, so that an SVG that keeps one can still be read.
_INK = '#010000'
_COLOURS = tuple(f'#0200{number:02x}' for number in range(_NUM_COLOURS))
_VARIABLES = {_INK: 'var(--ink)'} | {colour: f'var(--series-{number})' for number, colour in enumerate(_COLOURS)}
_STYLE = {
    **SVG_STYLE,
    'svg.fonttype': 'none',  # numbers stay text, in the page's own font
    'font.size': 10,
    'grid.alpha': 0.12,
    **dict.fromkeys(('axes.edgecolor', 'grid.color', 'text.color', 'xtick.color', 'ytick.color'), _INK),
}
_DASHES = ('-', '--', ':', '-.')
_MAX_CASES = 8  # more are drawn as a curve
_BESIDE = 0.06  # of the distance between cases: series stand beside each other
_MAX_MARKERS = 40  # more points have no markers, which would cover the line


class Chart(NamedTuple):
    """A curve as the page shows it.

    Args:
        title: Its heading.
        x: The horizontal axis's label.
        y: The vertical axis's label.
        svg: The drawing, or None if no value can be drawn.
        series: For each series its label, marker, colour (a number) and points as (x, y, low, high).
    """

    title: str
    x: str
    y: str
    svg: Markup | None
    series: list[dict[str, Any]]


def draw_chart(curve: Mapping[str, Any], number: int = 0) -> Chart:
    """Draw one of a result's curves, with bands from `low` to `high` where it has them.

    Up to eight cases far apart, such as rotations by 90, 180 and 270 degrees, are drawn as points from 0, not joined.

    Values that are None or not finite leave a gap, and so do values at or below 0 on logarithmic axes.

    Args:
        curve: As in metrics.json: title, x, y, log (both axes), series of label, x, y, low, high.
        number: The chart's number in its page, which makes its ids unique there.

    Raises:
        ValueError: If the curve is not of that form.
    """
    check_curve(curve)
    log = bool(curve.get('log'))
    drawn = [_values(series, log) for series in curve['series']]
    visible = [bool(np.isfinite(x + y).any()) for x, y, _, _ in drawn]
    legend = [
        dict(
            label=series.get('label', ''),
            marker=MARKERS[place % len(MARKERS)][1],
            colour=place % _NUM_COLOURS,
            points=[_point(series, index) for index in range(len(series['x']))],
        )
        for place, series in enumerate(curve['series'])
    ]
    svg = _svg(drawn, log, number) if any(visible) else None
    return Chart(curve['title'], curve.get('x', ''), curve.get('y', ''), svg, legend)


def check_curve(curve: Any) -> None:
    """Check that `curve` has the form that `draw_chart` takes.

    Raises:
        ValueError: If it does not, naming the defect.
    """
    if not isinstance(curve, Mapping) or not isinstance(curve.get('title'), str):
        raise ValueError(f'a curve must be an object with a title, got {str(curve)[:60]!r}.')
    where = f'curve {curve["title"]!r}'
    if not all(isinstance(curve.get(axis, ''), str) for axis in 'xy'):
        raise ValueError(f'{where}: x and y must be the labels of its axes.')
    if not isinstance(curve.get('series'), list) or not all(isinstance(each, Mapping) for each in curve['series']):
        raise ValueError(f'{where}: series must be a list of objects with x and y.')
    for series in curve['series']:
        columns = [series.get(name) for name in ('x', 'y')]
        columns += [series[name] for name in ('low', 'high') if series.get(name) is not None]
        if not all(isinstance(column, list) and all(map(_is_number, column)) for column in columns):
            raise ValueError(f'{where}: x, y, low and high of a series must be lists of numbers or null.')
        if len(set(map(len, columns))) > 1:
            raise ValueError(
                f'{where}: x, y, low and high of a series must be equally long, got {[*map(len, columns)]}.'
            )
        if not isinstance(series.get('label', ''), str):
            raise ValueError(f'{where}: the label of a series must be text, got {series["label"]!r}.')


def save_svg(figure: 'Figure', file: io.StringIO | Path, *, transparent: bool = False) -> None:
    """Write a figure as SVG, without metadata: the same figure gives the same bytes."""
    metadata = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
    options = dict(format='svg', transparent=transparent, metadata=metadata)
    if isinstance(file, io.StringIO):
        figure.savefig(file, **options)
        return
    with replacing(file) as temporary:
        figure.savefig(temporary, **options)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _point(series: Mapping[str, Any], index: int) -> list[float | None]:
    return [series[name][index] if series.get(name) is not None else None for name in ('x', 'y', 'low', 'high')]


def _values(series: Mapping[str, Any], log: bool) -> list[np.ndarray]:
    """Return x, y, low, high (N,), NaN where there is nothing to draw."""
    nothing = [None] * len(series['x'])
    columns = [series.get(name) or nothing for name in ('x', 'y', 'low', 'high')]
    arrays = [np.array([math.nan if value is None else value for value in column], dtype=float) for column in columns]
    return [np.where(np.isfinite(array) & ((array > 0) | (not log)), array, math.nan) for array in arrays]


def _svg(drawn: Sequence[Sequence[np.ndarray]], log: bool, number: int) -> Markup:
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=_SIZE, layout='constrained')
        axes = figure.add_subplot()
        places = np.unique(np.concatenate([x[np.isfinite(x)] for x, *_ in drawn]))
        cases = not log and _are_cases(places)
        gap = np.diff(places).min() if cases and len(places) > 1 else 1.0
        for place, (x, y, low, high) in enumerate(drawn):
            colour = _COLOURS[place % _NUM_COLOURS]
            marker = MARKERS[place % len(MARKERS)][0] if len(x) < _MAX_MARKERS else None
            if cases:
                beside = x + _BESIDE * gap * (place - (len(drawn) - 1) / 2)
                if np.isfinite(low + high).any():
                    axes.vlines(beside, low, high, color=colour, linewidth=1.2)
                axes.plot(beside, y, color=colour, marker=marker, markersize=5, linestyle='none')
                continue
            if np.isfinite(low + high).any():
                axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            dashes = _DASHES[place // _NUM_COLOURS % len(_DASHES)]
            axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.6, linestyle=dashes)
        if cases:  # nothing is between them, and lengths can be compared only from 0
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, 0), max(high, 0))
        _ticks(axes, places, log=log, cases=cases)
        buffer = io.StringIO()
        save_svg(figure, buffer, transparent=True)
    return Markup(_inline(buffer.getvalue(), number))


def _are_cases(places: np.ndarray) -> bool:
    """Return whether these places (N,) are a few single cases, such as 90, 180, 270, and not points of a curve."""
    apart = len(places) > 1 and np.diff(places).min() > 0.09 * np.ptp(places)
    return len(places) <= _MAX_CASES and (apart or len(places) == 1)


def _ticks(axes: 'Axes', places: np.ndarray, *, log: bool, cases: bool) -> None:
    if log:
        axes.set(xscale='log', yscale='log')
        for axis in (axes.xaxis, axes.yaxis):
            _log_ticks(axis)
        return
    axes.xaxis.set_major_locator(ticker.FixedLocator(places) if cases else ticker.MaxNLocator(7))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f'{value:g}'))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(6))


def _log_ticks(axis: 'Axis') -> None:
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f'{value:g}'))  # matplotlib's own writes TeX
    axis.set_minor_formatter(ticker.NullFormatter())


def _inline(svg: str, number: int) -> str:
    """Make a file's SVG part of a page: no rules for the whole page, ids of its own, the page's font and colours.

    Plain substitutions suffice: the only text in it is the numbers at the ticks.
    """
    svg = svg[svg.index('<svg') :]  # without the XML declaration and the document type
    svg = re.sub(r'<(style|metadata)\b.*?</\1>', '', svg, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', svg)[0]
    svg = re.sub(r'<svg[^>]*>', f'<svg {box} aria-hidden="true">', svg, count=1)  # the page's table has the values
    svg = re.sub(r'( id="|url\(#|href="#)', rf'\1chart{number}-', svg).replace('xlink:href', 'href')
    svg = re.sub(r'font: ([\d.]+px)[^;"]*', r'font-size: \1', svg)  # matplotlib before 3.11: size and family at once
    svg = re.sub(r'font-family:[^;"]*; ?', '', svg)
    return re.sub('|'.join(_VARIABLES), lambda match: _VARIABLES[match[0]], svg)
