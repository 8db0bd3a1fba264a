"""A folder to follow a page in, as its reader would."""

import sys

import pytest
from markdown_pages import ROOT, files

from eqzoo.registry import KINDS


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A function that writes a page's files to an empty folder beside `configs/`; the folder becomes the current one.

    What the page's modules register is forgotten afterwards: other tests go through all that is registered.
    """
    for folder in ('configs', 'tools'):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    paths, modules = list(sys.path), set(sys.modules)
    registered = {id(kind): dict(kind.module_dict) for kind in KINDS}
    written = []

    def follow(name):
        for file, text in files(name).items():
            (tmp_path / file).write_text(text)
            written.append(file.removesuffix('.py'))
        return tmp_path

    yield follow
    sys.path[:] = paths
    for module in set(sys.modules) - modules:
        if module in written:
            del sys.modules[module]
    for kind in KINDS:
        for component in [name for name, each in kind.module_dict.items() if each.__module__ in written]:
            del kind.module_dict[component]
    assert all(registered[id(kind)].items() <= kind.module_dict.items() for kind in KINDS)
