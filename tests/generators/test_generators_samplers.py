"""Samplers: with networks that know the data, samples are the data; and sample n is itself in every batch."""

import inspect

import numpy as np
import pytest
import torch
from deterministic import LATENTS, fill
from diffusers import DDIMScheduler, DDPMScheduler
from exact import MEAN, STD, carried, generator
from torch import nn

from eqzoo.generators import (
    DDIM,
    DDPM,
    ODE,
    SDE,
    ClassifierFree,
    DiffusionTransformer,
    DiT,
    DPMSolver,
    GaussianDiffusion,
    Interpolant,
    SiT,
)
from eqzoo.generators.guidance import Guidance
from eqzoo.generators.samplers.scheduled import _respaced
from eqzoo.randomness import SampleStreams

COUNT = 16  # samples of 256 values: mean and deviation are known to 0.011 and 0.008
LABELS = torch.arange(COUNT) % 4
FORMS = ('sigma', 'linear', 'sbdm', 'constant', 'decreasing', 'increasing-decreasing')


def streams(numbers=range(COUNT)):
    return SampleStreams(0, torch.tensor(list(numbers)))


def first_noise():
    return streams().normal(torch.zeros(COUNT, 1, 16, 16))


def draw(sampler, process, extra=None):
    return sampler(generator(process, extra), LABELS, streams())


def assert_gaussian(samples, tolerance=0.03):
    assert samples.dtype == torch.float32
    assert float(samples.mean()) == pytest.approx(MEAN, abs=tolerance)
    assert float(samples.std()) == pytest.approx(STD, abs=tolerance)


def transformer(kind=SiT, process=None, **arguments):
    network = fill(DiffusionTransformer((1, 32, 2), 4, **{**LATENTS, **arguments}))
    return kind(network, process or Interpolant()).eval()


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


PATHS = [(path, prediction) for path in ('linear', 'gvp', 'vp') for prediction in ('velocity', 'noise', 'score')]


@pytest.mark.parametrize(('path', 'prediction'), PATHS)
@pytest.mark.parametrize(
    ('sampler', 'tolerance'),
    [
        (ODE('euler', steps=100), 0.05),
        (ODE('heun', steps=100), 0.01),
        (ODE('dopri5'), 0.02),
        (ODE('dopri5', rtol=1e-6, atol=1e-6), 2e-4),
    ],
    ids=['euler', 'heun', 'dopri5', 'dopri5-fine'],
)
def test_odes_follow_the_flow(path, prediction, sampler, tolerance):
    process = Interpolant(path, prediction, network_time='noise_to_data')
    end, start = (process.at(torch.tensor([time], dtype=torch.float64)) for time in process.interval())
    ends = (float(each) for each in (start.alpha, start.sigma, end.alpha, end.sigma))
    assert (draw(sampler, process) - carried(first_noise(), *ends)).abs().max() < tolerance


def test_euler_and_heun_are_of_orders_one_and_two():
    process = Interpolant()
    exact = carried(first_noise(), 0.0, 1.0)
    for method, order in (('euler', 1), ('heun', 2)):
        coarse, fine = ((draw(ODE(method, steps=steps), process) - exact).abs().mean() for steps in (20, 40))
        assert np.log2(float(coarse / fine)) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize(('method', 'evaluations'), [('euler', 7), ('heun', 14)])
def test_steps_cost_evaluations(method, evaluations):
    sit = generator(Interpolant())
    ODE(method, steps=7)(sit, LABELS, streams())
    assert len(sit.network.seen) == evaluations
    assert float(sit.network.seen[0][0]) == 1.0


def test_dopri5_takes_more_steps_for_less_error():
    counts = []
    for tolerances in (dict(), dict(rtol=1e-5), dict(rtol=1e-5, atol=1e-1)):
        sit = generator(Interpolant())
        ODE(**tolerances)(sit, LABELS, streams())
        counts.append(len(sit.network.seen))
    assert counts[1] > counts[0]
    assert counts[2] < counts[1]


SDES = [
    (path, prediction, diffusion)
    for path, prediction in PATHS
    for diffusion in FORMS
    if path == 'vp' or diffusion != 'sbdm'  # which is infinite at the noise of other paths; see the next test
]


@pytest.mark.parametrize(('path', 'prediction', 'diffusion'), SDES)
def test_sdes_make_the_data(path, prediction, diffusion):
    # the last step of 'mean' takes in a drift but no noise, which much diffusion makes visible
    sampler = SDE(250, diffusion=diffusion, last_step='euler')
    assert_gaussian(draw(sampler, Interpolant(path, prediction)), 0.035)


