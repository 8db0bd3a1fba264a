"""Charts: places of points, gaps, colours, and refused curves."""

import re

import numpy as np
import pytest

from eqzoo.report.charts import draw_chart


def curve(*series, log=False, title='curve'):
    return dict(title=title, x='angle', y='error', log=log, series=[*series])


def line(x, y, low=None, high=None, label=''):
    return dict(label=label, x=x, y=y, low=low, high=high)


def paths(svg, style):
    """Return the corners of the paths whose style has `style`, in drawing order, (N, 2) each."""
    found = re.findall(rf'<path d="([^"]+)"[^>]*style="[^"]*{style}[^"]*"', svg)
    return [np.array(re.findall(r'([-\d.]+) ([-\d.]+)', each), dtype=float) for each in found]


def drawn(svg, number=0):
    """Return the places (N, 2) of a series' markers."""
    found = re.findall(rf'<use href="[^"]+" x="([\d.]+)" y="([\d.]+)" style="fill: var\(--series-{number}\); str', svg)
    return np.array(found, dtype=float)


def words(svg):
    return re.findall(r'>([^<>]+)</text>', svg)


MANY = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]  # more than are drawn as single cases


def test_points_are_where_their_values_say():
    chart = draw_chart(curve(line(MANY, [2.0, 4.0, *[3.0] * 8])))
    points = drawn(chart.svg)
    assert points.shape == (10, 2)
    steps = points[1:] - points[0]
    assert steps[-1, 0] / steps[0, 0] == pytest.approx(10, rel=1e-4)
    assert steps[-1, 1] / steps[0, 1] == pytest.approx(0.5, rel=1e-4)
    assert steps[0, 1] < 0  # SVG counts from the top
    (path,) = (each for each in paths(chart.svg, r'stroke: var\(--series-0\); stroke-width: 1.6') if len(each) == 10)
    np.testing.assert_allclose(path, points, atol=1e-3)


def test_cases_are_points_from_0_and_not_joined():
    """Series stand beside each other, with their intervals."""
    angles = [90, 180, 270]
    first = line(angles, [0.2, 0.3, 0.25], low=[0.1, 0.2, 0.2], high=[0.3, 0.4, 0.3])
    svg = draw_chart(curve(first, line(angles, [0.2, 0.3, 0.25]))).svg
    one, other = drawn(svg, 0), drawn(svg, 1)
    np.testing.assert_allclose(one[:, 1], other[:, 1])
    apart = one[1, 0] - one[0, 0]
    np.testing.assert_allclose(other[:, 0] - one[:, 0], 0.06 * apart, rtol=1e-3)
    assert 'stroke-width: 1.6' not in svg
    bars = [each for each in paths(svg, r'stroke: var\(--series-0\); stroke-width: 1.2') if len(each) == 2]
    assert len(bars) == 3
    np.testing.assert_allclose([bar[:, 0] for bar in bars], np.repeat(one[:, :1], 2, axis=1), atol=1e-3)
    assert '0.00' in words(svg)
    # the height above 0 is proportional to the value: 0.3 is half again 0.2
    zero = one[0, 1] + 2 * (one[0, 1] - one[1, 1])
    ticks = np.array(re.findall(r'<use href="[^"]+" x="[\d.]+" y="([\d.]+)"', svg), dtype=float)
    assert np.abs(ticks - zero).min() < 1e-2


def test_both_axes_are_logarithmic():
    chart = draw_chart(curve(line([1, 10, 1000], [1.0, 0.1, 0.001]), log=True))
    points = drawn(chart.svg)
    steps = points[1:] - points[0]
    np.testing.assert_allclose(steps[1], 3 * steps[0], rtol=1e-4)
    assert {'1', '10', '100', '1000', '0.001', '0.01', '0.1'} <= set(words(chart.svg))
    assert '$' not in ''.join(words(chart.svg))


def test_the_band_goes_from_low_to_high():
    without = draw_chart(curve(line([0, 1], [1.0, 1.0])))
    assert 'fill-opacity' not in without.svg
    low, high = [0.0, 0.5, 0.0, *[0.0] * 7], [2.0, 1.5, 4.0, *[2.0] * 7]
    chart = draw_chart(curve(line(MANY, [1.0] * 10, low=low, high=high)))
    (shape,) = re.findall(r'<path id="([^"]+)" d="([^"]+)" ?/>', chart.svg)
    assert f'<use href="#{shape[0]}"' in chart.svg
    assert 'style="fill: var(--series-0); fill-opacity: 0.18"' in chart.svg
    corners = np.array(re.findall(r'([-\d.]+) ([-\d.]+)', shape[1]), dtype=float)
    heights = {x: sorted({y for each, y in corners.tolist() if each == x}) for x in corners[:, 0].tolist()}
    spans = [each[-1] - each[0] for _, each in sorted(heights.items())]
    np.testing.assert_allclose(np.array(spans[:3]) / spans[0], [1, 0.5, 2], rtol=1e-4)


