"""The scripts in tools/, as a shell runs them."""

import subprocess
import sys

import pytest


def shell(*words):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize('tool', ['train', 'test', 'demo'])
def test_help(tool):
    result = shell(f'tools/{tool}.py', '--help')
    assert result.returncode == 0
    assert 'key=value sets a key of the config' in result.stdout


def test_a_mistake_prints_one_line_and_no_traceback():
    result = shell('tools/train.py', 'configs/eqvae/sdxl_rot_scal.py')
    assert result.returncode == 1
    assert result.stdout == ''
    assert result.stderr.count('\n') == 1
    assert 'Did you mean' in result.stderr


def test_a_benchmark_needs_its_name():
    result = shell('tools/benchmark.py', 'eq_step')
    assert result.returncode == 1
    assert "benchmark.py: unknown command 'eq_step'. Did you mean 'eq-step'? Expected one of: cache," in result.stderr
