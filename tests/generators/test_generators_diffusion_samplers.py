"""Samplers of Gaussian diffusion: with networks that know the data, samples are the data."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from drawing import assert_gaussian, draw, first_noise, transformer
from exact import carried

from eqzoo.generators import DDIM, DDPM, DiT, DPMSolver, GaussianDiffusion
from eqzoo.generators.samplers.scheduled import _respaced


@pytest.mark.parametrize('schedule', ['linear', 'cosine'])
@pytest.mark.parametrize('extra', [None, -1.0, 1.0], ids=['fixed', 'least', 'largest'])
def test_ddpm_makes_the_data(schedule, extra):
    assert_gaussian(draw(DDPM(250), GaussianDiffusion(schedule=schedule), extra))


def test_ddpm_takes_the_variance_that_was_learned():
    process = GaussianDiffusion()
    fixed, least, largest = (draw(DDPM(20), process, extra) for extra in (None, -1.0, 1.0))
    torch.testing.assert_close(fixed, least, rtol=1e-5, atol=1e-5)
    assert largest.std() > fixed.std() + 0.01


@pytest.mark.parametrize('schedule', ['linear', 'cosine'])
def test_ddim_follows_the_flow(schedule):
    process = GaussianDiffusion(schedule=schedule)
    levels = process.products[-1]
    exact = carried(first_noise(), levels**0.5, (1 - levels) ** 0.5)
    errors = [float((draw(DDIM(steps), process) - exact).abs().max()) for steps in (50, 500)]
    assert errors[0] < 0.15
    assert errors[1] < 0.02


def test_ddim_with_noise_makes_the_data_too():
    process = GaussianDiffusion()
    none, some, much = (draw(DDIM(250, eta=eta), process) for eta in (0.0, 0.5, 1.0))
    for samples in (some, much):
        assert_gaussian(samples)
    assert (some - none).abs().mean() > 0.1
    assert (much - some).abs().mean() > 0.1
    # all of the noise of ancestral sampling is ancestral sampling
    torch.testing.assert_close(much, draw(DDPM(250), process), rtol=1e-3, atol=1e-3)


def test_dpm_solver_needs_few_steps():
    process = GaussianDiffusion()
    levels = process.products[-1]
    exact = carried(first_noise(), levels**0.5, (1 - levels) ** 0.5)
    errors = [float((draw(DPMSolver(steps), process) - exact).abs().max()) for steps in (20, 60)]
    assert errors[0] < 0.1
    assert errors[1] < 0.05
    assert draw(DPMSolver(1), process).isfinite().all()
    assert draw(DPMSolver(20), GaussianDiffusion(21)).isfinite().all()


@pytest.mark.parametrize(
    ('sampler', 'message'),
    [
        (DDPM(101), 'DDPM.steps: got 101; accepted are 2 to 100; the generator was trained with 100'),
        (DDIM(101), 'DDIM.steps: got 101; accepted are 2 to 100'),
        (DPMSolver(100), 'DPMSolver.steps: got 100; accepted are 1 to 99; the generator was trained with 100'),
    ],
)
def test_more_steps_than_were_trained_are_refused(sampler, message):
    with pytest.raises(ValueError, match=message):
        sampler.check(transformer(DiT, GaussianDiffusion(100)))


@pytest.mark.parametrize('kind', [DDPMScheduler, DDIMScheduler])
def test_levels_are_in_double_precision_as_adms(kind):
    process = GaussianDiffusion()
    scheduler, times = _respaced(kind, process, 10)
    found = [each.numpy() for each in (scheduler.alphas_cumprod, scheduler.alphas, scheduler.betas)]
    kept = process.products[times]
    ratios = kept / np.append(1.0, kept[:-1])
    for values, expected in zip(found, (kept, ratios, 1 - ratios), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-12)
