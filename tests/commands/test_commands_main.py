"""`eqzoo COMMAND ...`: one table, nothing imported but what is called."""

import inspect
import re
import subprocess
import sys

import pytest

from eqzoo import __version__
from eqzoo.commands.cli import BENCHMARKS, COMMANDS, main
from eqzoo.config import leaf_configs

CALLABLE = {name: each for name, each in {**COMMANDS, **BENCHMARKS}.items() if name != 'benchmark'}


def said(capsys, *words):
    """Return what a command prints before it ends the program, and how it does."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return capsys.readouterr().out, end.value.code


@pytest.mark.parametrize('name', CALLABLE)
def test_every_command_is_a_function_with_a_help(name, capsys):
    assert inspect.isfunction(CALLABLE[name].load())
    words = ['benchmark', name] if name in BENCHMARKS else [name]
    out, code = said(capsys, *words, '--help')
    assert code == 0
    assert out.startswith(f'usage: eqzoo {" ".join(words)} ')


def test_every_tool_is_a_command(root):
    tools = {path.stem.replace('_', '-') for path in (root / 'tools').glob('*.py')}
    assert tools == set(COMMANDS) - {'configs'}


def test_every_command_is_there():
    for command in (*COMMANDS.values(), *BENCHMARKS.values()):
        assert not command.function or callable(command.load())


def test_help_and_version_import_no_torch():
    script = (
        'import sys\nfrom eqzoo.commands.cli import main\n'
        'main(["--version"])\n'
        'for words in (["--help"], ["benchmark", "--help"], ["trian"]):\n'
        '    try:\n        main(words)\n    except SystemExit as end:\n        print(end.code)\n'
        'print({"torch", "mmengine", "numpy", "yaml"} & set(sys.modules))'
    )
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith(f'eqzoo {__version__}\nusage: eqzoo COMMAND')
    assert result.stdout.endswith('set()\n'), result.stdout + result.stderr
    for name, command in {**COMMANDS, **BENCHMARKS}.items():
        assert re.search(rf'^  {name} +{re.escape(command.summary)}$', result.stdout, re.MULTILINE)


def test_an_unknown_command_suggests_the_nearest(capsys):
    _, code = said(capsys, 'cache_latent')
    assert code.startswith(
        "error: eqzoo: unknown command 'cache_latent'. Did you mean 'cache-latents'? There are: train,"
    )
    _, code = said(capsys, 'benchmark', 'eqstep')
    assert code.startswith(
        "error: eqzoo benchmark: unknown command 'eqstep'. Did you mean 'eq-step'? There are: cache,"
    )
    _, code = said(capsys)
    assert code.startswith('usage: eqzoo COMMAND')


def test_what_a_message_advises_is_written_as_it_was_called(capsys):
    _, code = said(capsys, 'train', 'configs/demo/rot_scale.py', 'model.autoencoder.weights=nowhere.pth')
    assert code.endswith('\n   eqzoo train configs/demo/rot_scale.py --smoke')
    assert 'tools/' not in code
    _, code = said(capsys, 'train', 'configs/eqvae/sdxl_rot_scale.py', 'model.micro_batch_size=none')
    assert 'eqzoo download sdxl-vae' in code


def test_configs_lists_what_there_is(root, capsys):
    main(['configs'])
    listed = re.findall(r'^(configs/\S+\.py) +\S', capsys.readouterr().out, re.MULTILINE)
    assert listed == [str(path.relative_to(root)) for path in leaf_configs(root / 'configs')]
    main(['configs', 'ROT_anis'])
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r'configs/eqvae/sd_rot_anisotropic\.py  \w', lines[0])
    assert lines[-1] == '    from eqzoo.configs.eqvae.sd_rot_anisotropic import *'
    _, code = said(capsys, 'configs', 'no such word')
    assert re.match(r"error: configs: none of the \d+ has 'no such word' in its name or first line", code)
