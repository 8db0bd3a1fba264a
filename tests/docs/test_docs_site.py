"""The site's sources: tables made of metafiles, and numbers that are the configs' own."""

import ast
import importlib.util
import re

import pytest
from markdown_pages import ROOT

from eqzoo import registry
from eqzoo.zoo.index import models

CONFIG = re.compile(r'configs/[\w/]+\.py')
ROWS = [
    line
    for line in (ROOT / 'docs/reproduce.md').read_text().splitlines()
    if line.startswith('|') and CONFIG.search(line)
]


@pytest.fixture(scope='module')
def hooks():
    pytest.importorskip('mkdocs')
    spec = importlib.util.spec_from_file_location('docs_hooks', ROOT / 'docs/hooks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_released_model_is_in_a_table(hooks):
    page = hooks.on_page_markdown((ROOT / 'docs/models.md').read_text())
    assert '<!--' not in page
    shown = re.findall(r'^\| `([\w-]+)` \| ([\d,]+) \| (.+?) \| `(.+?)`', page, re.MULTILINE)
    assert {name for name, *_ in shown} == set(models())
    assert len(shown) == len(models())
    for name, parameters, license_name, config in shown:
        model = models()[name]
        assert f'{model.parameters:,}' == parameters
        assert license_name.startswith(model.license)
        assert config == model.config
        assert (ROOT / config).is_file()


def test_generators_and_autoencoders_are_told_apart(hooks):
    tables = {group: hooks.models_table(group) for group in ('autoencoders', 'generators', 'losses and metrics')}
    assert '`eq-vae`' in tables['autoencoders']
    assert '`dit-xl2-256`' in tables['generators']
    assert '`fid-inception`' in tables['losses and metrics']


@pytest.mark.parametrize('row', ROWS, ids=lambda row: ' '.join(CONFIG.findall(row)))
def test_numbers_to_reach_are_those_that_the_configs_state(row):
    """A number is written twice only here, and held to the config's first lines."""
    stated = ' '.join(ast.get_docstring(ast.parse((ROOT / config).read_text())) for config in CONFIG.findall(row))
    wanted = re.findall(r'(?<![\d.])\d+\.\d+', row)
    assert [number for number in wanted if number not in re.findall(r'\d+\.\d+', stated)] == []


def test_every_table_of_the_paper_is_there():
    headings = ' '.join(re.findall(r'^## (Tables? .+?):', (ROOT / 'docs/reproduce.md').read_text(), re.MULTILINE))
    shown = {int(number) for number in re.findall(r'\d+', headings)}
    assert shown | {6, 7} == set(range(1, 13))  # 'Tables 5 to 8'


def test_every_config_of_a_paper_row_is_in_the_page():
    """Those with a number to reach of EQ-VAE, but the controls that the paper has not."""
    page = (ROOT / 'docs/reproduce.md').read_text()
    for config in sorted((ROOT / 'configs').glob('*/*.py')):
        says = ast.get_docstring(ast.parse(config.read_text())) or ''
        if re.search(r'To reach \(EQ-VAE', says):
            assert f'configs/{config.parent.name}/{config.name}' in page


def test_every_registry_is_in_the_page_of_the_api():
    page = (ROOT / 'docs/api/registry.md').read_text()
    exported = [name for name in registry.__all__ if isinstance(getattr(registry, name), registry.Kind)]
    assert sorted(re.findall(r'`([A-Z_]+)`', re.sub(r'`KINDS`', '', page))) == sorted(exported)
