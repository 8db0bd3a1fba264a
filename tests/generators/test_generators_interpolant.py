"""Interpolants: paths and their derivatives, and predictions that agree with each other."""

import math

import numpy as np
import pytest
import torch
from formula_networks import wave

from eqzoo.generators import Interpolant
from eqzoo.generators.interpolant import PATHS

TIMES = torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
PATH_NAMES = list(PATHS)


def batch():
    return wave(4, 2, 3, 3, step=0.37).double(), wave(4, 2, 3, 3, step=1.3).double()


def test_paths_are_those_of_sit():
    at = torch.tensor([0.25], dtype=torch.float64)
    values = {name: [float(each) for each in path(at)[:2]] for name, path in PATHS.items()}
    log_alpha = -0.25 * 0.25**2 * 19.9 - 0.5 * 0.25 * 0.1
    assert values['linear'] == [0.75, 0.25]
    assert values['gvp'] == pytest.approx([math.cos(math.pi / 8), math.sin(math.pi / 8)])
    assert values['vp'] == pytest.approx([math.exp(log_alpha), math.sqrt(1 - math.exp(2 * log_alpha))])


@pytest.mark.parametrize('path', PATH_NAMES)
def test_derivatives_are_those_of_the_path(path):
    times = TIMES.clone().requires_grad_()
    found = PATHS[path](times)
    for value, derivative in ((found.alpha, found.d_alpha), (found.sigma, found.d_sigma)):
        (expected,) = torch.autograd.grad(value.sum(), times, retain_graph=True)
        torch.testing.assert_close(derivative.expand(4), expected)


@pytest.mark.parametrize('path', PATH_NAMES)
def test_the_diffusion_along_a_path_adds_its_variance(path):
    found, step = PATHS[path](TIMES), 1e-6
    then = PATHS[path](TIMES + step)
    # x_{t+dt} = (alpha' / alpha) x_t + noise: what is lacking to sigma'^2 is 2 diffusion dt
    lacking = then.sigma**2 - (then.alpha / found.alpha) ** 2 * found.sigma**2
    torch.testing.assert_close(2 * found.diffusion * step, lacking, rtol=1e-4, atol=0)
    assert (found.d_log_alpha < 0).all()


