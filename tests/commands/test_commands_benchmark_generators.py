"""`tools/benchmark.py generator-step` and `sampling`: both forms compute the same, and are timed."""

import re

import torch

from eqzoo.benchmarks.generators import PlainDiffusionTransformer, compare_sampling
from eqzoo.commands import benchmark as benchmark_generators
from eqzoo.commands.benchmark import generator_step, sampling
from eqzoo.generators import DiffusionTransformer


def test_the_plain_form_is_the_same_function():
    torch.manual_seed(0)
    ours = DiffusionTransformer((2, 32, 2), 2, latent_size=8)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    plain = PlainDiffusionTransformer((2, 32, 2), 2, latent_size=8)
    plain.load_state_dict(ours.state_dict())
    inputs = torch.randn(3, 4, 8, 8), torch.tensor([0.0, 500.0, 999.0]), torch.tensor([0, 1000, 7])
    torch.testing.assert_close(ours(*inputs), plain(*inputs))
    assert not plain.blocks[0].attn.fused_attn


def test_the_benchmark_prints_a_ratio(capsys):
    generator_step(size='S', patch=8, latent_size=8, batch_size=1, rounds=1)
    out = capsys.readouterr().out
    assert re.search(r'DiT-S/8, batch 1, cpu, \d+ threads, eqzoo in fp32\n', out)
    ratio, difference = re.search(r'ratio: (\S+)x, losses differ by (\S+) relatively', out).groups()
    assert float(ratio) > 0
    assert float(difference) < 1e-5


def test_both_ways_of_sampling_draw_the_same_codes():
    """All classes alike or all different, the first step shared or not."""
    for classes in (1, 50):
        options = dict(grid=4, num_classes=classes, batch_size=6, steps=3, rounds=1)
        speeds, same = compare_sampling((2, 32, 2), **options, device=torch.device('cpu'))
        assert speeds.keys() == {'eqzoo', 'plain'}
        assert same == 1


def test_the_sampling_benchmark_prints_a_ratio(capsys, monkeypatch):
    monkeypatch.setattr(benchmark_generators, 'compare_sampling', lambda *_, **__: ({'eqzoo': 3.0, 'plain': 2.0}, 1.0))
    sampling(grid=8, steps=4)
    out = capsys.readouterr().out
    assert out.startswith('MaskGIT-base, 8 x 8 codes, 1000 classes, batch 2, 4 steps, cpu')
    assert out.endswith('ratio: 1.50x, 100.00% of the codes are the same\n')
