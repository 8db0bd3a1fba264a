"""Latent statistics: the plain formulas over all latents, and distributions of known kurtosis."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from eqzoo.evaluators import AutoencoderView, LatentStatistics


class Identity(nn.Module):
    """Latents are the images."""

    def latents(self, images):
        return images


def measure(latents, batch=7):
    evaluator = LatentStatistics()
    for part in latents.split(batch):
        evaluator.process(AutoencoderView(Identity(), part))
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
