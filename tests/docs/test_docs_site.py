"""The site's sources: tables made of metafiles, and numbers that are the configs' own."""

import ast
import importlib.util
import re
import sys

import pytest
from command_lines import function_of, tool_of
from markdown_pages import ROOT

from eqzoo import registry
from eqzoo.commands.cli import parse
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
    sys.path.insert(0, str(ROOT / 'docs'))  # as mkdocs does
    try:
        spec = importlib.util.spec_from_file_location('docs_hooks', ROOT / 'docs/hooks.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / 'docs'))
    return module


@pytest.fixture(scope='module')
def cards(hooks):
    """The cards by name, as Markdown."""
    page = hooks.on_page_markdown((ROOT / 'docs/model_cards.md').read_text())
    assert '<!--' not in page
    return dict(re.findall(r'^### ([\w-]+)$(.*?)(?=^##|\Z)', page, re.MULTILINE | re.DOTALL))


def test_every_released_model_is_in_a_table(hooks, cards):
    page = hooks.on_page_markdown((ROOT / 'docs/models.md').read_text())
    assert '<!--' not in page
    row = r'^\| (?:\[`([\w-]+)`\]\(model_cards.md#([\w-]+)\)|`([\w-]+)`) \| ([\d,]+) \| (.+?) \| `(.+?)`'
    shown = re.findall(row, page, re.MULTILINE)
    assert {linked or name for linked, _, name, *_ in shown} == set(models())
    assert len(shown) == len(models())
    assert {linked for linked, *_ in shown} - {''} == {target for _, target, *_ in shown} - {''} == set(cards)
    for linked, _, name, parameters, license_name, config in shown:
        model = models()[linked or name]
        assert f'{model.parameters:,}' == parameters
        assert license_name.startswith(model.license)
        assert config == model.config
        assert (ROOT / config).is_file()


def test_generators_and_autoencoders_are_told_apart(hooks):
    tables = {group: hooks.zoo_pages.models_table(group) for group in hooks.zoo_pages.GROUPS}
    assert '`eq-vae`' in tables['autoencoders']
    assert '`dit-xl2-256`' in tables['generators']
    assert '`fid-inception`' in tables['losses and metrics']


def test_a_card_has_the_counted_parameters_and_commands_that_are_understood(cards):
    for name, text in cards.items():
        assert f'{models()[name].parameters:,} parameters' in text
        assert f'eqzoo.load({name!r})' in text
        commands = [line.removeprefix('$ ').split() for line in text.splitlines() if line.startswith('$ ')]
        assert ['python', 'tools/download.py', name] in commands
        for command in commands:
            function, words = function_of(*tool_of(command))
            arguments = parse(function, list(words))
            if config := arguments.get('config') or arguments.get('config_file'):
                assert (ROOT / config).is_file()
        for folder, file in re.findall(r'`(configs/[\w/]+)`: `(\w+\.py)`', text):
            assert (ROOT / folder / file).is_file()


def test_cards_say_what_networks_and_configs_are(cards):
    wanted = {
        'sd-vae': ['f8, 4 channels: 4 x 32 x 32 of', 'Gaussian', '| z x 0.18215 |', 'sd_rot_scale.py', '--to comfyui'],
        'sd3-vae': ['16 x 32 x 32', '(z - 0.0609) x 1.5305', 'gated'],
        'sd-vae-16': ['16 x 16 x 16', 'none stated', '--to eqzoo'],  # of an unstated scale diffusers would assume one
        'vqgan-f16-1024': ['one of 1,024 codes', '`configs/maskgit`: `maskgit_base_512_published.py`, `maskgit_base'],
        'taef2': ['eqzoo://taef2/taef2_encoder.pth,eqzoo://taef2/taef2_decoder.pth taef2.safetensors --to eqzoo'],
        'flux2-vae': ['AutoencoderKLFlux2', 'by the batch norm in its weights'],
        'qwen-image-vae': ['mean and standard deviation of each channel', '126,892,531 parameters: encoder '],
        'sd-vae-ft-mse': ['| fine-tuned by | `configs/repae`: `repae_xl2_sd.py` |'],
        'dit-xl2-256': ['4 x 32 x 32, of 1,000 classes', '[`sd-vae-ft-ema`](#sd-vae-ft-ema)', 'CC-BY-NC-4.0'],
        'halton-base-256': ['16 x 16 codes of 16,384', '[`llamagen-vq16-c2i`](#llamagen-vq16-c2i)'],
    }
    lacking = {name: [each for each in facts if each not in cards[name]] for name, facts in wanted.items()}
    assert {name: facts for name, facts in lacking.items() if facts} == {}
    assert 'fine-tuned by' not in cards['sdxl-vae-fp16-fix']


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