def test_missing_values_and_on_log_axes_those_at_or_below_0_are_gaps():
    assert len(drawn(draw_chart(curve(line([1, 2, 3, 4], [1.0, None, float('nan'), 2.0]))).svg)) == 2
    values = line([0, 1, 2, 3], [1.0, 0.0, 2.0, float('inf')])
    assert len(drawn(draw_chart(curve(values)).svg)) == 3
    assert len(drawn(draw_chart(curve(values, log=True)).svg)) == 1


@pytest.mark.parametrize(
    'empty', [curve(), curve(line([], [])), curve(line([1], [None])), curve(line([0, 1], [1.0, -1.0]), log=True)]
)
def test_a_curve_without_values_has_no_drawing(empty):
    assert draw_chart(empty).svg is None


def test_words_are_returned_not_drawn():
    chart = draw_chart(curve(line([1], [2.0], low=[1.0], high=[3.0], label=r'$\frac'), title='<b>\x00'))
    assert (chart.title, chart.x, chart.y) == ('<b>\x00', 'angle', 'error')
    assert chart.series == [dict(label=r'$\frac', marker='●', colour=0, points=[[1, 2.0, 1.0, 3.0]])]
    assert not any(word in chart.svg for word in ('frac', '<b>', 'angle', 'error'))


def test_series_differ_in_marker_colour_and_dashes():
    chart = draw_chart(curve(*(line(MANY, [float(number)] * 10) for number in range(8))))
    kinds = [(each['marker'], each['colour']) for each in chart.series]
    assert len(set(kinds)) == 6
    assert kinds[6:] == kinds[:2]
    # the seventh has the first one's colour, but dashes
    first = re.findall(r'style="fill: none; (stroke-dasharray[^;]*; )?[^"]*stroke: var\(--series-0\)', chart.svg)
    assert [bool(each) for each in first] == [False, True]


def test_few_values_are_the_ticks_and_many_get_round_ones():
    assert words(draw_chart(curve(line([90, 180, 270], [0.0, 1.0, 2.0]))).svg)[:3] == ['90', '180', '270']
    many = words(draw_chart(curve(line(list(range(100)), [float(each) for each in range(100)]))).svg)
    assert {'0', '20', '40'} <= set(many)
    close = words(draw_chart(curve(line([0, 0.01, 7], [0.0, 1.0, 2.0]))).svg)
    assert '0.01' not in close


def test_the_same_curve_gives_the_same_bytes_and_each_chart_its_own_ids():
    example = curve(line([1, 2], [1.0, 2.0], low=[0.5, 1.5], high=[1.5, 2.5]))
    first, again, other = draw_chart(example, 0).svg, draw_chart(example, 0).svg, draw_chart(example, 1).svg
    assert first == again
    ids = [set(re.findall(r' id="([^"]+)"', each)) for each in (first, other)]
    assert not ids[0] & ids[1]
    for svg, its in zip((first, other), ids, strict=True):
        assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg))
        assert {one or two for one, two in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)} <= its


def test_all_colours_are_the_pages():
    example = curve(line([1, 2], [1.0, 2.0], low=[0.5, 1.5], high=[1.5, 2.5]))
    svg = draw_chart(example).svg + draw_chart(curve(line(MANY, MANY, low=MANY, high=MANY))).svg
    assert set(re.findall(r'(?:fill|stroke): ([^;"]+)', svg)) == {'none', 'var(--ink)', 'var(--series-0)'}


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ([1], "a curve must be an object with a title, got '[1]'"),
        (dict(title=1), 'a curve must be an object with a title'),
        (dict(title='a', x=1, series=[]), "curve 'a': x and y must be the labels"),
        (dict(title='a', series={}), "curve 'a': series must be a list"),
        (dict(title='a', series=[1]), "curve 'a': series must be a list"),
        (dict(title='a', series=[dict(x=[1])]), "curve 'a': x, y, low and high of a series must be lists of num"),
        (dict(title='a', series=[dict(x=[1], y=['1'])]), 'must be lists of numbers'),
        (dict(title='a', series=[dict(x=[1], y=[True])]), 'must be lists of numbers'),
        (dict(title='a', series=[dict(x=[1], y=[1, 2])]), 'must be equally long'),
        (dict(title='a', series=[dict(x=[1], y=[1], low=[])]), 'must be equally long'),
        (dict(title='a', series=[dict(x=[1], y=[1], label=3)]), 'the label of a series must be text, got 3'),
    ],
)
def test_an_invalid_curve_is_refused(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        draw_chart(wrong)
