"""Runs by two processes, whole and in shards, equal those of one; each resumes from another's checkpoints."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pairs import LEAVES, NUM_PORTS, SHARDED, run, train_and_evaluate

from eqzoo.config import load_config
from eqzoo.engine import read_checkpoint, sharding
from eqzoo.engine.sharding import shard
from eqzoo.registry import build


def first_free_port(count):
    """Return the first of `count` consecutive free ports, below those that the system hands out by itself."""
    groups = range(20_000, 32_000, count)
    first = os.getpid() % len(groups)  # processes that look at the same time begin at different places
    return next(port for port in [*groups[first:], *groups[:first]] if all(is_free(port + n) for n in range(count)))


def is_free(port):
    with socket.socket() as one:
        try:
            one.bind(('127.0.0.1', port))
        except OSError:
            return False
    return True


@pytest.fixture(scope='module')
def runs(tmp_path_factory, request):
    """The folder of all runs of `pairs.py`, and of the same by this process."""
    folder = tmp_path_factory.mktemp('processes')
    words = [sys.executable, str(Path(__file__).with_name('pairs.py')), str(folder), str(first_free_port(NUM_PORTS))]
    options = dict(cwd=request.config.rootpath, env=dict(os.environ, OMP_NUM_THREADS='1'), text=True)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    with subprocess.Popen(words, **options, **pipes) as process:
        try:
            out, _ = process.communicate(timeout=3000)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # both
            raise
    second = (folder / 'second.txt').read_text()
    assert process.returncode == 0, f'{out}\n{second}'
    assert out.count('Done.') == 11
    assert 'Done.' not in second
    assert 'Traceback' not in out
    return folder


@pytest.fixture(scope='module')
def one(runs, request):
    before = Path.cwd()
    os.chdir(request.config.rootpath)
    for kind in LEAVES:
        run(kind, runs / 'one' / kind)
    os.chdir(before)
    return runs


def assert_close(left, right, where=''):
    """Compare nested values to rounding."""
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_close(left[key], right[key], f'{where}.{key}')
    elif isinstance(left, torch.Tensor):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=2e-6, msg=lambda text: f'{where}: {text}')


def assert_same_run(one, other):
    left, right = (read_checkpoint(place / 'iter_4.pth') for place in (one, other))
    for part in ('state_dict', 'ema_state_dict'):
        assert_close(left.get(part), right.get(part), part)
    for name, (values, _) in left['log'].items():
        if 'time' not in name:
            assert right['log'][name][0] == pytest.approx(values, rel=1e-3, abs=1e-5), name
    start = read_checkpoint(one / 'iter_2.pth')['state_dict']
    assert max(float((start[name] - value).abs().max()) for name, value in left['state_dict'].items()) > 1e-4


@pytest.fixture(scope='module')
def ranks(runs):
    """Weights and metrics of `train_and_evaluate` on each of two processes."""
    return [torch.load(runs / f'{rank}.pth') for rank in range(2)]


def test_both_processes_have_the_same_weights_and_metrics(ranks, assert_same):
    assert_same(*ranks)


def test_weights_and_metrics_of_two_processes_are_those_of_one(ranks):
    weights, metrics = train_and_evaluate(0, 1)
    for name, value in weights.items():
        torch.testing.assert_close(
            ranks[0][0][name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )
    assert ranks[0][1] == pytest.approx(metrics, rel=1e-4)


def assert_same_optimizers(one, other):
    left, right = (read_checkpoint(place / 'iter_4.pth')['optimizer']['generator'] for place in (one, other))
    assert left['param_groups'] == right['param_groups']
    assert_close(left['state'], right['state'])


@pytest.mark.parametrize('kind', SHARDED)
def test_shards_are_whole_again_in_checkpoints(runs, kind):
    assert_same_run(runs / 'two' / kind, runs / 'sharded' / kind)
    assert_same_optimizers(runs / 'two' / kind, runs / 'sharded' / kind)


@pytest.mark.parametrize('name', ['from_sharded', 'from_two'])
def test_sharded_and_whole_runs_resume_from_each_other(runs, name):
    assert_same_run(runs / 'two' / 'dit', runs / name)
    assert_same_optimizers(runs / 'two' / 'dit', runs / name)


def test_a_lost_process_is_reported_by_the_other(runs):
    assert (runs / 'lost.txt').read_text().startswith('error: process 0: another process is gone')
    assert (runs / 'lost' / 'iter_2.pth').is_file()


@pytest.mark.parametrize('kind', LEAVES)
def test_two_processes_are_as_one(one, kind):
    assert_same_run(one / 'one' / kind, one / 'two' / kind)


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('full', 'sharding: .* one process; .*torchrun'),
        ('half', "sharding must be 'full' or None, got 'half'"),
    ],
)
def test_sharding_needs_several_processes(kind, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run('dit', tmp_path, f'sharding={kind}')


def test_only_generators_are_sharded(monkeypatch):
    config = load_config(LEAVES['autoencoder'])
    config.model.autoencoder.weights = None
    monkeypatch.setattr(sharding, 'rank_and_world_size', lambda: (0, 2))
    with pytest.raises(ValueError, match='AutoencoderTraining trains the autoencoder; only generators are sharded'):
        shard(build(config.model), torch.device('cpu'))
