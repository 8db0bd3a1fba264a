"""Links between pages, and the navigation."""

from pathlib import PurePosixPath

import pytest
import yaml
from markdown_pages import NAMES, ROOT, anchors, links


@pytest.mark.parametrize('name', NAMES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in links(name):
        if link.startswith(('http://', 'https://', 'mailto:')):
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f'{name}: {link}'
        assert target.is_relative_to(ROOT), f'{name}: {link} leaves the project'
        if anchor and not anchor.startswith('eqzoo.'):  # of the API: mkdocs' own check, `make docs`
            assert anchor in anchors(target), f'{name}: {link}; {target.name} has {sorted(anchors(target))}'


def test_pages_of_the_site_link_to_pages_of_the_site():
    """A link out of docs/ works in the repository and is dead in the site."""
    for name in NAMES:
        if name.startswith('docs/'):
            for link in links(name):
                path = link.partition('#')[0]
                if path and '://' not in path:
                    assert (ROOT / name).parent.joinpath(path).resolve().is_relative_to(ROOT / 'docs'), (
                        f'{name}: {link}'
                    )


def test_every_page_is_in_the_navigation_once():
    entries = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']
    assert sorted(pages_of(entries)) == sorted(name[len('docs/') :] for name in NAMES if name.startswith('docs/'))


def pages_of(entry):
    if isinstance(entry, list):
        return [page for each in entry for page in pages_of(each)]
    return pages_of(list(entry.values())) if isinstance(entry, dict) else [entry]


def test_every_package_has_its_page_of_the_api():
    pages = {PurePosixPath(name).stem for name in NAMES if name.startswith('docs/api/')} - {'index'}
    files = {path for folder in ('eqzoo', 'registry') for path in (ROOT / folder).rglob('__init__.py')}
    # those whose `__init__.py` exports names; a package inside another may share its page
    packages = {path.parent for path in files - {ROOT / 'eqzoo/__init__.py'} if '__all__' in path.read_text()}
    assert pages <= {package.name for package in packages}
    assert pages >= {package.name for package in packages if package.parent in (ROOT, ROOT / 'eqzoo')}
