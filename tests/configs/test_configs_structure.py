"""The configs' layers: bases that are used, few levels of them, and printing that merges them."""

import ast
import keyword
from functools import cache
from pathlib import Path

import pytest

from eqzoo.commands.cli import run
from eqzoo.commands.configs import configs
from eqzoo.commands.train import train
from eqzoo.config import leaf_configs, load_config, to_python
from eqzoo.studies import load_study

CONFIGS = Path(__file__).parents[2] / 'configs'
FILES = sorted(CONFIGS.rglob('*.py'))
LEAVES = [str(path.relative_to(CONFIGS.parent)) for path in leaf_configs(CONFIGS)]
STUDIES = [leaf for leaf in LEAVES if Path(leaf).parent.name == 'studies']


@cache
def bases(path):
    """Return the configs that a config imports, directly."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(path.parents[node.level - 1].joinpath(*node.module.split('.')).with_suffix('.py'))
    return found


def levels(path):
    return 1 + max(map(levels, bases(path)), default=-1)


def test_a_leaf_has_at_most_three_levels_of_bases():
    assert {path.name: levels(path) for path in FILES if levels(path) > 3} == {}


def test_every_base_is_of_use_to_a_config():
    used = {base for path in FILES for base in bases(path)}
    assert [path for path in FILES if '_base_' in path.parts and path not in used] == []


def test_no_key_is_a_keyword_of_python():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            for key in node.keys if isinstance(node, ast.Dict) else ():
                assert not (isinstance(key, ast.Constant) and keyword.iskeyword(str(key.value))), path


@pytest.mark.parametrize('leaf', [leaf for leaf in LEAVES if leaf not in STUDIES])
def test_a_printed_config_is_the_same_config(leaf, tmp_path):
    config = load_config(leaf)
    (tmp_path / 'printed.py').write_text(to_python(config))
    printed = load_config(tmp_path / 'printed.py')
    assert printed.to_dict() == config.to_dict()
    assert list(printed.get('custom_hooks', {})) == list(config.get('custom_hooks', {}))  # they run in this order


@pytest.mark.parametrize('leaf', STUDIES)
def test_a_printed_study_is_the_same_study(leaf, tmp_path, capsys):
    configs(leaf, overrides=[], show=True)
    printed = tmp_path / Path(leaf).name
    printed.write_text(capsys.readouterr().out)
    assert load_study(printed) == load_study(leaf)


def test_both_commands_print_a_config_with_overrides(tmp_path, capsys):
    leaf, words = 'configs/sit/sit_tiny_shapes.py', ['--show', 'train_cfg.max_iters=7']
    printed = []
    for command in (configs, train):
        run(command, [leaf, *words])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    (tmp_path / 'printed.py').write_text(printed[0])
    assert load_config(tmp_path / 'printed.py').to_dict() == load_config(leaf, words[1:]).to_dict()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--show'], 'no config given'),
        (['demo', 'seed=1'], 'seed=1'),
        (['configs/demo/plan.py', '--show'], 'Did you mean'),
    ],
)
def test_a_mistake_in_printing_is_one_message(words, message):
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        run(configs, words)
