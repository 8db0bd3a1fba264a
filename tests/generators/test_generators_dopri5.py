"""Dormand and Prince's method: scipy's solutions, and every sample by its own steps."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from eqzoo.generators.samplers import ode as dopri5
from eqzoo.generators.samplers.ode import solve_adaptively

RATES = torch.tensor([0.5, 3.0, 20.0, 60.0, 1.0], dtype=torch.float64)
START = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.3], [2.0, -3.0], [0.0, 0.1]], dtype=torch.float64)


def pendulums(calls=None):
    """Return the flow of damped pendulums, each as fast as its rate."""

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
def test_solutions_are_those_of_scipy(start, end):
    found = solve_adaptively(pendulums(), START, start, end, rtol=1e-9, atol=1e-9)
    expected = np.stack([by_scipy(place, start, end, 1e-11).y[:, -1] for place in range(5)])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_steps_are_about_as_many_as_scipys():
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


def test_samples_that_have_arrived_cost_nothing():
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


def test_flows_that_stand_still_arrive():
    found = solve_adaptively(lambda x, times, places: 0 * x, START, 1.0, 0.0, rtol=1e-3, atol=1e-6)
    assert torch.equal(found, START)


def test_flows_that_are_not_finite_are_refused():
    with pytest.raises(RuntimeError, match='dopri5: the network gives values that are not finite'):
        solve_adaptively(lambda x, times, places: x / 0, START, 0.0, 1.0, rtol=1e-3, atol=1e-6)


def test_flows_that_take_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(dopri5, '_MOST_STEPS', 20)
    with pytest.raises(RuntimeError, match='dopri5: more than 20 steps; rtol and atol are too small'):
        solve_adaptively(pendulums(), START, 0.0, 2.0, rtol=1e-10, atol=1e-10)
