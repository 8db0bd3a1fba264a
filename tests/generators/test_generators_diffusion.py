"""Gaussian diffusion and its samplers: noise levels, the loss against independent derivations, and drawn data."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from formula_networks import wave
from gaussian_data import (
    COUNT,
    MEAN,
    SHAPE,
    STD,
    assert_gaussian,
    carried,
    draw,
    first_noise,
    streams,
    transformer,
)
from torch.distributions import Normal, kl_divergence

from eqzoo.generators import DDIM, DDPM, DiT, DPMSolver, GaussianDiffusion
from eqzoo.generators.samplers.scheduled import _respaced_scheduler

TIMES = torch.tensor([0, 1, 400, 999])


def batch(count=4):
    return 0.5 * wave(count, 2, 3, 3, step=0.37), wave(count, 2, 3, 3, step=1.3)


def test_linear_levels_are_those_of_ddpm():
    process = GaussianDiffusion()
    assert process.betas[[0, 499, 999]] == pytest.approx([1e-4, 1e-4 + 499 / 999 * 0.0199, 0.02])
    assert process.products[-1] == pytest.approx(4.0358e-5, rel=1e-4)
    assert GaussianDiffusion(100).betas[[0, 99]] == pytest.approx([1e-3, 0.2])


def test_cosine_levels_are_those_of_improved_ddpm():
    process = GaussianDiffusion(schedule='cosine')
    angle = (500 / 1000 + 0.008) / 1.008 * np.pi / 2
    start = np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert process.products[499] == pytest.approx(np.cos(angle) ** 2 / start)
    assert process.betas[-1] == 0.999


def test_noised_latents_keep_their_variance():
    process, (x, noise) = GaussianDiffusion(), batch()
    noisy = process.noised(x, noise, TIMES)
    for place, time in enumerate(TIMES):
        product = float(process.products[time])
        expected = product**0.5 * x[place] + (1 - product) ** 0.5 * noise[place]
        torch.testing.assert_close(noisy[place], expected, rtol=1e-6, atol=1e-6)


def test_times_are_uniform_steps():
    process = GaussianDiffusion(10, 'cosine')
    times = process.sample_times(torch.tensor([0.0, 0.0999, 0.1001, 0.5, 0.99999994]))
    assert times.tolist() == [0, 0, 1, 5, 9]
    assert times.dtype == torch.int64


def divergence(process, noise_guess, fraction, x, noisy, time):
    """Return KL(q(x_{t-1} | x_t, x) || p) of one sample in bits per value, by Gaussians in double precision."""
    product, before, beta = process.products[time], process.products[time - 1], process.betas[time]
    x, noisy, guess = x.double(), noisy.double(), noise_guess.double()
    # q: Bayes' rule for x_{t-1} given its prior N(sqrt(before) x, 1 - before) and x_t = sqrt(1 - beta) x_{t-1} + …
    precision = 1 / (1 - before) + (1 - beta) / beta

    def mean(start):
        return (before**0.5 * start / (1 - before) + (1 - beta) ** 0.5 / beta * noisy) / precision

    guessed = (noisy - (1 - product) ** 0.5 * guess) / product**0.5
    share = (fraction.double() + 1) / 2
    deviation = (share * np.log(beta) - (1 - share) * np.log(precision)).exp() ** 0.5
    q, p = Normal(mean(x), torch.full_like(x, precision**-0.5)), Normal(mean(guessed), deviation)
    return float(kl_divergence(q, p).mean()) / np.log(2)


@pytest.mark.parametrize('schedule', ['linear', 'cosine'])
@pytest.mark.parametrize('time', [1, 2, 400, 999])
def test_the_bound_is_the_divergence_of_the_reverse_step(schedule, time):
    process, (x, noise) = GaussianDiffusion(schedule=schedule), batch(1)
    times = torch.tensor([time])
    noisy = process.noised(x, noise, times)
    output = torch.cat([noise + 0.1 * wave(1, 2, 3, 3, step=2.1), wave(1, 2, 3, 3, step=0.2)], dim=1)
    losses = process.losses(output, x, noise, noisy, times)
    expected = divergence(process, output[:, :2], output[:, 2:], x, noisy, time)
    assert float(losses['vb']) == pytest.approx(expected, rel=2e-4, abs=1e-7)
    assert float(losses['mse']) == pytest.approx(float((0.1 * wave(1, 2, 3, 3, step=2.1)).square().mean()), rel=1e-5)
    assert float(losses['loss']) == pytest.approx(float(losses['mse'] + losses['vb']))


def test_the_first_step_is_scored_by_the_likelihood_of_eight_bits():
    process, times = GaussianDiffusion(), torch.tensor([0])
    x = torch.tensor([[[[-1.0, -0.9990001, -0.5, 0.0, 0.3, 0.9990001, 1.0, 1.7]]]])
    noise = 0.5 * wave(*x.shape)
    noisy = process.noised(x, noise, times)
    output = torch.cat([noise + 0.1, torch.full_like(x, 0.4)], dim=1)
    start = (noisy - process.betas[0] ** 0.5 * output[:, :1]) / (1 - process.betas[0]) ** 0.5
    least = process.betas[1] * process.betas[0] / (1 - process.products[1])  # of t = 1, that of t = 0 being 0
    deviation = float(np.exp(0.5 * (0.7 * np.log(process.betas[0]) + 0.3 * np.log(least))))
    normal = Normal(start.double(), torch.full_like(start.double(), deviation))
    below, above = normal.cdf(x.double() - 1 / 255), normal.cdf(x.double() + 1 / 255)
    above[x > 0.999], below[x < -0.999] = 1, 0
    expected = -(above - below).log().mean() / np.log(2)
    # ADM takes an approximation of the normal distribution, good to 2e-3 there
    assert float(process.losses(output, x, noise, noisy, times)['vb']) == pytest.approx(float(expected), rel=5e-3)


def adm_log_likelihood(x, mean, deviation):
    """Return the logarithm of the probability of the 8-bit bin of `x`, in double precision.

    `discretized_gaussian_log_likelihood` of openai/guided-diffusion (losses.py), which DiT copies, value by value.
    """

    def cdf(z):
        return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    above, below = cdf((x - mean + 1 / 255) / deviation), cdf((x - mean - 1 / 255) / deviation)
    if x < -0.999:
        probability = above
    elif x > 0.999:
        probability = 1 - below
    else:
        probability = above - below
    return math.log(max(probability, 1e-12))


@pytest.mark.parametrize('fraction', [-1.0, 0.4, 1.0])
@pytest.mark.parametrize('error', [-1.0, 0.0, 0.7])
@pytest.mark.parametrize('value', [-1.0, -0.9991, -0.9989, -0.5, 0.0, 0.3, 0.9989, 0.9991, 1.0, 1.7])
def test_the_likelihood_of_the_first_step_is_adms(value, error, fraction):
    process, times = GaussianDiffusion(), torch.tensor([0])
    x, noise = torch.full((1, 1, 1, 1), value), torch.full((1, 1, 1, 1), 0.25)
    noisy = process.noised(x, noise, times)
    output = torch.cat([noise + error, torch.full_like(x, fraction)], dim=1)
    found = process.losses(output, x, noise, noisy, times)['vb']
    first, second = 1e-4, 1e-4 + 0.0199 / 999  # the betas at t = 0 and 1
    mean = (float(noisy) - first**0.5 * (0.25 + error)) / (1 - first) ** 0.5
    lower = second * first / (1 - (1 - first) * (1 - second))  # the posterior's variance at t = 1, for that at 0
    share = (fraction + 1) / 2
    deviation = math.exp(0.5 * (share * math.log(first) + (1 - share) * math.log(lower)))
    expected = -adm_log_likelihood(float(x), mean, deviation) / math.log(2)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_impossible_values_cost_forty_bits():
    process, times = GaussianDiffusion(), torch.tensor([0])
    x, noise = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    output = torch.cat([noise + 1000, torch.zeros_like(x)], dim=1)
    vb = process.losses(output, x, noise, process.noised(x, noise, times), times)['vb']
    assert float(vb) == pytest.approx(-np.log2(1e-12))


def test_a_perfect_network_has_no_loss():
    process, (x, noise) = GaussianDiffusion(), batch()
    noisy = process.noised(x, noise, TIMES)
    losses = process.losses(torch.cat([noise, -torch.ones_like(x)], dim=1), x, noise, noisy, TIMES)
    assert losses['mse'].tolist() == [0, 0, 0, 0]
    assert losses['vb'][1:].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_the_bound_trains_the_variance_alone():
    process, (x, noise) = GaussianDiffusion(), batch()
    noisy = process.noised(x, noise, TIMES)
    output = torch.cat([noise + 0.3, 0.2 * noise], dim=1).requires_grad_()
    (of_bound,) = torch.autograd.grad(process.losses(output, x, noise, noisy, TIMES)['vb'].sum(), output)
    assert not of_bound[:, :2].any()
    assert of_bound[:, 2:].flatten(1).abs().amax(dim=1).min() > 0
    (of_mse,) = torch.autograd.grad(process.losses(output, x, noise, noisy, TIMES)['mse'].sum(), output)
    torch.testing.assert_close(of_mse[:, :2], torch.full_like(x, 0.6 / 18))
    assert not of_mse[:, 2:].any()


def test_without_a_learned_variance_the_loss_is_the_squared_error():
    process, (x, noise) = GaussianDiffusion(), batch()
    losses = process.losses(noise + 0.5, x, noise, process.noised(x, noise, TIMES), TIMES)
    assert list(losses) == ['loss']
    assert losses['loss'].tolist() == pytest.approx([0.25] * 4)


def test_respaced_steps_keep_the_levels():
    process = GaussianDiffusion()
    respaced = process.respaced(10)
    assert respaced.times.tolist() == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    np.testing.assert_allclose(np.cumprod(1 - respaced.betas), process.products[respaced.times], rtol=1e-12)
    assert process.respaced(1000).times.tolist() == list(range(1000))
    np.testing.assert_allclose(process.respaced(1000).betas, process.betas, rtol=1e-10)


def test_respaced_halves_are_rounded_as_adm_rounds_them():
    # 999 / 20 = 49.95, and 10 of these, added up, are a little less than 499.5, which alone would round to 500
    assert GaussianDiffusion().respaced(21).times[[9, 10, 11, 20]].tolist() == [450, 499, 549, 999]


@pytest.mark.parametrize('steps', [1, 11])
def test_too_many_or_too_few_steps_are_refused(steps):
    with pytest.raises(ValueError, match=f'steps: got {steps}; expected 2 to 10'):
        GaussianDiffusion(10, 'cosine').respaced(steps)


def test_impossible_processes_are_refused():
    with pytest.raises(ValueError, match='GaussianDiffusion.num_steps: got 20; expected at least 21'):
        GaussianDiffusion(20)  # whose last beta would be 1
    with pytest.raises(ValueError, match='GaussianDiffusion.num_steps: got 1; expected at least 2'):
        GaussianDiffusion(1, 'cosine')
    with pytest.raises(ValueError, match="GaussianDiffusion.schedule must be 'linear' or 'cosine', got 'sigmoid'"):
        GaussianDiffusion(schedule='sigmoid')


@pytest.mark.parametrize('schedule', ['linear', 'cosine'])
@pytest.mark.parametrize('extra', [None, -1.0, 1.0], ids=['fixed', 'least', 'largest'])
def test_ddpm_makes_the_data(schedule, extra):
    assert_gaussian(draw(DDPM(250), GaussianDiffusion(schedule=schedule), extra))


def test_ddpm_uses_the_learned_variance():
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


@pytest.mark.parametrize('schedule', ['linear', 'cosine'])
@pytest.mark.parametrize('eta', [0.0, 0.3, 0.7, 1.0])
def test_ddim_is_its_formula(eta, schedule):
    """DDIM's Eq. 12, with the standard deviation of its Eq. 16 (arXiv 2010.02502), in double precision."""
    process, source = GaussianDiffusion(schedule=schedule), streams()
    x = source.normal(torch.zeros(COUNT, *SHAPE)).double()
    levels = process.products[process.respaced(5).times]  # alpha in the paper, from the data to the noise
    for level, before in zip(levels[::-1], [*levels[-2::-1], 1.0], strict=True):
        noise = (1 - level) ** 0.5 * (x - level**0.5 * MEAN) / (level * STD**2 + 1 - level)  # what is best to predict
        start = (x - (1 - level) ** 0.5 * noise) / level**0.5
        sigma = eta * ((1 - before) / (1 - level)) ** 0.5 * (1 - level / before) ** 0.5
        x = before**0.5 * start + (1 - before - sigma**2) ** 0.5 * noise
        if eta:
            x = x + sigma * source.normal(torch.zeros(COUNT, *SHAPE))
    # the network is single: at the noise it is divided by the square root of a level of 4e-5, or for the cosine 2e-9
    atol = 1e-4 if schedule == 'linear' else 1e-3
    torch.testing.assert_close(draw(DDIM(5, eta=eta), process), x.float(), rtol=1e-4, atol=atol)


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
        (DDPM(101), 'DDPM.steps: got 101; expected at most 100; .* trained with 100'),
        (DDIM(101), 'DDIM.steps: got 101; expected at most 100'),
        (DPMSolver(100), 'DPMSolver.steps: got 100; expected at most 99; .* trained with 100'),
    ],
)
def test_more_steps_than_trained_are_refused(sampler, message):
    with pytest.raises(ValueError, match=message):
        sampler.check(transformer(DiT, GaussianDiffusion(100)))


@pytest.mark.parametrize('kind', [DDPMScheduler, DDIMScheduler])
def test_levels_are_in_double_precision_as_adms(kind):
    process = GaussianDiffusion()
    scheduler, times = _respaced_scheduler(kind, process, 10)
    found = [each.numpy() for each in (scheduler.alphas_cumprod, scheduler.alphas, scheduler.betas)]
    kept = process.products[times]
    ratios = kept / np.append(1.0, kept[:-1])
    for values, expected in zip(found, (kept, ratios, 1 - ratios), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-12)
