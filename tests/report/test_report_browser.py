"""Pages in a real browser: they load nothing, fit the window, and hostile names are only text."""

import json

import pytest
from PIL import Image

from eqzoo.report import compare_results, read_result, write_comparison_page, write_report

HOSTILE = (
    '</style></title><script>document.title = "taken"</script>'
    '<img src="http://elsewhere.invalid/name.png" onerror="document.title = \'taken\'">'
    '"\'><svg onload="document.title = \'taken\'"> {{ 7 * 7 }} &amp; ' + 'x' * 300
)
MEASURE = """
const pictures = [...page.querySelectorAll('img')];
const widths = () => pictures.map(each => each.getBoundingClientRect().width);
const before = widths(), zoomed = page.querySelector('.zoom img');
if (zoomed) zoomed.click();
const full = widths(), content = root.scrollWidth;
if (zoomed) zoomed.click();
return {
  again: widths(), full, content,
  title: page.title, own, width: root.clientWidth, text: page.body.textContent,
  scripts: page.scripts.length, handlers: page.querySelectorAll('[onload], [onerror]').length,
  natural: pictures.map(each => [each.naturalWidth, each.naturalHeight]), shown: before,
  sources: pictures.map(each => each.src.slice(0, 5)),
  tables: [...page.querySelectorAll('table')].map(each => [each.rows.length, each.checkVisibility()]),
  charts: [...page.querySelectorAll('.chart svg')].map(each => ({
    width: each.getBoundingClientRect().width,
    complete: [...each.querySelectorAll('use')].every(use => page.querySelector(use.getAttribute('href'))),
    stroke: getComputedStyle(each.querySelector('path[style*="--series-0"]')).stroke,
    words: [...each.querySelectorAll('text')].map(text => text.textContent),
  })),
  frames: [...page.querySelectorAll('.scroll')].map(each => each.getBoundingClientRect().right),
  column: page.body.clientWidth - 2 * parseFloat(getComputedStyle(page.body).paddingLeft),
  ids: [...page.querySelectorAll('[id]')].map(each => each.id),
};
"""
# A page that loads, runs and overflows, as a check of the measures
CONTROL = b"""<!doctype html><img src="http://elsewhere.invalid/control.png" onerror="1"><p style="width: 900px">wide
<script>document.title = 'taken'; navigator.sendBeacon('http://elsewhere.invalid/sent', '{}')</script>"""
PICTURES = {'Test': (1500, 400, 'RGB'), 'Latents': (300, 200, 'P'), HOSTILE: (64, 64, 'RGBA')}


