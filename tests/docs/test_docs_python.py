"""Every Python block of every page is Python, every session prints what it shows, every config loads."""

import doctest

import pytest
from markdown_pages import NAMES, blocks, files

from eqzoo.config import load_config

WITH_PYTHON = [name for name in NAMES if blocks(name, 'python')]


@pytest.mark.parametrize('name', WITH_PYTHON)
def test_blocks_compile(name):
    for block in blocks(name, 'python'):
        if not block.text.startswith('>>>'):
            compile(block.text, block.file_name or name, 'exec')


@pytest.mark.parametrize('name', WITH_PYTHON)
def test_sessions_print_what_they_show(name):
    for block in blocks(name, 'python'):
        if block.text.startswith('>>>'):
            session = doctest.DocTestParser().get_doctest(block.text, {}, name, None, 0)
            assert session.examples
            assert doctest.DocTestRunner(verbose=False).run(session).failed == 0


@pytest.mark.parametrize('name', [name for name in WITH_PYTHON if any(f.endswith('config.py') for f in files(name))])
def test_configs_load(name, workplace):
    folder = workplace(name)
    for file in files(name):
        if file.endswith('config.py'):
            assert load_config(folder / file).model.type in ('AutoencoderTraining', 'GeneratorTraining')