@pytest.mark.parametrize('path', ['linear', 'gvp'])
def test_the_sde_along_a_path_needs_small_steps_at_the_noise(path):
    assert_gaussian(draw(SDE(2500, diffusion='sbdm'), Interpolant(path)), 0.05)


@pytest.mark.parametrize('last_step', ['mean', 'euler', None])
def test_last_steps_make_the_data(last_step):
    assert_gaussian(draw(SDE(250, last_step=last_step), Interpolant()))


def test_tweedies_last_step_denoises():
    # of what is left at t = 0.5, the expected data vary less than data
    samples = draw(SDE(250, last_step='tweedie', last_step_size=0.5), Interpolant())
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.03)
    assert float(samples.std()) == pytest.approx(0.5 * STD**2 / (0.25 * STD**2 + 0.25) ** 0.5, abs=0.03)


WEIGHTS = {
    'sigma': lambda t, scale: scale * t,
    'linear': lambda t, scale: scale * t,
    'sbdm': lambda t, scale: scale * t / (1 - t),
    'constant': lambda t, scale: scale,
    'decreasing': lambda t, scale: (1 - scale * np.cos(np.pi * t)) ** 2 / 4,
    'increasing-decreasing': lambda t, scale: scale * np.sin(np.pi * t) ** 2,
}


@pytest.mark.parametrize('scale', [1.0, 0.3])
@pytest.mark.parametrize('diffusion', FORMS)
def test_sdes_are_euler_and_maruyama(diffusion, scale):
    process, source = Interpolant(), streams()
    x = source.normal(torch.zeros(COUNT, 1, 16, 16)).double()
    times = np.linspace(0.999 if diffusion == 'sbdm' else 1.0, 0.2, 4)

    def fields(x, t):
        score = -(x - (1 - t) * MEAN) / ((1 - t) ** 2 * STD**2 + t**2)
        data = MEAN + (1 - t) * STD**2 * -score
        return -t * score - data, score

    for now, size in zip(times, -np.diff(times), strict=False):
        velocity, score = fields(x, now)
        weight = WEIGHTS[diffusion](now, scale)
        noise = source.normal(torch.zeros(COUNT, 1, 16, 16))
        x = x + size * (weight * score - velocity) + (2 * weight * size) ** 0.5 * noise
    velocity, score = fields(x, 0.2)
    ends = dict(
        mean=x + 0.2 * (WEIGHTS[diffusion](0.2, scale) * score - velocity),
        euler=x - 0.2 * velocity,
        tweedie=(x + 0.04 * score) / 0.8,
    )
    for last_step, expected in ends.items():
        sampler = SDE(4, diffusion=diffusion, diffusion_scale=scale, last_step=last_step, last_step_size=0.2)
        found = draw(sampler, process)
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_on_a_curved_path_sigma_is_not_time():
    sigma, linear = (draw(SDE(20, diffusion=form), Interpolant('gvp')) for form in ('sigma', 'linear'))
    assert (sigma - linear).abs().mean() > 0.01


@pytest.mark.parametrize('last_step', ['mean', None])
def test_sde_steps_are_evaluations(last_step):
    sit = generator(Interpolant())
    SDE(9, last_step=last_step, last_step_size=0.1)(sit, LABELS, streams())
    times = [float(each[0]) for each in sit.network.seen]
    expected = np.linspace(1, 0.1, 9) if last_step else np.linspace(1, 0, 10)[:-1]
    assert times == pytest.approx(expected.tolist(), abs=1e-6)


CASES = {
    'ddpm': (DDPM(5), DiT, GaussianDiffusion()),
    'ddim': (DDIM(5), DiT, GaussianDiffusion()),
    'ddim-eta': (DDIM(5, eta=0.5), DiT, GaussianDiffusion()),
    'dpm': (DPMSolver(5), DiT, GaussianDiffusion()),
    'euler': (ODE('euler', steps=5), SiT, Interpolant()),
    'heun': (ODE('heun', steps=3), SiT, Interpolant()),
    'dopri5': (ODE(), SiT, Interpolant()),
    'sde': (SDE(5), SiT, Interpolant()),
    'guided': (SDE(5, guidance=ClassifierFree(3.0, interval=(0.2, 0.7))), SiT, Interpolant()),
}