def renamed(value):
    """Append the hostile name to every text of a result."""
    if isinstance(value, dict):
        keep = ('metrics', 'cases', 'curves', 'card', 'title', 'x', 'y', 'series', 'label', 'low', 'high', 'log')
        return {
            name if name in keep or name in FIELDS else f'{name} {HOSTILE}': renamed(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [renamed(item) for item in value]
    return f'{value} {HOSTILE}' if isinstance(value, str) else value


FIELDS = ('config', 'weights', 'data', 'num_images', 'unreadable', 'evaluators', 'eqzoo', 'torch', 'sha256', 'file')


def texts(value):
    """Return all keys and strings of a result."""
    if isinstance(value, dict):
        return [text for name, item in value.items() for text in [name, *texts(item)]]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@pytest.fixture(scope='module')
def seen(look, result, tmp_path_factory):
    """The browser's measures of each page at each width, its requests to other hosts, and its console."""
    folder = tmp_path_factory.mktemp('pages')
    pictures = {title: Image.new(mode, size, 1) for title, (*size, mode) in PICTURES.items()}
    write_report(folder / 'report.html', result(), pictures)
    write_report(folder / 'hostile.html', renamed(result()), pictures)
    runs = {'plain': result(), 'eq': result(psnr=26.0), HOSTILE: result(protocol=HOSTILE)}
    for number, content in enumerate(runs.values()):
        (folder / f'{number}.json').write_text(json.dumps(content))
    read = {name: read_result(folder / f'{number}.json') for number, name in enumerate(runs)}
    write_comparison_page(folder / 'comparison.html', compare_results(read, allow_unlike=True))
    pages = {path.name: path.read_bytes() for path in folder.glob('*.html')}
    pages['control.html'] = CONTROL
    return look(pages, (1280, 480), MEASURE)


def of_ours(found):
    return {f'{name} at {width}': page for (name, width), page in found.items() if name != 'control.html'}


def test_nothing_is_loaded(seen):
    found = seen.found
    # the control shows that a request would be noticed
    requests = {'http://elsewhere.invalid/control.png', 'http://elsewhere.invalid/sent'}
    assert set(found['control.html', 480]['own']) == requests
    assert {each for each in seen.elsewhere if 'elsewhere' in each} == requests
    loaded = {where: [each for each in page['own'] if not each.startswith('data:')] for where, page in found.items()}
    assert [where for where, names in loaded.items() if names] == [('control.html', 1280), ('control.html', 480)]
    assert all(set(page['sources']) <= {'data:'} for page in of_ours(found).values())


def test_pages_fit_the_window(seen):
    found = seen.found
    assert found['control.html', 480]['content'] > 480
    assert {where: page['content'] for where, page in of_ours(found).items() if page['content'] > page['width']} == {}


def test_tables_scroll_inside_their_frames_and_the_console_is_silent(seen):
    for where, page in of_ours(seen.found).items():
        assert page['frames'], where
        assert max(page['frames']) <= page['width'], where
    assert [each for each in seen.console if 'control.html' not in each[1]] == []
    assert seen.missing == []


def test_names_are_text(seen, result):
    found = seen.found
    assert found['control.html', 480]['title'] == 'taken'
    assert (found['control.html', 480]['scripts'], found['control.html', 480]['handlers']) == (1, 1)
    for where, page in of_ours(found).items():
        assert (page['scripts'], page['handlers']) == (0, 0), where
        assert page['title'] != 'taken', where
        assert len(set(page['ids'])) == len(page['ids']), where
    names = [name for name in texts(renamed(result())) if HOSTILE in name]
    assert len(names) > 30
    assert [name for name in [*names, *PICTURES] if name not in found['hostile.html', 480]['text']] == []
    assert HOSTILE in found['comparison.html', 480]['text']


@pytest.mark.parametrize('name', ['report.html', 'hostile.html'])
def test_pictures_have_their_sizes(seen, name):
    found = seen.found
    large, small = found[name, 1280], found[name, 480]
    assert large['natural'] == small['natural'] == [list(size) for *size, _ in PICTURES.values()]
    # fitted to the page, also on a phone, and pixel for pixel after a click
    assert large['shown'] == pytest.approx([large['column'], 300, 64], abs=0.1)
    assert small['shown'] == pytest.approx([small['column'], 300, 64], abs=0.1)
    assert large['full'] == small['full'] == [1500, 300, 64]
    assert (large['again'], small['again']) == (large['shown'], small['shown'])


def test_tables_have_their_lines(seen):
    found = seen.found
    # metrics, the chart's values (folded), cases, each below a head
    assert found['report.html', 480]['tables'] == [[5, True], [3, False], [3, True]]
    # a metric with a hostile name is a line like any other
    assert found['hostile.html', 480]['tables'] == [[5, True], [3, False], [3, True]]
    assert found['comparison.html', 480]['tables'] == [[5, True]]
    for words, page in (
        (('25.61', 'nan', 'broken.png', 'eqvae/sd16_rot_scale', 'cd' * 32, 'posterior mean', '2.6.0'), 'report.html'),
        (('25.61', '26.00', 'not "uint8"', 'ab' * 6), 'comparison.html'),
    ):
        assert [word for word in words if word not in found[page, 480]['text']] == []


def test_charts_fill_the_column_and_use_the_pages_colours(seen):
    found = seen.found
    for where in (('report.html', 480), ('hostile.html', 480), ('report.html', 1280)):
        (chart,) = found[where]['charts']
        assert 350 < chart['width'] <= found[where]['column'] + 0.1
        assert chart['complete']  # all references to markers and clips resolve
        assert chart['stroke'] == 'rgb(0, 114, 178)'
        assert chart['words'] == found['report.html', 480]['charts'][0]['words']
    assert found['comparison.html', 480]['charts'] == []  # the cards differ
