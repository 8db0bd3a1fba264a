"""Latent statistics and effective rank: the plain formulas over all latents, and known distributions."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from eqzoo.evaluators import AutoencoderView, EffectiveRank, LatentStatistics
from eqzoo.evaluators.latents import jackknife_error


class Identity(nn.Module):
    """Latents are the images."""

    def latents(self, images):
        return images


def measure(latents, batch=7, kind=LatentStatistics):
    evaluator = kind()
    for numbers in torch.arange(len(latents)).split(batch):
        evaluator.process(AutoencoderView(Identity(), latents[numbers], numbers))
    return evaluator.evaluate(len(latents)), evaluator


def generator():
    return torch.Generator().manual_seed(0)


def latents():
    """Channels of other offsets, spreads and tails."""
    x = torch.randn(20, 3, 6, 5, generator=generator()).double()
    x[:, 1] = x[:, 1] ** 3 * 0.2 + 4
    x[:, 2] = x[:, 2].sigmoid() - 1
    return x


@pytest.mark.parametrize('batch', [1, 7, 20])
def test_kurtosis_is_scipys(batch):
    x = latents()
    wanted = [scipy.stats.kurtosis(x[:, channel].flatten().numpy()) for channel in range(3)]
    found, _ = measure(x, batch)
    assert found['latent_kurtosis'] == pytest.approx(np.mean(wanted), rel=1e-9)
    assert found['latent_std'] == pytest.approx(x.var(dim=(0, 2, 3), correction=0).mean().sqrt().item(), rel=1e-12)


@pytest.mark.parametrize(('name', 'kurtosis'), [('normal', 0.0), ('uniform', -1.2), ('laplace', 3.0), ('sign', -2.0)])
def test_known_distributions(name, kurtosis):
    uniform = torch.rand(200, 2, 16, 16, generator=generator()).double() - 0.5
    x = {
        'normal': lambda: torch.special.ndtri(uniform + 0.5),
        'uniform': lambda: uniform,
        'laplace': lambda: uniform.sign() * (1 - 2 * uniform.abs()).log(),
        'sign': lambda: uniform.sign(),
    }[name]()
    assert measure(x, 50)[0]['latent_kurtosis'] == pytest.approx(kurtosis, abs=0.15)


def test_kurtosis_does_not_change_with_offsets_and_factors_of_channels():
    x = latents()
    moved = x * torch.tensor([0.1, 5.0, 30.0])[:, None, None].double() + torch.tensor([9.0, -40.0, 0.5])[:, None, None]
    assert measure(moved)[0]['latent_kurtosis'] == pytest.approx(measure(x)[0]['latent_kurtosis'], rel=1e-6)


def test_channels_that_do_not_vary_have_none():
    x = latents()
    x[:, 0] = 0.1
    wanted = [scipy.stats.kurtosis(x[:, channel].flatten().numpy()) for channel in (1, 2)]
    assert measure(x)[0]['latent_kurtosis'] == pytest.approx(np.mean(wanted), rel=1e-9)
    assert math.isnan(measure(torch.full((4, 2, 4, 4), 0.1))[0]['latent_kurtosis'])


def test_the_curve_has_each_channels_mean_and_deviation():
    x = latents()
    _, evaluator = measure(x)
    (curve,) = evaluator.curves
    (series,) = curve['series']
    mean, std = x.mean(dim=(0, 2, 3)), x.std(dim=(0, 2, 3), correction=0)
    assert series['x'] == [0, 1, 2]
    assert series['y'] == pytest.approx(mean.tolist(), rel=1e-9)
    assert series['high'] == pytest.approx((mean + std).tolist(), rel=1e-9)
    assert series['low'] == pytest.approx((mean - std).tolist(), rel=1e-9)


@pytest.mark.parametrize('batch', [1, 7, 20])
def test_the_rank_is_that_of_all_cells_eigenvalues(batch):
    x = latents()
    cells = x.permute(0, 2, 3, 1).reshape(-1, 3)
    eigenvalues = np.linalg.eigvalsh(np.cov(cells.numpy().T))
    found, _ = measure(x, batch, EffectiveRank)
    assert found['effective_rank'] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-9)
    assert found['condition_number'] == pytest.approx(eigenvalues[-1] / eigenvalues[0], rel=1e-9)


def test_known_ranks():
    x = torch.randn(300, 4, 5, 5, generator=generator()).double()
    assert measure(x, 50, EffectiveRank)[0]['effective_rank'] == pytest.approx(4, abs=0.01)
    # 4, 1, 1 and 1 of variance: 49 / 19
    wide = x * torch.tensor([2.0, 1.0, 1.0, 1.0])[:, None, None] + 7
    found, _ = measure(wide, 50, EffectiveRank)
    assert found['effective_rank'] == pytest.approx(49 / 19, rel=0.02)
    assert found['condition_number'] == pytest.approx(4, rel=0.05)
    copies = x[:, :1] * torch.tensor([1.0, -2.0, 3.0])[:, None, None]
    found, _ = measure(copies, 50, EffectiveRank)
    assert found['effective_rank'] == pytest.approx(1, rel=1e-9)
    assert found['condition_number'] == math.inf


def test_the_ranks_standard_error_is_the_spread_of_repeated_samples():
    factors = torch.tensor([2.0, 1.0, 1.0, 1.0])[:, None, None]
    samples = [torch.randn(60, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(40)]
    found = [measure(sample.double() * factors, 60, EffectiveRank)[0] for sample in samples]
    spread = np.std([each['effective_rank'] for each in found], ddof=1)
    assert np.mean([each['effective_rank_std'] for each in found]) == pytest.approx(spread, rel=0.3)
    assert math.isnan(measure(samples[0][:1], 1, EffectiveRank)[0]['effective_rank_std'])


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = torch.randn(30, generator=generator()).double()
    without = (x.sum() - x) / 29
    assert jackknife_error(without) == pytest.approx(scipy.stats.sem(x.numpy()), rel=1e-9)


def test_channels_that_do_not_vary_have_no_part_in_the_rank():
    x = latents()
    dead = torch.cat([x, torch.full((20, 2, 6, 5), 0.1).double()], dim=1)
    found, _ = measure(dead, 7, EffectiveRank)
    assert found['effective_rank'] == pytest.approx(measure(x, 7, EffectiveRank)[0]['effective_rank'], rel=1e-9)
    assert found['condition_number'] == math.inf
    assert all(math.isnan(value) for value in measure(torch.full((12, 2, 4, 4), 0.1), 7, EffectiveRank)[0].values())
