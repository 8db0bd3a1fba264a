"""Signals to the whole process group of a training with loader processes: it saves, and says how to go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eqzoo.engine import latest_checkpoint


@pytest.fixture(scope='module')
def runs(tmp_path_factory, request):
    """The folder of the runs of `signalled.py`."""
    folder = tmp_path_factory.mktemp('signals')
    words = [sys.executable, str(Path(__file__).with_name('signalled.py')), str(folder)]
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    # the time limit is part of the test: a run that fails must not wait for its loaders' processes
    subprocess.run(words, cwd=request.config.rootpath, env=environment, check=True, timeout=240)
    return folder


def printed(runs, name):
    *lines, status = (runs / f'{name}.txt').read_text().splitlines()
    assert not any('Traceback' in line or 'worker' in line for line in lines), '\n'.join(lines)
    return lines, int(status)


@pytest.mark.parametrize(('name', 'signal', 'status'), [('term', 'SIGTERM', 143), ('usr1', 'SIGUSR1', 138)])
def test_a_signal_to_the_group_saves_the_step(runs, name, signal, status):
    lines, code = printed(runs, name)
    assert code == status
    assert lines[-1].endswith(f'{signal}: stopped after step 3, which is saved; continue with --resume.')
    assert latest_checkpoint(runs / name).name == 'iter_3.pth'


def test_an_interruption_saves_the_step_and_a_second_stops_at_once(runs):
    lines, code = printed(runs, 'int')
    assert code == 130
    assert 'Stopping after this step, which is saved. Ctrl-C again stops at once.' in lines
    assert lines[-1].endswith('SIGINT: stopped after step 3, which is saved; continue with --resume.')
    assert latest_checkpoint(runs / 'int').name == 'iter_3.pth'
    lines, code = printed(runs, 'int_twice')
    assert (lines[-1], code) == ('interrupted', 130)
    assert latest_checkpoint(runs / 'int_twice') is None


def test_an_interruption_that_the_shell_had_ignored_stays_ignored(runs):
    lines, code = printed(runs, 'background')
    assert code == 0
    assert lines[-1].startswith('Done.')
    assert latest_checkpoint(runs / 'background').name == 'iter_4.pth'


def test_a_run_without_checkpoints_stops_and_says_so(runs):
    lines, code = printed(runs, 'unsaved')
    assert code == 143
    assert lines[-1].endswith('SIGTERM: stopped after step 3; the config saves no checkpoints.')
    assert latest_checkpoint(runs / 'unsaved') is None


def test_an_interruption_while_the_run_is_built_is_one_line(runs):
    assert printed(runs, 'start') == (['interrupted'], 130)


def test_a_failure_ends_the_loaders_processes(runs):
    lines, code = printed(runs, 'failure')
    assert code == 1
    assert 'step 3: the loss is not finite' in lines[-1]