@pytest.mark.parametrize('path', PATH_NAMES)
def test_all_predictions_are_equivalent(path):
    x, noise = batch()
    found = Interpolant(path).at(TIMES)
    noisy = Interpolant(path).noised(x, noise, TIMES)
    torch.testing.assert_close(noisy, found.alpha * x + found.sigma * noise)
    velocity, score = found.d_alpha * x + found.d_sigma * noise, -noise / found.sigma
    outputs = dict(velocity=velocity, score=score, noise=noise)
    for prediction, output in outputs.items():
        process = Interpolant(path, prediction)
        torch.testing.assert_close(process.velocity(output, noisy, TIMES), velocity, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(process.score(output, noisy, TIMES), score, rtol=1e-6, atol=1e-8)
        longer = torch.cat([output, output], dim=1)  # a learned variance counts for nothing
        torch.testing.assert_close(process.velocity(longer, noisy, TIMES), velocity, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(process.score(longer, noisy, TIMES), score, rtol=1e-6, atol=1e-8)
        assert process.losses(longer, x, noise, TIMES).abs().max() < 1e-10


def test_published_networks_count_time_from_the_noise():
    x, noise = batch()
    process = Interpolant(network_time='noise_to_data')
    assert process.network_times(torch.tensor([0.0, 0.25, 1.0])).tolist() == [1, 0.75, 0]
    assert Interpolant().network_times(torch.tensor([0.25])).tolist() == [0.25]
    noisy = process.noised(x, noise, TIMES)
    torch.testing.assert_close(process.velocity(x - noise, noisy, TIMES), noise - x)
    torch.testing.assert_close(process.score(x - noise, noisy, TIMES), -noise / TIMES.view(-1, 1, 1, 1))
    assert process.losses(x - noise, x, noise, TIMES).max() < 1e-12
    assert Interpolant().losses(x - noise, x, noise, TIMES).min() > 1
    for prediction in ('noise', 'score'):  # whose sign does not depend on the direction
        torch.testing.assert_close(
            Interpolant('linear', prediction, network_time='noise_to_data').score(noise, noisy, TIMES),
            Interpolant('linear', prediction).score(noise, noisy, TIMES),
        )


def test_losses_are_weighted():
    x, noise = batch()
    t = TIMES
    squares = 0.25  # of an error of 0.5 in each value of the noise
    weights = dict(none=torch.ones(4), velocity=(1 / (1 - t)) ** 2, likelihood=1 / (t * (1 - t)))
    for weighting, weight in weights.items():
        of_noise = Interpolant('linear', 'noise', weighting).losses(noise + 0.5, x, noise, t)
        torch.testing.assert_close(of_noise.double(), squares * weight.double(), rtol=1e-5, atol=0)
        score = -(noise + 0.5) / t.view(-1, 1, 1, 1)
        of_score = Interpolant('linear', 'score', weighting).losses(score, x, noise, t)
        torch.testing.assert_close(of_score, of_noise, rtol=1e-5, atol=0)


@pytest.mark.parametrize('path', PATH_NAMES)
def test_weighted_as_velocity_is_the_error_of_the_velocity(path):
    x, noise = batch()
    noisy, wrong = Interpolant(path).noised(x, noise, TIMES), noise + 0.1 * x
    velocity = Interpolant(path, 'noise').velocity(wrong, noisy, TIMES)
    expected = Interpolant(path).losses(velocity, x, noise, TIMES)
    torch.testing.assert_close(Interpolant(path, 'noise', 'velocity').losses(wrong, x, noise, TIMES), expected)


@pytest.mark.parametrize(
    ('path', 'prediction', 'training', 'sampling'),
    [
        ('linear', 'velocity', (0, 1), (0, 1)),
        ('gvp', 'velocity', (0, 1), (0, 1)),
        ('linear', 'noise', (1e-3, 1 - 1e-3), (1e-3, 1 - 1e-3)),
        ('gvp', 'score', (1e-3, 1 - 1e-3), (1e-3, 1 - 1e-3)),
        ('vp', 'velocity', (1e-5, 1), (1e-3, 1)),
        ('vp', 'noise', (1e-5, 1), (1e-3, 1)),
    ],
)
def test_intervals_are_those_of_sit(path, prediction, training, sampling):
    process = Interpolant(path, prediction)
    assert process.interval(training=True) == training
    assert process.interval() == sampling
    times = process.sample_times(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    assert times.tolist() == pytest.approx([training[0], sum(training) / 2, training[1]])


@pytest.mark.parametrize('path', ['linear', 'gvp'])
def test_at_lognormal_times_the_ratio_of_noise_to_data_is_lognormal(path):
    process = Interpolant(path, time_sampling='lognormal')
    numbers = torch.tensor([-3.0, 0.0, 0.7])
    found = process.at(process.sample_times(numbers))
    torch.testing.assert_close((found.sigma / found.alpha).flatten(), numbers.exp())


def test_the_spread_of_lognormal_times_is_that_of_their_logit():
    numbers = torch.tensor([-3.0, -0.4, 0.0, 0.7, 2.0])
    times = Interpolant(time_sampling='lognormal', logit_std=0.6).sample_times(numbers)
    torch.testing.assert_close(times.logit(), 0.6 * numbers)


@pytest.mark.parametrize('shift', [0.3, 1.0, 3.0])
@pytest.mark.parametrize('sampling', ['uniform', 'lognormal'])
def test_shifted_training_times_have_a_moved_logit(sampling, shift):
    numbers = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    plain, moved = (Interpolant(time_sampling=sampling, time_shift=each).sample_times(numbers) for each in (1.0, shift))
    torch.testing.assert_close(moved.logit(), plain.logit() + math.log(shift))
    assert torch.equal(moved, plain) == (shift == 1)


def test_shifted_times_stay_between_the_ends():
    process = Interpolant('vp', time_shift=0.2)
    ends = process.sample_times(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([1e-5, 1.0], rel=1e-12)


def test_the_direction_loss_is_by_cosines_of_cells():
    x, noise = wave(4, 3, 2, 2).double(), wave(4, 3, 2, 2, step=0.9).double()
    velocity = noise - x
    process, back = Interpolant(), Interpolant(network_time='noise_to_data')
    assert process.direction_losses(3 * velocity, x, noise, TIMES).abs().max() < 1e-6
    torch.testing.assert_close(process.direction_losses(-velocity, x, noise, TIMES), torch.full((4,), 2.0).double())
    assert back.direction_losses(-velocity, x, noise, TIMES).abs().max() < 1e-6
    output = wave(4, 6, 2, 2, step=1.3)
    found = process.direction_losses(output, x, noise, TIMES)
    guess, truth = output[:, :3].double().numpy(), velocity.numpy()
    cosines = (guess * truth).sum(1) / np.sqrt((guess**2).sum(1) * (truth**2).sum(1))
    assert found.tolist() == pytest.approx((1 - cosines).mean((1, 2)).tolist(), abs=1e-6)
    orthogonal = torch.stack([velocity[:, 1], -velocity[:, 0], torch.zeros_like(velocity[:, 0])], dim=1)
    torch.testing.assert_close(
        process.direction_losses(orthogonal, x, noise, TIMES), torch.ones(4).double(), rtol=0, atol=1e-6
    )


def test_the_direction_of_a_prediction_of_zero_has_an_enormous_gradient():
    """Why the docstring asks for clipped gradients: the first step of a new network, which predicts 0."""
    x, noise = wave(4, 3, 2, 2), wave(4, 3, 2, 2, step=0.9)
    sizes = []
    for scale in (0.0, 1.0):
        output = (scale * wave(4, 3, 2, 2, step=1.3)).requires_grad_()
        Interpolant().direction_losses(output, x, noise, TIMES).sum().backward()
        sizes.append(float(output.grad.abs().max()))
    assert sizes[0] > 1e6 * sizes[1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(logit_std=0.5), "logit_std: got 0.5 with time_sampling='uniform'; expected time_sampling='lognormal'"),
        (dict(logit_std=0.0, time_sampling='lognormal'), 'logit_std must be above 0, got 0.0'),
        (dict(time_shift=-1.0), 'time_shift must be above 0, got -1.0'),
        (dict(direction_weight=-1.0), 'direction_weight must be at least 0, got -1.0'),
        (dict(direction_weight=0.5, prediction='noise'), "direction_weight: got 0.5 with prediction='noise'"),
        (dict(path='cosine'), "Interpolant.path must be 'linear', 'gvp' or 'vp', got 'cosine'"),
        (dict(prediction='data'), "prediction must be 'velocity', 'score' or 'noise', got 'data'"),
        (dict(weighting='snr'), "weighting must be 'none', 'velocity' or 'likelihood', got 'snr'"),
        (dict(network_time='up'), "network_time must be 'data_to_noise' or 'noise_to_data', got 'up'"),
        (dict(time_sampling='edm'), "time_sampling must be 'uniform' or 'lognormal', got 'edm'"),
        (dict(weighting='velocity'), "weighting: got 'velocity'; expected 'none'"),
        (dict(path='vp', time_sampling='lognormal'), "time_sampling: got 'lognormal' with path='vp'; .* use 'uniform'"),
    ],
)
def test_impossible_interpolants_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Interpolant(**arguments)
