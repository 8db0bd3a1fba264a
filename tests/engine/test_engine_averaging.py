"""Means of gradients over processes: their values, on all processes the same bits, and the bytes sent and copied."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from averages import SMALL, Crossed, scenarios

from eqzoo.engine.averaging import GradientMean


@pytest.fixture(scope='module')
def results(tmp_path_factory, request):
    """The observations of `averages.py`: by number of processes, then by process."""
    folder = tmp_path_factory.mktemp('averages')
    words = [sys.executable, str(Path(__file__).with_name('averages.py')), str(folder)]
    options = dict(cwd=request.config.rootpath, env=dict(os.environ, OMP_NUM_THREADS='1'), text=True, timeout=300)
    done = subprocess.run(words, capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return {size: [torch.load(folder / f'{rank}_of_{size}.pth') for rank in range(size)] for size in (2, 3)}


@pytest.fixture
def expected():
    """The mean of the processes' own gradients, in double precision, where an absent gradient counts as zero."""

    def mean_of(steps):
        names = dict.fromkeys(name for step in steps for name in step['mean'])
        shapes = {name: steps[0]['mean'][name] for name in names}
        return {
            name: sum(step['own'].get(name, torch.zeros_like(shapes[name])).double() for step in steps) / len(steps)
            for name in names
        }

    return mean_of


@pytest.mark.parametrize('name', scenarios())
@pytest.mark.parametrize('size', [2, 3])
def test_gradients_are_the_mean_and_the_same_on_all_processes(results, expected, assert_same, size, name):
    for steps in zip(*(each[name] for each in results[size]), strict=True):
        for key, value in expected(steps).items():
            torch.testing.assert_close(
                steps[0]['mean'][key].double(), value, rtol=1e-6, atol=1e-8, msg=lambda text, key=key: f'{key}: {text}'
            )
        for other in steps[1:]:
            assert_same(steps[0]['mean'], other['mean'])


@pytest.mark.parametrize('name', scenarios())
def test_of_two_processes_no_bit_depends_on_what_is_sent_together(results, name):
    """A sum of two is the same in either order: half the sum of both gradients, as one message had it."""
    one, other = results[2]
    for left, right in zip(one[name], other[name], strict=True):
        for key, mean in left['mean'].items():
            own = [each['own'].get(key, torch.zeros_like(mean)) for each in (left, right)]
            assert torch.equal(mean, (own[0] + own[1]) / 2), key


def sizes():
    trained = [each for each in Crossed().parameters() if each.requires_grad]
    large = sum(each.nbytes for each in trained if each.nbytes >= SMALL)
    return large, sum(each.nbytes for each in trained) - large


@pytest.mark.parametrize('name', ['plain', 'micro_batches', 'differentiated_twice', 'channels_last'])
def test_every_byte_is_sent_once_a_step_and_only_small_gradients_are_copied(results, name):
    large, small = sizes()
    assert large > 4 * small
    for each in results[3]:
        for step, seen in enumerate(each[name], start=1):
            assert seen['traffic']['sent'] == step * (large + small)
            assert seen['traffic']['copied'] == step * small
            assert seen['traffic']['messages'] == step * 4  # of three large weights, and all others


def test_small_gradients_are_one_message(results):
    traffic = results[2][0]['together'][-1]['traffic']
    assert (traffic['messages'], traffic['early']) == (3, 0)
    assert traffic['copied'] == traffic['sent'] == 3 * sum(sizes())


def test_after_the_first_step_gradients_are_sent_in_the_order_of_their_completion(results):
    """`idle` is the last layer registered and never has a gradient: in the first step the others wait for it."""
    network = Crossed()
    in_backward = network.side.weight.nbytes + network.first.weight.nbytes
    for each in results[3]:
        early = [seen['traffic']['early'] for seen in each['plain']]
        assert early == [0, in_backward, 2 * in_backward]


def test_memory_that_autograd_shares_is_copied_first(results):
    for each in results[2]:
        assert each['views'][0]['traffic']['copied'] > 0


def test_gradients_keep_the_layout_of_their_weights(results):
    wanted = {name: each.stride() for name, each in Crossed().to(memory_format=torch.channels_last).named_parameters()}
    for name, stride in results[2][0]['channels_last'][1]['strides'].items():
        assert stride == wanted[name], name


def test_one_process_does_nothing():
    network = Crossed()
    mean = GradientMean(list(network.parameters()), SMALL)
    with mean.during_backward():
        network(torch.ones(1, 2, 8, 8)).backward()
    before = {name: each.grad for name, each in network.named_parameters()}
    mean.finish()
    assert all(each.grad is before[name] for name, each in network.named_parameters())
    assert network.idle.weight.grad is None
    assert mean.traffic.messages == 0
