"""TF32 is off inside, and outside as it was, also after an error; settings of the libraries for GPUs."""

import os

import pytest
import torch

from eqzoo.commands.cli import COMMANDS, run
from eqzoo.precision import any_kernels, full_precision, tf32, use_backends


def allowed():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(params=[(True, True), (False, True), (True, False)])
def before(request):
    found = allowed()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = request.param
    yield request.param
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = found


def test_it_is_set_back(before):
    with full_precision():
        assert allowed() == (False, False)
    assert allowed() == before
    with pytest.raises(KeyError), full_precision():
        raise KeyError
    assert allowed() == before


@pytest.fixture
def backends():
    """Put the switches of torch's libraries back afterwards."""
    cudnn, found = torch.backends.cudnn, switches()
    yield
    torch.use_deterministic_algorithms(found[0])
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = found[1:]
    os.environ.pop('CUBLAS_WORKSPACE_CONFIG', None)


def switches():
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, *allowed()


def test_backends_are_as_a_config_says(backends):
    usual = switches()
    use_backends(None)
    assert switches() == usual == (False, False, False, True, False)
    use_backends(dict(deterministic=True, tf32=False, cudnn_benchmark=False))
    assert switches() == (True, True, False, False, False)
    assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
    use_backends(dict(deterministic=False, tf32=True, cudnn_benchmark=True))
    assert switches() == (False, False, True, True, True)
    use_backends(dict(tf32=None))
    assert switches() == (False, False, False, True, True)
    with pytest.raises(ValueError, match='gpu: got deterministic=True with cudnn_benchmark=True'):
        use_backends(dict(deterministic=True, cudnn_benchmark=True))


def test_tf32_is_restored(backends):
    with tf32(True):
        assert switches()[3:] == (True, True)
        with tf32(False):
            assert switches()[3:] == (False, False)
        assert switches()[3:] == (True, True)
    assert switches()[3:] == (True, False)


def test_any_kernel_inside_the_block_and_the_choice_as_before_outside():
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        with any_kernels():
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.mark.parametrize(
    'words',
    [
        ['train', 'configs/demo/rot_scale.py', '--smoke'],
        ['test', 'configs/demo/rot_scale.py', '--smoke'],
        ['test', 'configs/dit/dit_tiny_shapes.py', '--smoke'],
        ['sample', 'configs/dit/dit_tiny_shapes.py', '--out', 'never.npz', '--smoke'],
        ['cache-latents', 'configs/dit/dit_tiny_shapes.py', '--smoke'],
        ['latent-stats', 'configs/demo/rot_scale.py', 'weights.pth'],
        ['reference', 'configs/dit/dit_tiny_shapes.py', 'never.npz'],
    ],
    ids=' '.join,
)
def test_every_command_uses_the_kernels_of_the_config(words, monkeypatch):
    def stop(settings):
        raise KeyError(settings['deterministic'])

    monkeypatch.setattr('eqzoo.precision.use_backends', stop)
    monkeypatch.setenv('EQZOO_TRACEBACK', '1')
    command, *rest = words
    with pytest.raises(KeyError, match='True'):
        run(COMMANDS[command].load(), [*rest, 'gpu.deterministic=true'])
