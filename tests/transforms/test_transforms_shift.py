"""Shift: whole cells and mirrored cosines are exact, shifts add up, what is in between is right."""

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from signals import disc, randn

from eqzoo.transforms import Shift

NONE = Fraction(0)
SIDE = 32


def cosine(frequency, moved=0.0):
    """What the mirrored border goes on with smoothly, moved to the right by `moved` cells, (1, 1, 4, SIDE)."""
    places = torch.arange(SIDE, dtype=torch.float64) + 0.5 - moved
    return torch.cos(math.pi * frequency / SIDE * places).expand(1, 1, 4, SIDE)


@pytest.mark.parametrize('interpolation', ['fourier', 'bilinear'])
def test_whole_cells_are_exact_and_mirrored_at_the_border(interpolation):
    x = torch.arange(24.0).view(1, 1, 4, 6)
    shift = Shift(interpolation=interpolation)
    assert torch.equal(shift(x, (Fraction(1, 4), NONE))[0, 0], x[0, 0][[0, 0, 1, 2]])
    assert torch.equal(shift(x, (Fraction(-2, 4), NONE))[0, 0], x[0, 0][[2, 3, 3, 2]])
    assert torch.equal(shift(x, (NONE, Fraction(2, 6)))[0, 0], x[0, 0][:, [1, 0, 0, 1, 2, 3]])


@pytest.mark.parametrize('frequency', [0, 1, 5, 31])
@pytest.mark.parametrize('cells', [Fraction(1, 2), Fraction(-9, 4), Fraction(3)])
def test_fourier_moves_mirrored_cosines_exactly(cells, frequency):
    """All below Nyquist's frequency, at the border too: the one signal whose shift is known everywhere."""
    moved = Shift()(cosine(frequency), (NONE, cells / SIDE))
    torch.testing.assert_close(moved, cosine(frequency, float(cells)), rtol=0, atol=1e-12)


@pytest.mark.parametrize('shift', [Fraction(1, 64), Fraction(-5, 128), Fraction(3, 32)])
def test_fourier_moves_a_smooth_spot_to_where_it_belongs(shift):
    spot = disc(32, 15.0, 17.0, width=2.0)
    wanted = disc(32, 15.0 + float(32 * shift), 17.0 - float(32 * shift), width=2.0)
    assert (Shift()(spot, (-shift, shift)) - wanted).abs().max() < 1e-7  # what the spot has above Nyquist
    bilinear = Shift(interpolation='bilinear')(spot, (-shift, shift))
    assert (bilinear - wanted).abs().max() < 0.08
    if (32 * shift).denominator > 1:
        assert (bilinear - wanted).abs().max() > 2e-3


def test_bilinear_is_the_mean_of_neighbours():
    x = randn(1, 2, 6, 8)
    half = Shift(interpolation='bilinear')(x, (NONE, Fraction(1, 16)))
    torch.testing.assert_close(half[..., 1:], (x[..., 1:] + x[..., :-1]) / 2)
    quarter = Shift(interpolation='bilinear')(x, (Fraction(-1, 24), NONE))  # upwards
    torch.testing.assert_close(quarter[:, :, :-1], 0.75 * x[:, :, :-1] + 0.25 * x[:, :, 1:])


def test_bilinear_weakens_cosines_by_a_known_factor():
    """The counter-example: half a cell is the mean of two neighbours, which is cos(π f / 2 N) of the cosine."""
    moved = Shift(interpolation='bilinear')(cosine(20), (NONE, Fraction(1, 2 * SIDE)))
    wanted = math.cos(math.pi * 20 / (2 * SIDE)) * cosine(20, 0.5)
    torch.testing.assert_close(moved, wanted, rtol=0, atol=1e-12)
    assert (moved - cosine(20, 0.5)).abs().max() > 0.4


@pytest.mark.parametrize('interpolation', ['fourier', 'bilinear'])
@pytest.mark.parametrize(('first', 'second'), [(1, 2), (3, -1), (-2, -4)])
def test_whole_shifts_add_up_where_nothing_came_in(first, second, interpolation):
    x = torch.randn(1, 2, 8, SIDE, generator=torch.Generator().manual_seed(0))
    shift = Shift(interpolation=interpolation)
    params = [(Fraction(cells, 8), Fraction(cells, SIDE)) for cells in (first, second, first + second)]
    inside = shift.mask((8, SIDE), params[1])
    # what came in by the first shift is moved on by the second one
    came_in = ~shift.mask((8, SIDE), params[0])[None, None]
    inside &= ~shift(came_in.float(), params[1])[0, 0].bool()
    twice, once = shift(shift(x, params[0]), params[1]), shift(x, params[2])
    assert inside.sum() >= 2 * 26
    assert torch.equal(twice[..., inside], once[..., inside])


def test_parts_of_cells_add_up_to_a_whole_one():
    """Far from the border, which is mirrored anew each time; bilinear blurs at each step."""
    places = torch.arange(64, dtype=torch.float64)
    bell = torch.exp(-((places - 31) ** 2) / 18).expand(1, 1, 4, 64)
    errors = {}
    for interpolation in ('fourier', 'bilinear'):
        shift = Shift(interpolation=interpolation)
        moved = shift(shift(bell, (NONE, Fraction(1, 256))), (NONE, Fraction(3, 256)))
        errors[interpolation] = (moved - bell.roll(1, dims=3)).abs().max()
    assert errors['fourier'] < 1e-9
    assert errors['bilinear'] > 1e-3


def test_fourier_is_undone_by_its_opposite_up_to_the_border():
    spot = disc(64, 30.0, 33.0)
    there = Shift()(spot, (Fraction(1, 200), Fraction(1, 300)))
    torch.testing.assert_close(Shift()(there, (Fraction(-1, 200), Fraction(-1, 300))), spot, rtol=0, atol=1e-9)


def test_a_shift_of_latents_is_a_shift_of_images():
    """By parts of the side: one cell of an 8 x 8 grid is 4 pixels of 32."""
    x = torch.randint(0, 256, (1, 3, 32, 32)).double()
    params = (Fraction(1, 8), Fraction(-2, 8))
    assert torch.equal(Shift()(F.avg_pool2d(x, 4), params), F.avg_pool2d(Shift()(x, params), 4))


def test_shifts_are_drawn_uniformly_but_never_none():
    shift = Shift(0.25, steps=8)
    counts = Counter(shift.sample(torch.Generator().manual_seed(seed), (8, 16)) for seed in range(2400))
    assert (NONE, NONE) not in counts
    assert len(counts) == 24
    assert {down * 64 for down, _ in counts} == {right * 128 for _, right in counts} == {-2, -1, 0, 1, 2}
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 49.7  # chi-square's 0.999 quantile
