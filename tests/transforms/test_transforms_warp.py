"""Warp: its formula, no folds up to its limit, and the border onto itself."""

import math

import pytest
import torch
from signals import coordinates, randn

from eqzoo.transforms import Warp

LINEAR = Warp(interpolation='bilinear')
NONE = ((0.0,) * 6, (0.0,) * 6)
ORDER = [(1, 0), (1, 1), (2, 0), (1, 2), (2, 1), (3, 0)]  # of m and n for three modes


def patterns(warp, count=20):
    """The cases and some draws."""
    draws = [warp.sample(torch.Generator().manual_seed(seed), (8, 8)) for seed in range(count)]
    return [*warp.cases((8, 8)).values(), *draws]


def determinants(warp, waves, size=(48, 64)):
    """Of the sources' Jacobian over the whole picture, borders included."""
    rows, columns = (torch.linspace(-0.5, side - 0.5, 2 * side, dtype=torch.float64) for side in size)
    rows, columns = (place.clone().requires_grad_() for place in torch.meshgrid(rows, columns, indexing='ij'))
    sources = warp.sources(rows, columns, size, waves)
    down, right = (torch.autograd.grad(source.sum(), (rows, columns), retain_graph=True) for source in sources)
    return down[0] * right[1] - down[1] * right[0]


def test_no_amplitude_is_the_identity():
    x = randn(1, 2, 16, 24)
    torch.testing.assert_close(Warp()(x, NONE), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize('wave', range(6))
@pytest.mark.parametrize('size', [(32, 32), (24, 40)])
def test_each_wave_is_where_the_formula_has_it(wave, size):
    m, n = ORDER[wave]
    alone = tuple(0.05 * (wave == each) for each in range(6))
    for dim, waves in ((0, (alone, NONE[1])), (1, (NONE[0], alone))):
        inside = LINEAR.mask(size, waves)
        moved = LINEAR(coordinates(*size), waves)[0] - coordinates(*size)[0]
        places = [(torch.arange(side, dtype=torch.float64) + 0.5) / side for side in size]
        grids = torch.meshgrid(*places, indexing='ij')
        wanted = 0.05 * size[dim] * torch.sin(math.pi * m * grids[dim]) * torch.cos(math.pi * n * grids[1 - dim])
        torch.testing.assert_close(moved[dim][inside], wanted[inside], rtol=0, atol=1e-9)
        torch.testing.assert_close(moved[1 - dim][inside], torch.zeros(int(inside.sum())).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize('modes', [1, 2, 3, 5])
def test_sources_never_fold_up_to_the_limit(modes):
    limit = sum(1 / k for k in range(1, modes + 1)) / (math.pi * modes)
    warp = Warp(0.999 * limit, modes=modes, eval_amplitudes=(0.999 * limit,))
    for waves in patterns(warp):
        assert determinants(warp, waves).min() > 0
        rows, columns = warp.sources(*coordinates(64, 64)[0], (64, 64), waves)
        assert (rows.diff(dim=0) > 0).all()
        assert (columns.diff(dim=1) > 0).all()


def test_beyond_the_limit_it_folds():
    """The counter-example; with one mode the limit is sharp: v + sin(π v) / π is level at the border."""
    warp = Warp(0.318, modes=1, eval_amplitudes=(0.318,))  # 1/π is 0.3183
    ((waves, _),) = warp.cases((8, 8)).values()
    assert 0 < determinants(warp, (waves, (0.0,))).min() < 2e-3
    assert determinants(warp, ((0.32,), (0.0,))).min() < 0
    tripled = tuple(tuple(3 * each for each in part) for part in Warp().cases((8, 8))['0.15'])
    assert determinants(Warp(), tripled).min() < 0


def test_the_border_stays_on_the_border():
    """So that nothing comes in: corners stay, and points of a side are moved along it."""
    for waves in patterns(Warp()):
        rows, columns = LINEAR.sources(
            *torch.meshgrid(torch.tensor([-0.5, 31.5]).double(), torch.arange(48).double() - 0.5, indexing='ij'),
            (32, 48),
            waves,
        )
        torch.testing.assert_close(rows, torch.tensor([[-0.5], [31.5]]).double().expand(2, 48), rtol=0, atol=1e-12)
        assert (columns >= -0.5 - 1e-12).all()
        assert (columns <= 47.5).all()
        assert columns[:, 0].tolist() == pytest.approx([-0.5, -0.5])
        assert (columns - torch.arange(48) + 0.5).abs().max() > 0.1


@pytest.mark.parametrize('size', [(16, 16), (24, 40)])
def test_the_mask_leaves_out_where_outermost_cells_are_seen_alone(size):
    for waves in patterns(Warp()):
        mask = Warp().mask(size, waves)
        sources = Warp().sources(*coordinates(*size)[0], size, waves)
        edge = torch.stack([torch.minimum(s, side - 1 - s) for s, side in zip(sources, size, strict=True)]).amin(dim=0)
        assert mask[edge > 1.4].all()  # and no more, as squares of cells reach no further than 0.9 · 1.8 · √2 / 2
        assert not mask[edge < 0.99].any()


def test_displacements_reach_but_never_exceed_the_amplitude():
    """Half of it is usual, and the evaluation's pattern has four fifths."""
    moved = []
    for waves in patterns(Warp(), count=200):
        rows, columns = Warp().sources(*coordinates(64, 64)[0], (64, 64), waves)
        down, right = (rows - coordinates(64, 64)[0, 0]) / 64, (columns - coordinates(64, 64)[0, 1]) / 64
        moved.append(max(down.abs().max(), right.abs().max()).item())
    assert moved[:3] == pytest.approx([0.0407, 0.0813, 0.122], abs=1e-3)
    assert max(moved) < 0.15
    assert sum(moved[3:]) / 200 == pytest.approx(0.075, abs=0.005)


def test_draws_are_uniform_and_smaller_for_faster_waves():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([Warp().sample(generator, (8, 8)) for _ in range(1000)])  # (1000, 2, 6)
    weights = torch.tensor([1 / (m + n) ** 2 for m, n in ORDER])
    shares = drawn / (0.15 * weights / weights.sum())
    assert shares.abs().max() < 1
    assert shares.abs().amax(dim=0).min() > 0.98
    assert shares.mean(dim=0).abs().max() < 0.073  # four standard deviations, √(1/3 / 1000)
    assert abs(shares.flatten().square().mean() - 1 / 3) < 0.011  # four, √(4/45 / 12000)
