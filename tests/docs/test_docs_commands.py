"""Every command that a page shows is one: its tool, its options, its config, its overrides and its paths are there."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from command_lines import function_of, tool_of
from markdown_pages import NAMES, ROOT, commands, files, inline_commands

from eqzoo.commands.cli import parse, run
from eqzoo.config import load_config
from eqzoo.zoo.index import find_model

# What is called but is not this project's.
OTHERS = {'git', 'mkdocs', 'pip', 'pytest', 'tensorboard'}
IN_THE_REPOSITORY = ('configs', 'docs', 'eqzoo', 'registry', 'tests', 'tools')

SHOWN = list(dict.fromkeys((name, tuple(words)) for name in NAMES for words in commands(name)))
MENTIONED = list(dict.fromkeys((name, tuple(words)) for name in NAMES for words in inline_commands(name)))
IN_SECONDS = {'--smoke', '--dry-run', '--list', '--help'}


def named(shown):
    return f'{shown[0]}: {" ".join(shown[1])}'[:120]


@pytest.mark.parametrize('shown', [*SHOWN, *MENTIONED], ids=named)
def test_it_is_understood(shown, workplace):
    name, words = shown
    called = tool_of(words)
    if 'make' in words[:2]:
        assert words[words.index('make') + 1] in targets()
    elif called is None:
        assert OTHERS & {Path(word).name for word in words[:3]}, f'{words[0]} is no command of eqzoo'
    elif '--help' not in words:
        check_arguments(called[0], parsed(*called), workplace(name))
    for word in words:
        check_path(word.rpartition('=')[2])


def targets():
    return re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)


def parsed(tool, words):
    function, rest = function_of(tool, list(words))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(function, rest)
    except SystemExit:
        pytest.fail(said.getvalue())


def check_arguments(tool, arguments, folder):
    """Load the config that is meant, with the overrides."""
    if tool == 'download' and arguments['name']:
        find_model(arguments['name'])
    config = arguments.get('config_file') or arguments.get('config')
    overrides = arguments.get('overrides', ())
    if config or overrides:
        load_config(folder / (config or 'configs/demo/plain.py'), overrides)


def check_path(word):
    """Find what is in the repository, or in the zoo."""
    if word.partition('/')[0] in IN_THE_REPOSITORY and word.endswith(('.py', '.md', '.sh', '.yml')):
        assert (ROOT / word).is_file(), word
    if word.startswith('eqzoo://'):
        find_model(word.removeprefix('eqzoo://').partition('/')[0])


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ('tools/train.py configs/demo/plain.py --smoking', 'nrecognized arguments: --smoking'),
        ('tools/train.py', 'CONFIG_FILE|config_file'),
        ('tools/train.py configs/demo/plan.py', 'is not a file'),
        ('tools/train.py configs/demo/plain.py model.objectiv=1', 'Did you mean'),
        ('tools/convert.py a b --to torch', 'torch'),
        ('tools/benchmark.py store --workers many', 'workers'),
        ('tools/download.py sd-vea', 'Did you mean'),
        ('tools/test.py configs/demo/plain.py eqzoo://sd-vea', 'Did you mean'),
        ('tools/trian.py configs/demo/plain.py', 'trian'),
        ('make tests', 'tests'),
        ('rm -r work_dirs', 'no command of eqzoo'),
    ],
)
def test_a_wrong_one_is_noticed(words, said, workplace):
    with pytest.raises((ValueError, AssertionError, OSError, pytest.fail.Exception), match=said):
        test_it_is_understood(('README.md', tuple(words.split())), workplace)


def runnable(shown):
    """Say whether it ends in seconds as it stands, and is not one of a how-to, which is run as a whole."""
    # `benchmark.py startup --smoke` times whole smoke runs, for minutes
    return bool(IN_SECONDS & set(shown[1])) and not set(shown[1]) & {'startup', *files(shown[0])}


@pytest.mark.parametrize(
    'words', sorted({shown[1] for shown in SHOWN if runnable(shown) and tool_of(list(shown[1]))}), ids=' '.join
)
def test_it_runs(words, workplace, capsys):
    workplace('README.md')
    function, rest = function_of(*tool_of(list(words)))
    stopped = None
    try:
        run(function, rest)
    except SystemExit as end:
        stopped = end.code
    if stopped:  # a dry run says what is missing, and how to fetch it
        assert '--dry-run' in words
        assert 'tools/download.py' in stopped
    else:
        assert capsys.readouterr().out


def shown_of_configs():
    """Return which tools the pages show for each config of the repository, but in commands that run as they stand."""
    found = {}
    for shown in SHOWN:
        tool, words = tool_of(list(shown[1])) or (None, ())
        for config in (word for word in words if re.fullmatch(r'configs/[\w/]+\.py', word) and not runnable(shown)):
            found.setdefault(config, set()).add(tool)
    return {config: tools for config, tools in found.items() if tools & {'cache_latents', 'train', 'test', 'sample'}}


# Of minutes and days each, run small: two dozen trainings of seconds, minutes together.
@pytest.mark.slow
@pytest.mark.parametrize(('config', 'tools'), sorted(shown_of_configs().items()))
def test_what_takes_long_runs_small(config, tools, workplace, capsys):
    workplace('README.md')
    options = {'cache_latents': ['--out', 'latents'], 'sample': ['--out', 'samples.npz', '--num', '4']}
    for tool in ('cache_latents', 'train', 'test', 'sample'):
        if tool in tools or tool == 'train':  # which the two after it need
            function, rest = function_of(tool, [config, '--smoke', *options.get(tool, ())])
            run(function, rest)
    assert 'Done.' in capsys.readouterr().out
