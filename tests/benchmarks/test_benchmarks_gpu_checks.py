"""`tools/check_gpu.py`: each check finds the fault that it is for, and none where there is none. `pytest -m gpu`."""

import pytest
import torch
from torch.nn import functional as F

from eqzoo.benchmarks import gpu_checks
from eqzoo.benchmarks.gpu_checks import CHECKS, Finding, Setting, relative, run_checks
from eqzoo.commands.check_gpu import check_gpu

CPU = Setting(torch.device('cpu'), is_small=True)
SLOW = ('autoencoder, compiled', 'training repeats and resumes to the bit')


@pytest.mark.filterwarnings('default')
@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CHECKS]
)
def test_on_the_cpu_nothing_is_found(name):
    finding = CHECKS[name](CPU)
    assert finding.passed, finding


@pytest.mark.gpu
@pytest.mark.filterwarnings('default')
@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
@pytest.mark.parametrize('name', CHECKS)
def test_on_a_gpu(name):
    finding = CHECKS[name](Setting(torch.device('cuda')))
    assert finding.passed, finding


def test_the_difference_is_of_norms():
    assert relative(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 4.0])) == 0.75
    assert not Finding(float('nan'), 1.0).passed
    assert Finding(0, 0).passed
    assert not Finding(1, 0).passed


def test_wrong_attention_is_found(monkeypatch):
    right = F.scaled_dot_product_attention
    monkeypatch.setattr(F, 'scaled_dot_product_attention', lambda q, k, v: right(q, k, v, scale=0.2))
    assert not CHECKS['attention kernels'](CPU).passed


def test_numbers_that_change_on_their_way_are_found(monkeypatch):
    right, calls = gpu_checks.SampleStreams.uniform, []

    def wrong(self, *shape, device='cpu'):
        calls.append(1)
        return right(self, *shape, device=device) + (len(calls) == 5)

    monkeypatch.setattr(gpu_checks.SampleStreams, 'uniform', wrong)
    assert CHECKS['transfers'](CPU).difference == 8


def test_a_wrong_way_of_scaling_is_found(monkeypatch):
    monkeypatch.setattr(
        gpu_checks, 'interpolated_by_products', lambda x, size, **mode: F.interpolate(x, size, mode='area')
    )
    assert not CHECKS['scaling by products'](CPU).passed


def test_an_optimizer_that_steps_elsewhere_is_found(monkeypatch):
    class Wrong(torch.optim.Adam):
        def step(self):
            for group in self.param_groups:
                group['lr'] = 0.011 if group['fused'] else 0.01
            super().step()

    monkeypatch.setattr(torch.optim, 'Adam', Wrong)
    assert CHECKS['optimizers, fused and batched'](CPU).difference == pytest.approx(0.1, rel=1e-3)


def test_lines_name_what_failed(monkeypatch):
    def broken(setting):
        raise RuntimeError('no kernel image\nmore')

    def missing(setting):
        raise NotImplementedError('not on this device')

    checks = {
        'good': lambda setting: Finding(1e-3, 1e-2, 'a note'),
        'bad': lambda setting: Finding(0.5, 1e-2),
        'broken': broken,
        'missing': missing,
    }
    monkeypatch.setattr(gpu_checks, 'CHECKS', checks)
    lines = []
    assert run_checks(CPU, say=lines.append) == ['bad', 'broken']
    assert lines == [
        'ok       good: 1.00e-03 (at most 1e-02)  a note',
        'FAILED   bad: 5.00e-01 (at most 1e-02)',
        'FAILED   broken: RuntimeError: no kernel image',
        'skipped  missing: not on this device',
    ]


def test_the_command(monkeypatch, capsys):
    check_gpu(smoke=True, only='transfers')
    assert capsys.readouterr().out.splitlines()[-1] == '1 of 1 checks without a fault.'
    with pytest.raises(ValueError, match='--only: no check has .nothing.'):
        check_gpu(smoke=True, only='nothing')
    monkeypatch.setitem(CHECKS, 'transfers', lambda setting: Finding(1, 0))
    with pytest.raises(SystemExit, match='1'):
        check_gpu(smoke=True, only='transfers')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='sees no GPU here'):
        check_gpu()
