"""Samplers of interpolants: the ODE solver against scipy, and data drawn with networks that know them."""

import itertools

import numpy as np
import pytest
import torch
from gaussian_data import (
    COUNT,
    FORMS,
    LABELS,
    MEAN,
    STD,
    assert_gaussian,
    carried,
    draw,
    first_noise,
    generator,
    streams,
    transformer,
)
from scipy.integrate import solve_ivp
from torch import nn

from eqzoo.generators import ODE, SDE, ClassifierFree, Interpolant, ShiftedODE, SiT
from eqzoo.generators.samplers import ode as dopri5
from eqzoo.generators.samplers.ode import solve_adaptively

RATES = torch.tensor([0.5, 3.0, 20.0, 60.0, 1.0], dtype=torch.float64)
START = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.3], [2.0, -3.0], [0.0, 0.1]], dtype=torch.float64)


def pendulums(calls=None):
    """Return the flow of damped pendulums, each with its own rate."""

    def flow(x, times, places):
        if calls is not None:
            calls.append(len(places))
        rate = RATES[places]
        return torch.stack([x[:, 1], -rate * x[:, 0].sin() - 0.3 * x[:, 1] + times.cos()], dim=1)

    return flow


def by_scipy(place, start, end, tolerance):
    flow = pendulums()

    def single(t, x):
        at = torch.tensor([t], dtype=torch.float64)
        return flow(torch.from_numpy(x)[None], at, torch.tensor([place]))[0].numpy()

    return solve_ivp(single, (start, end), START[place].numpy(), method='RK45', rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(('start', 'end'), [(0.0, 2.0), (2.0, 0.5)])
def test_solutions_agree_with_scipy(start, end):
    found = solve_adaptively(pendulums(), START, start, end, rtol=1e-9, atol=1e-9)
    expected = np.stack([by_scipy(place, start, end, 1e-11).y[:, -1] for place in range(5)])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_the_number_of_steps_is_close_to_scipys():
    for place in range(5):
        calls, theirs = [], by_scipy(place, 0.0, 2.0, 1e-6)
        flow = pendulums(calls)
        solve_adaptively(
            lambda x, times, _, place=place, flow=flow: flow(x, times, torch.tensor([place])),
            START[place : place + 1],
            0.0,
            2.0,
            rtol=1e-6,
            atol=1e-6,
        )
        assert len(calls) == pytest.approx(theirs.nfev, abs=max(12, 0.15 * theirs.nfev))


def test_a_samples_steps_are_its_own():
    whole = solve_adaptively(pendulums(), START, 0.0, 2.0, rtol=1e-3, atol=1e-6)
    for place in range(5):
        flow = pendulums()
        alone = solve_adaptively(
            lambda x, times, _, place=place, flow=flow: flow(x, times, torch.tensor([place])),
            START[place : place + 1],
            0.0,
            2.0,
            rtol=1e-3,
            atol=1e-6,
        )
        torch.testing.assert_close(alone[0], whole[place], rtol=1e-12, atol=1e-12)


def test_finished_samples_cost_nothing():
    calls = []
    solve_adaptively(pendulums(calls), START, 0.0, 2.0, rtol=1e-6, atol=1e-6)
    assert calls[0] == 5
    assert calls[-1] < 5


@pytest.mark.parametrize('loose', [dict(rtol=1e-3, atol=1e-9), dict(rtol=1e-9, atol=1e-3)])
def test_each_tolerance_bounds_the_error(loose):
    exact = solve_adaptively(pendulums(), START, 0.0, 2.0, rtol=1e-11, atol=1e-11)
    errors = [
        float((solve_adaptively(pendulums(), START, 0.0, 2.0, **given) - exact).abs().max())
        for given in (loose, dict(rtol=1e-9, atol=1e-9))
    ]
    assert errors[1] < 1e-6 < errors[0] < 0.3


def test_a_quartic_is_exact_in_one_step():
    def flow(x, times, places):
        return (5 * times**4).view(-1, 1).expand_as(x)  # the fifth order integrates degree four exactly

    found = solve_adaptively(flow, torch.zeros(1, 1, dtype=torch.float64), 0.0, 1.0, rtol=1e3, atol=1e3)
    assert float(found) == pytest.approx(1.0, abs=1e-12)


def test_a_flow_of_zero_arrives():
    found = solve_adaptively(lambda x, times, places: 0 * x, START, 1.0, 0.0, rtol=1e-3, atol=1e-6)
    assert torch.equal(found, START)


def test_flows_that_are_not_finite_are_refused():
    with pytest.raises(FloatingPointError, match='dopri5: the network gives values that are not finite'):
        solve_adaptively(lambda x, times, places: x / 0, START, 0.0, 1.0, rtol=1e-3, atol=1e-6)


def test_flows_that_take_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(dopri5, '_MOST_STEPS', 20)
    with pytest.raises(FloatingPointError, match='dopri5: more than 20 steps; rtol and atol are too small'):
        solve_adaptively(pendulums(), START, 0.0, 2.0, rtol=1e-10, atol=1e-10)


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


@pytest.mark.parametrize('path', ['linear', 'vp'])
@pytest.mark.parametrize('method', ['euler', 'heun'])
def test_shifted_steps_follow_the_flow(path, method):
    process = Interpolant(path)
    end, start = (process.at(torch.tensor([time], dtype=torch.float64)) for time in process.interval())
    ends = (float(each) for each in (start.alpha, start.sigma, end.alpha, end.sigma))
    sampler = ShiftedODE(method, steps=100, shift=3.0)
    assert (draw(sampler, process) - carried(first_noise(), *ends)).abs().max() < (0.1 if method == 'euler' else 0.01)
    assert sampler.step_times(1.0, 0.25)[[0, -1]].tolist() == [1.0, 0.25]


def test_lightningdits_sampling_is_restated_in_its_own_time():
    """Time from noise to data, times s t / (1 + (s - 1) t), three guided channels, none guided before t = 0.125."""
    network = transformer(learn_sigma=False).network
    process = Interpolant(network_time='noise_to_data')
    guidance = ClassifierFree(6.7, interval=(0.0, 1 - 0.125), channels=3)
    labels = torch.tensor([0, 3, 7])
    sampler = ShiftedODE('euler', steps=9, shift=1 / 0.3, guidance=guidance)
    found = sampler(SiT(network, process), labels, streams([4, 0, 9]))
    x = streams([4, 0, 9]).normal(torch.zeros(3, 4, 8, 8))
    even = np.linspace(0, 1, 10)
    times = 0.3 * even / (1 + (0.3 - 1) * even)
    with torch.no_grad():
        for now, then in itertools.pairwise(times.tolist()):
            at = torch.full((3,), now)
            velocity, worse = network(x, at, labels), network(x, at, torch.full((3,), 10))
            if now >= 0.125:
                velocity[:, :3] = worse[:, :3] + 6.7 * (velocity[:, :3] - worse[:, :3])
            x = x + (then - now) * velocity
    assert sum(time < 0.125 for time in times) == 3
    torch.testing.assert_close(found, x, rtol=0, atol=1e-6 * float(x.abs().max()))


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


class Rounding(nn.Module):
    """A velocity whose last digits depend on the batch size, like those of matrix products."""

    latent_shape, num_classes, out_channels = (4, 4, 4), 9, 1

    def forward(self, x, times, labels):
        velocity = (3 * x + labels.view(-1, 1, 1, 1)).sin() + times.view(-1, 1, 1, 1)
        return velocity * (1 + 1e-7 * (1000 * x + len(x)).sin())


@pytest.mark.parametrize('guidance', [None, ClassifierFree(3.0, interval=(0.3, 0.8))], ids=['plain', 'guided'])
def test_dopri5s_steps_do_not_depend_on_rounding(guidance):
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
