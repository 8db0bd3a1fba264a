"""Work that is killed at any moment and run again has the results of work that was never killed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kills import STEPS, TRAININGS

from eqzoo.engine import read_checkpoint

# Parts of a checkpoint that differ between equal runs, and scalars that are times.
OWN = {'meta', 'message_hub'}
CLOCKS = ('time', 'data_time')

# By default: a run with two optimizers, one of a generator; the others with -m slow.
DEFAULT = ('autoencoder', 'maskgit')


def survive(folder, root, *jobs, seed=0):
    """Do the `jobs`, 'KIND=KILLS' each, in one process; return how many kills each kind survived."""
    words = [sys.executable, str(Path(__file__).with_name('kills.py')), str(folder), str(seed), *jobs]
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {kind: int(kills) for kind, kills in re.findall(r'^(\w+): (\d+) kills survived$', done.stdout, re.M)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory, request):
    """The folder of the work that is done by default, in one process: importing torch takes seconds."""
    folder = tmp_path_factory.mktemp('kills')
    jobs = [*(f'{kind}=2' for kind in DEFAULT), 'cache=3', 'sample=3']
    survived = survive(folder, request.config.rootpath, *jobs)
    assert set(survived) == {*DEFAULT, 'cache', 'sample'}
    assert min(survived.values()) >= 1
    return folder


def logged(folder):
    """The last scalars that were logged of each step."""
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


@pytest.mark.parametrize('kind', DEFAULT)
def test_training(kind, folder, assert_same):
    assert_same_run(folder / kind, assert_same)


@pytest.mark.slow
@pytest.mark.parametrize('kind', [kind for kind in TRAININGS if kind not in DEFAULT])
def test_other_training(kind, tmp_path, root, assert_same):
    assert survive(tmp_path, root, f'{kind}=2')[kind] >= 1
    assert_same_run(tmp_path / kind, assert_same)


@pytest.mark.slow(reason='minutes: twenty runs, each killed until it comes to its end')
@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('kind', TRAININGS)
def test_training_many_times(kind, seed, tmp_path, root, assert_same):
    survive(tmp_path, root, f'{kind}=20', seed=seed + 1)
    assert_same_run(tmp_path / kind, assert_same)


@pytest.mark.parametrize('kind', ['cache', 'sample'])
def test_caching_and_sampling(kind, folder):
    files = [
        {
            file.relative_to(folder / kind / name): file.read_bytes()
            for file in (folder / kind / name).rglob('*')
            if file.suffix in ('.npz', '.safetensors', '.png')
        }
        for name in ('whole', 'killed')
    ]
    assert files[0]
    assert files[0] == files[1]
