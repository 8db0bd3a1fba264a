"""The built site: complete, loading nothing from elsewhere, and readable in a wide and in a narrow window."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import GenericAlias

import pytest
import yaml
from markdown_pages import ROOT

from eqzoo import registry

# `.ci/run` has built the site before the tests; building it takes a quarter of a minute.
pytestmark = [] if 'EQZOO_SITE' in os.environ else pytest.mark.slow
WIDTHS = (1280, 480)
HIDDEN_BY_MODULES = {'upload'}  # functions with the name of their module, which the reader of sources takes for it
PACKAGES = re.findall(r'^ +- eqzoo\.([\w.]+): api/', (ROOT / 'mkdocs.yml').read_text(), re.MULTILINE)
MEASURE = """
const boxes = [...page.querySelectorAll('.md-typeset pre > code, .md-typeset table:not(.highlighttable)')];
const right = each => each.getBoundingClientRect().right;
const frame = each => each.closest('.md-typeset__scrollwrap, .tabbed-content, pre') || each;
const shown = each => each.checkVisibility({visibilityProperty: true});
const label = each => (each.textContent || '').replace(/\\s+/g, ' ').trim();
const menu = (list, depth) => [...list.children].flatMap(item => {
  // not the headings of the page that is open, which are in its own entry
  const nested = item.querySelector(':scope > nav:not(.md-nav--secondary) > ul'), link = item.querySelector(':scope > a, :scope > label');
  const place = {depth, text: label(link), page: !nested && link.tagName === 'A', shown: shown(item),
    folded: Boolean(nested) && !shown(nested)};
  return [place, ...(nested ? menu(nested, depth + 1) : [])];
});
return {
  window: root.clientWidth, content: root.scrollWidth,
  code: boxes.filter(each => each.tagName === 'CODE' && each.scrollWidth > each.clientWidth + 1).map(label),
  outside: boxes.filter(each => right(frame(each)) > root.clientWidth + 1).map(label),
  bare: boxes.filter(each => each.tagName === 'TABLE' && !each.closest('.md-typeset__scrollwrap')).map(label),
  pictures: [...page.querySelectorAll('.md-content img')].map(each => [each.src, each.naturalWidth, right(each)]),
  menu: menu(page.querySelector('.md-nav--primary > ul'), 0),
};
"""
# Both must be found: a line of code that is cut, and a picture that is not there, which also widen their page
CONTROL = (
    b"""<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="site.css"><body class="md-content">
<nav class="md-nav--primary"><ul></ul></nav><div class="md-typeset"><pre><code style="white-space: pre; display: block;
overflow: auto">"""
    + b'x' * 1000
    + b"""</code></pre><table style="width: 3000px"><tr><td>wide</table>
<img src="nowhere.png"></div><script>console.error('control')</script>"""
)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The folder of the built site."""
    if 'EQZOO_SITE' in os.environ:
        return Path(os.environ['EQZOO_SITE']).resolve()
    pytest.importorskip('mkdocs')
    folder = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return folder


def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob('*.html'))
    assert len(pages) > 30
    loads = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)="?(?:https?:)?//[^>]*>')
    for page in pages:
        loaded = [tag for tag in loads.findall(page.read_text()) if 'rel="canonical"' not in tag]
        assert not loaded, f'{page.name}: {loaded}'


def test_the_api_shows_all_that_packages_export(site):
    assert len(PACKAGES) > 10
    for name in PACKAGES:
        page = (site / f'api/{name.rpartition(".")[2]}.html').read_text()
        package = importlib.import_module(f'eqzoo.{name}')
        shown = {each.rpartition('.')[2] for each in re.findall(r'id="?(eqzoo[\w.]+)', page)}
        # kinds are a table there; lists, words and names of types, such as Grid, have no docstring
        hidden = registry.Kind | list | str | GenericAlias
        exported = {each for each in package.__all__ if not isinstance(getattr(package, each), hidden)}
        assert exported - shown - HIDDEN_BY_MODULES == set(), name


@pytest.fixture(scope='module')
def seen(look, site):
    """The browser's measures of every page at both widths."""
    files = {str(path.relative_to(site)): path.read_bytes() for path in site.rglob('*') if path.is_file()}
    return look({**files, 'control.html': CONTROL}, WIDTHS, MEASURE, pause=50)


def of_site(seen):
    return {f'{name} at {width}': page for (name, width), page in seen.found.items() if name != 'control.html'}


def test_the_measures_find_what_is_wrong(seen):
    control = seen.found['control.html', 480]
    assert control['content'] > control['window'] == 480
    assert [len(each) for each in control['code']] == [1000]
    assert control['bare'] == control['outside'] == ['wide']
    assert [width for _, width, _ in control['pictures']] == [0]
    assert 'nowhere.png' in seen.missing
    assert any(message == 'control' for message, _ in seen.console)


def test_no_page_is_wider_than_its_window(seen):
    pages = of_site(seen)
    assert len(pages) > 60
    assert {page['window'] for page in pages.values()} == {*WIDTHS}
    assert {where: page['content'] for where, page in pages.items() if page['content'] > page['window']} == {}


def test_code_is_never_cut_and_tables_scroll_inside_their_frames(seen):
    pages = of_site(seen)
    for defect in ('code', 'outside', 'bare'):
        assert {where: page[defect] for where, page in pages.items() if page[defect]} == {}, defect


def test_pictures_are_there_and_fit(seen):
    pictures = [(where, page['window'], *each) for where, page in of_site(seen).items() for each in page['pictures']]
    assert len(pictures) > 40
    assert [(where, source) for where, _, source, width, _ in pictures if width == 0] == []
    assert [(where, source) for where, window, source, _, right in pictures if right > window + 1] == []


def test_the_console_is_silent_and_no_file_is_missing(seen):
    assert {name for name in seen.missing if name != 'nowhere.png'} == set()
    ours = [(message, source) for message, source in seen.console if 'control.html' not in source]
    assert [each for each in ours if 'nowhere.png' not in each[1]] == []


def test_the_menu_has_every_page_and_folds_the_studies(seen):
    menu = seen.found['index.html', 1280]['menu']
    configured = yaml.safe_load(re.sub(r'!!python\S*', '', (ROOT / 'mkdocs.yml').read_text()))['nav']
    assert [each['text'] for each in menu] == list(_titles(configured))
    assert [each['text'] for each in menu if each['folded']] == [
        'Add a component',
        'Results, study by study',
        'In depth',
        'API',
    ]
    studies = [each for each in menu if re.search(r', on (Shapes|CIFAR-10)$', each['text'])]
    assert studies[0]['text'] == 'Autoencoders, on Shapes'
    assert [each['page'] for each in studies] == [True] * 11
    assert not any(each['shown'] for each in studies)
    # on a study's page its folder is open, and no heading is a link to the first page below it
    opened = seen.found['results/autoencoders_shapes/index.html', 1280]['menu']
    shown = {each['text']: each['shown'] for each in opened}
    assert shown['Autoencoders, on Shapes']
    assert shown['MaskGIT, on CIFAR-10']
    assert not shown['eqzoo.registry']


def _titles(entries):
    for entry in entries:
        ((title, content),) = entry.items()
        yield title
        if isinstance(content, list):
            yield from _titles(content)