@pytest.mark.parametrize('case', CASES)
def test_a_sample_is_the_same_in_every_batch(case):
    sampler, kind, process = CASES[case]
    generator, labels = transformer(kind, process), torch.tensor([0, 3, 10, 7, 2])
    whole = sampler(generator, labels, streams([4, 0, 9, 2, 7]))
    parts = [sampler(generator, labels[:2], streams([4, 0])), sampler(generator, labels[2:], streams([9, 2, 7]))]
    assert whole.shape == (5, 4, 8, 8)
    assert not whole.requires_grad
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))
    assert (whole[0] - whole[1]).abs().max() > 0.1
    other_class = sampler(generator, torch.tensor([1, 3, 10, 7, 2]), streams([4, 0, 9, 2, 7]))
    assert (other_class[0] - whole[0]).abs().max() > 1e-4
    torch.testing.assert_close(other_class[1:], whole[1:], rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


class Swinging(nn.Module):
    """A velocity that swings as often as the class says, so that some samples take more steps than others."""

    latent_shape, num_classes, out_channels = (1, 2, 2), 40, 1

    def forward(self, x, times, labels):
        angles = (labels * times).view(-1, 1, 1, 1)
        return labels.view(-1, 1, 1, 1) * angles.cos() + 0 * x


def test_samples_that_go_on_longer_keep_their_classes():
    swinging, labels = SiT(Swinging(), Interpolant()), torch.tensor([0, 30, 1, 17])
    noise = streams(range(4)).normal(torch.zeros(4, 1, 2, 2))
    samples = ODE(rtol=1e-5)(swinging, labels, streams(range(4)))
    expected = noise - labels.double().sin().view(-1, 1, 1, 1)
    torch.testing.assert_close(samples, expected.float(), rtol=0, atol=1e-3)


class Rounding(nn.Module):
    """A velocity whose last digits depend on the size of the batch, as those of matrix products do."""

    latent_shape, num_classes, out_channels = (4, 4, 4), 9, 1

    def forward(self, x, times, labels):
        velocity = (3 * x + labels.view(-1, 1, 1, 1)).sin() + times.view(-1, 1, 1, 1)
        return velocity * (1 + 1e-7 * (1000 * x + len(x)).sin())


@pytest.mark.parametrize('guidance', [None, ClassifierFree(3.0, interval=(0.3, 0.8))], ids=['plain', 'guided'])
def test_rounding_that_depends_on_the_batch_does_not_choose_dopri5s_steps(guidance):
    sit, labels, sampler = SiT(Rounding(), Interpolant()), torch.arange(COUNT) % 9, ODE(guidance=guidance)
    whole = sampler(sit, labels, streams())
    parts = [sampler(sit, labels[[place]], streams([place])) for place in range(COUNT)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=2e-5)


class Steady(nn.Module):
    """A velocity of 1 for a class, and of 0 for none."""

    latent_shape, num_classes, out_channels = (1, 2, 2), 3, 1

    def __init__(self):
        super().__init__()
        self.num_calls = 0

    def forward(self, x, times, labels):
        self.num_calls += 1
        return torch.ones_like(x) * (labels < 3).view(-1, 1, 1, 1)


@pytest.mark.parametrize('interval', [(0.0, 1.0), (0.3, 0.8), (0.0, 0.7), (0.25, 1.0)])
def test_dopri5_stops_where_guidance_begins_and_ends(interval):
    steady, (low, high) = Steady(), interval
    sampler = ODE(guidance=ClassifierFree(4.0, interval=interval))
    samples = sampler(SiT(steady, Interpolant()), LABELS.clamp_max(2), streams())
    noise = streams().normal(torch.zeros(COUNT, 1, 2, 2))
    # without a jump within a step, each part is exact
    torch.testing.assert_close(samples, noise - 4 * (high - low) - (1 - high + low), rtol=0, atol=1e-6)
    assert steady.num_calls < 100


class Recording(Guidance):
    """Guidance that changes nothing and keeps the times that it is told."""

    def __init__(self):
        super().__init__(2.0)
        self.times, self.noise_times = [], []

    def __call__(self, network, x, times, labels, noise_time):
        assert x.dtype == torch.float32
        assert times.shape == noise_time.shape == labels.shape
        self.times.append(float(times[0]))
        self.noise_times.append(float(noise_time[0]))
        return network(x, times, labels)


@pytest.mark.parametrize('kind', [DDPM, DDIM])
def test_diffusion_is_guided_by_the_share_of_its_steps(kind):
    guidance = Recording()
    samples = draw(kind(10, guidance=guidance), GaussianDiffusion())
    assert guidance.times == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert guidance.noise_times == pytest.approx(np.linspace(1, 0, 10).tolist(), abs=1e-6)
    assert torch.equal(samples, draw(kind(10), GaussianDiffusion()))


def test_dpm_solver_is_guided_by_the_share_of_its_steps():
    guidance = Recording()
    draw(DPMSolver(3, guidance=guidance), GaussianDiffusion())
    assert guidance.times == [999, 666, 333]
    assert guidance.noise_times == pytest.approx([1, 2 / 3, 1 / 3], abs=1e-6)


@pytest.mark.parametrize('kind', [ODE, SDE])
@pytest.mark.parametrize('network_time', ['data_to_noise', 'noise_to_data'])
def test_interpolants_are_guided_by_noise_whatever_the_network_counts(kind, network_time):
    guidance, process = Recording(), Interpolant(network_time=network_time)
    given = dict(method='heun') if kind is ODE else {}
    samples = draw(kind(**given, steps=5, guidance=guidance), process)
    seen = np.array(guidance.noise_times)
    assert seen[0] == 1
    assert (np.diff(seen) <= 0).all()
    expected = seen if network_time == 'data_to_noise' else 1 - seen
    np.testing.assert_allclose(guidance.times, expected, atol=1e-6)
    assert torch.equal(samples, draw(kind(**given, steps=5), process))


@pytest.mark.parametrize('case', CASES)
def test_guidance_changes_samples(case):
    sampler, kind, process = CASES[case]
    arguments = {
        name: getattr(sampler, name) for name in inspect.signature(type(sampler)).parameters if name != 'guidance'
    }
    generator, labels = transformer(kind, process), torch.tensor([0, 3])
    plain, guided = (
        type(sampler)(**arguments, guidance=guidance)(generator, labels, streams([0, 1]))
        for guidance in (None, ClassifierFree(3.0))
    )
    assert (plain - guided).abs().max() > 1e-3


@pytest.mark.parametrize('kind', [DDPM, DDIM, DPMSolver, ODE, SDE])
def test_smoke_takes_hardly_any_steps(kind):
    arguments = kind.smoke(dict(steps=250))
    process = Interpolant() if kind in (ODE, SDE) else GaussianDiffusion()
    built = generator(process)
    kind(**arguments)(built, LABELS, streams())
    assert len(built.network.seen) <= (15 if kind is ODE else 2)


@pytest.mark.parametrize('sampler', [DDPM(), DDIM(), DPMSolver()])
def test_samplers_of_diffusion_refuse_interpolants(sampler):
    with pytest.raises(ValueError, match='samples from GaussianDiffusion; SiT has Interpolant; DDPM, DDIM and DPM'):
        sampler.check(transformer())


@pytest.mark.parametrize('sampler', [ODE(), SDE()])
def test_samplers_of_interpolants_refuse_diffusion(sampler):
    with pytest.raises(ValueError, match='samples from Interpolant; DiT has GaussianDiffusion'):
        sampler(transformer(DiT, GaussianDiffusion()), LABELS, streams())


@pytest.mark.parametrize('labels', [[0, 11], [-1, 3]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError, match=r'labels: got .*; accepted are 0 to 9, and 10 for no class'):
        ODE('euler')(transformer(), torch.tensor(labels), streams([0, 1]))


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


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: DDPM(1), 'DDPM.steps must be at least 2, got 1'),
        (lambda: DDIM(1), 'DDIM.steps must be at least 2, got 1'),
        (lambda: DPMSolver(0), 'DPMSolver.steps must be at least 1, got 0'),
        (lambda: DDIM(eta=1.5), r'DDIM.eta must be in \[0, 1\], got 1.5'),
        (lambda: ODE('rk4'), "ODE.method: got 'rk4'; accepted are 'euler', 'heun' and 'dopri5'"),
        (lambda: ODE('euler', steps=0), 'ODE.steps must be at least 1, got 0'),
        (lambda: ODE(rtol=0), 'ODE.rtol and ODE.atol must be positive, got 0 and 1e-06'),
        (lambda: ODE(atol=-1), 'ODE.rtol and ODE.atol must be positive, got 0.001 and -1'),
        (lambda: SDE(1), 'SDE.steps must be at least 2, got 1'),
        (lambda: SDE(diffusion='ddpm'), "SDE.diffusion: got 'ddpm'; accepted are 'sigma', 'linear', 'sbdm'"),
        (lambda: SDE(last_step='Mean'), "SDE.last_step: got 'Mean'; accepted are 'mean', 'tweedie', 'euler', None"),
        (lambda: SDE(last_step_size=0), r'SDE.last_step_size must be in \(0, 1\), got 0'),
        (lambda: SDE(diffusion_scale=-1), 'SDE.diffusion_scale must not be negative, got -1'),
    ],
)
def test_impossible_samplers_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize('kind', [DDPMScheduler, DDIMScheduler])
def test_levels_are_in_double_precision_as_adms(kind):
    process = GaussianDiffusion()
    scheduler, times = _respaced(kind, process, 10)
    found = [each.numpy() for each in (scheduler.alphas_cumprod, scheduler.alphas, scheduler.betas)]
    kept = process.products[times]
    ratios = kept / np.append(1.0, kept[:-1])
    for values, expected in zip(found, (kept, ratios, 1 - ratios), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-12)
