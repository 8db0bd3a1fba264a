"""`eqzoo COMMAND ...`: one table, of which only the called command is imported."""

import inspect
import os
import re
import signal
import subprocess
import sys
from functools import partial

import pytest

from eqzoo import __version__
from eqzoo.commands import cli
from eqzoo.commands.cli import BENCHMARKS, COMMANDS, main, run_tool
from eqzoo.config import leaf_configs

CALLABLE = {name: each for name, each in {**COMMANDS, **BENCHMARKS}.items() if name != 'benchmark'}


def output_of(capsys, *words):
    """Return the output of a command that ends the program, and its exit status or message."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return capsys.readouterr().out, end.value.code


@pytest.mark.parametrize('name', CALLABLE)
def test_every_command_is_a_function_with_a_help(name, capsys):
    assert inspect.isfunction(CALLABLE[name].load())
    words = ['benchmark', name] if name in BENCHMARKS else [name]
    out, code = output_of(capsys, *words, '--help')
    assert code == 0
    assert out.startswith(f'usage: eqzoo {" ".join(words)}')


def test_every_tool_is_a_command(root):
    tools = {path.stem.replace('_', '-'): path.read_text() for path in (root / 'tools').glob('*.py')}
    assert set(tools) == set(COMMANDS) - {'configs'}
    for name in set(tools) - {'benchmark'}:
        assert tools[name].endswith(f"if __name__ == '__main__':\n    run_tool('{name}')\n")


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
    _, code = output_of(capsys, 'cache_latent')
    assert code.startswith(
        "error: eqzoo: unknown command 'cache_latent'. Did you mean 'cache-latents'? Expected one of: train,"
    )
    _, code = output_of(capsys, 'benchmark', 'eqstep')
    assert code.startswith(
        "error: eqzoo benchmark: unknown command 'eqstep'. Did you mean 'eq-step'? Expected one of: cache,"
    )
    _, code = output_of(capsys, 'inspect', 'sd-vae')
    assert code.startswith("error: eqzoo: 'inspect' is now called 'laboratory'")
    _, code = output_of(capsys)
    assert code.startswith('usage: eqzoo COMMAND')


def test_advice_in_messages_has_the_form_of_the_call(capsys):
    _, code = output_of(capsys, 'train', 'configs/demo/rot_scale.py', 'model.autoencoder.weights=nowhere.pth')
    assert code.endswith('\n   eqzoo train configs/demo/rot_scale.py --smoke')
    assert 'tools/' not in code
    _, code = output_of(capsys, 'train', 'configs/eqvae/sdxl_rot_scale.py', 'model.micro_batch_size=none')
    assert 'eqzoo download sdxl-vae' in code


def test_configs_lists_all(root, capsys):
    main(['configs'])
    listed = re.findall(r'^(configs/\S+\.py) +\S', capsys.readouterr().out, re.MULTILINE)
    assert listed == [str(path.relative_to(root)) for path in leaf_configs(root / 'configs')]
    main(['configs', 'ROT_anis'])
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r'configs/eqvae/sd_rot_anisotropic\.py  \w', lines[0])
    assert lines[-1] == '    from eqzoo.configs.eqvae.sd_rot_anisotropic import *'
    _, code = output_of(capsys, 'configs', 'no such word')
    assert re.match(r"error: configs: none of the \d+ has 'no such word' in its name or first line", code)


@pytest.mark.parametrize(
    'words',
    [
        ['--help'],
        ['configs'],
        ['download', '--list'],
        ['download', '--help'],
        ['benchmark', 'compare', 'nowhere.json', 'nowhere.json'],
        ['train', '--help'],
        ['train', 'configs/demo/plan.py'],
        ['train', 'configs/demo/plain.py', 'trian_cfg.max_iters=1'],
        ['train', 'configs/demo/plain.py', 'train_cfg.max_iter=1'],
        ['train', 'configs/demo/plain.py', '--show'],
        ['test', 'configs/demo/plan.py'],
        ['score', '--help'],
        ['reference', 'configs/dit/dit_tiny_shape.py', 'x.npz'],
        ['convert', '--help'],
        ['compare', '--help'],
        ['study', '--help'],
        ['demo', '--help'],
        ['benchmark', 'eq-step', 'configs/demo/plan.py'],
        ['sample', 'configs/dit/dit_tiny_shape.py', '--out', 'x'],
        ['cache-latents', 'configs/dit/dit_tiny_shapes.py', 'sed=1'],
        ['latent-stats', 'configs/demo/plain.py', 'x.pth', 'sed=1'],
        ['laboratory', 'a', 'b', '--out', 'x', '--size', '0'],
    ],
    ids=' '.join,
)
def test_what_builds_nothing_imports_no_torch(words):
    script = (
        'import sys\nfrom eqzoo.commands.cli import main\n'
        f'try:\n    main({words!r})\nexcept SystemExit as end:\n    print(end.code, file=sys.stderr)\n'
        'heavy = {"torch", "diffusers", "torchmetrics", "torchvision", "timm", "matplotlib", "scipy"}\n'
        'print("imported", heavy & set(sys.modules))'
    )
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=60)
    assert result.stdout.endswith('imported set()\n'), result.stdout + result.stderr


# packages that are needed by some components and commands only, and take a tenth of a second or more to import
RARE = {
    *('bitsandbytes', 'transformers', 'diffusers', 'timm', 'lpips', 'torchmetrics', 'torch_fidelity', 'torchvision'),
    *('matplotlib.figure', 'scipy.linalg', 'scipy.stats', 'requests', 'wandb', 'mlflow', 'onnx', 'datasets'),
}


def test_the_engine_imports_no_package_that_few_runs_need():
    script = (
        'import sys, eqzoo.engine, eqzoo.data, eqzoo.evaluators, eqzoo.report.page, eqzoo.zoo\n'
        f'print("imported", {RARE!r} & set(sys.modules))'
    )
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=300)
    assert result.stdout.endswith('imported set()\n'), result.stdout + result.stderr


def test_without_the_engine_no_sharding_is_imported():
    script = (
        'import sys, eqzoo.loading, eqzoo.checkpoints, eqzoo.autoencoders\n'
        'print("imported", {"torch.distributed.tensor", "sympy", "mmengine.runner"} & set(sys.modules))'
    )
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=300)
    assert result.stdout.endswith('imported set()\n'), result.stdout + result.stderr


@pytest.mark.parametrize('name', CALLABLE)
def test_ctrl_c_ends_every_command_with_one_line(name, capsys, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt  # while its modules are imported

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli.LazyCommand, 'load', interrupt)
    calls = (
        [partial(main, ['benchmark', name])] if name in BENCHMARKS else [partial(main, [name]), partial(run_tool, name)]
    )
    for call in calls:
        with pytest.raises(SystemExit) as end:
            call()
        assert end.value.code == 130
        assert capsys.readouterr() == ('', 'interrupted\n')
        assert signal.signal(signal.SIGINT, before) == signal.SIG_DFL  # a second one is silent


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (
            'convert a b --to bla',
            "--to must be 'diffusers', 'ldm', 'comfyui', 'onnx' or 'eqzoo', got 'bla'. eqzoo convert",
        ),
        (
            'convert a b --to ldm --dtype half',
            "--dtype must be 'fp32', 'fp16' or 'bf16', got 'half'. eqzoo convert --help",
        ),
        ('sample a --out b --num x', "--num must be a whole number of at least 1, got 'x'. eqzoo sample --help"),
        ('sample a --out b --num -3', '--num must be at least 1, got -3.'),
        ('convert a', 'needed: DESTINATION, --to. eqzoo convert --help'),
        ('test a --frob', 'unrecognized arguments: --frob. eqzoo test --help'),
    ],
)
def test_a_wrong_option_is_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words.split())
    said = capsys.readouterr().err or f'{end.value.code}\n'
    assert said.startswith(f'error: {message}')
    assert said.count('\n') == 1


@pytest.mark.parametrize('words', [['benchmark', '--help'], ['configs']])  # printed here, and by a command
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_has_gone_is_no_error(words, unbuffered):
    script = f'from eqzoo.commands.cli import main; input(); main({words!r})'
    environment = {**os.environ, 'PYTHONUNBUFFERED': unbuffered}
    with subprocess.Popen(
        [sys.executable, '-c', script], stdin=-1, stdout=-1, stderr=-1, text=True, env=environment
    ) as process:
        process.stdout.close()
        process.stdin.write('\n')
        process.stdin.close()
        errors = process.stderr.read()
    assert (errors, process.returncode) == ('', 128 + signal.SIGPIPE)


def test_paths_of_options_may_begin_with_the_home_folder(monkeypatch):
    def command(config_file: str, *, overrides: list[str], out: str | None = None, num: int = 1) -> None:
        """Read a config."""

    def of_many(results: list[str]) -> None:
        """Read results."""

    monkeypatch.setenv('HOME', '/home/someone')
    assert cli.parse(command, ['~/a.py', '--out=~/b', 'work_dir=~/c']) == dict(
        overrides=['work_dir=~/c'], config_file='/home/someone/a.py', out='/home/someone/b', num=1
    )
    assert cli.parse(command, ['a/~', '--out', '~b'])['out'] == '~b'
    assert cli.parse(of_many, ['~', 'b'])['results'] == ['/home/someone', 'b']


def test_values_of_options_may_look_like_overrides_and_options():
    def command(config_file: str, *, overrides: list[str], out: str | None = None, smoke: bool = False) -> None:
        """Read a config."""

    def angles(word: str, *, angles: str) -> None:
        """Read angles."""

    assert cli.parse(command, ['a.py', '--smoke', 'seed=1', '--out', 'cfg=1.5', 'seed=2']) == dict(
        overrides=['seed=1', 'seed=2'], config_file='a.py', out='cfg=1.5', smoke=True
    )
    assert cli.parse(angles, ['a', '--angles', '-5,5'])['angles'] == '-5,5'


def test_the_word_null_is_text():
    def command(word: str | None = None, *, only: str | None = None) -> None:
        """Read words."""

    assert cli.parse(command, ['null', '--only', 'null']) == dict(word='null', only='null')
    assert cli.parse(command, []) == dict(word=None, only=None)


def test_a_list_of_downloads_takes_no_name(capsys):
    _, code = output_of(capsys, 'download', '--list', 'sd-vae')
    assert code == "error: download: got --list and 'sd-vae'; expected one of them: --list shows all models."
