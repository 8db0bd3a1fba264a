"""Killed at any moment and run again, everything comes out as if it had never been killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kills import STEPS, TRAININGS

from eqzoo.engine import read_checkpoint

# What tells one run from another, and what a clock says.
OWN = {'meta', 'message_hub'}
CLOCKS = ('time', 'data_time')


def survive(kind, folder, *, kills, seed, root):
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    words = [str(Path(__file__).with_name('kills.py')), kind, str(folder), str(kills), str(seed)]
    done = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.rsplit(f'{kind}: ', 1)[1].split(' kills')[0])


def logged(folder):
    """What the log says of each step, the last word of it."""
    lines = {}
    for file in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            values = {name: value for name, value in json.loads(line).items() if name not in CLOCKS}
            lines[values['step'], 'loss' in values] = values
    return lines


def assert_same_run(folder, assert_same):
    whole, killed = (read_checkpoint(folder / name / f'iter_{STEPS}.pth') for name in ('whole', 'killed'))
    assert whole['meta']['iter'] == killed['meta']['iter'] == STEPS
    for each in (whole, killed):
        each['log'] = {name: values for name, values in each['log'].items() if name.split('/')[1] not in CLOCKS}
    assert len(whole['log']['train/loss'][0]) == STEPS
    assert {'state_dict', 'optimizer', 'param_schedulers', 'log'} <= whole.keys()
    for part in sorted(whole.keys() - OWN):
        assert_same(whole[part], killed[part], part)
    assert logged(folder / 'killed') == logged(folder / 'whole')
    pictures = [
        {file.name: file.read_bytes() for file in (folder / name / 'pictures').iterdir()}
        for name in ('whole', 'killed')
    ]
    assert pictures[0] == pictures[1]
    kept = [sorted(file.name for file in (folder / name).glob('*.pth')) for name in ('whole', 'killed')]
    assert kept[0] == kept[1]


@pytest.mark.parametrize('kind', TRAININGS)
def test_training(kind, tmp_path, root, assert_same):
    assert survive(kind, tmp_path, kills=2, seed=0, root=root) >= 1
    assert_same_run(tmp_path, assert_same)


@pytest.mark.slow(reason='minutes: twenty runs, each killed until it comes to its end')
@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('kind', TRAININGS)
def test_training_many_times(kind, seed, tmp_path, root, assert_same):
    survive(kind, tmp_path, kills=20, seed=seed + 1, root=root)
    assert_same_run(tmp_path, assert_same)


@pytest.mark.parametrize('kind', ['cache', 'sample'])
def test_caching_and_sampling(kind, tmp_path, root):
    assert survive(kind, tmp_path, kills=3, seed=0, root=root) >= 1
    files = [
        {
            file.relative_to(tmp_path / name): file.read_bytes()
            for file in (tmp_path / name).rglob('*')
            if file.suffix in ('.npz', '.safetensors', '.png')
        }
        for name in ('whole', 'killed')
    ]
    assert files[0]
    assert files[0] == files[1]
