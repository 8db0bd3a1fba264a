"""Laws of Shift and Turn: shifts add up, cosines move exactly, turns are undone inside the mask."""

import math
from fractions import Fraction

import pytest
import torch

from eqzoo.transforms import Shift, Turn

NONE = Fraction(0)
SIDE = 32


def cosine(frequency, moved=0.0):
    """What the mirrored border goes on with smoothly, moved to the right by `moved` cells, (1, 1, 4, SIDE)."""
    places = torch.arange(SIDE, dtype=torch.float64) + 0.5 - moved
    return torch.cos(math.pi * frequency / SIDE * places).expand(1, 1, 4, SIDE)


@pytest.mark.parametrize('frequency', [0, 1, 5, 31])
@pytest.mark.parametrize('cells', [Fraction(1, 2), Fraction(-9, 4), Fraction(3)])
def test_fourier_moves_mirrored_cosines_exactly(cells, frequency):
    """All below Nyquist's frequency, at the border too: the one signal whose shift is known everywhere."""
    moved = Shift()(cosine(frequency), (NONE, cells / SIDE))
    torch.testing.assert_close(moved, cosine(frequency, float(cells)), rtol=0, atol=1e-12)


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


@pytest.mark.parametrize(
    ('down', 'right', 'rows', 'columns'),
    [
        (NONE, NONE, range(4), range(8)),
        (Fraction(1, 4), NONE, range(1, 4), range(8)),
        (Fraction(-2, 4), Fraction(3, 8), range(2), range(3, 8)),
        (NONE, Fraction(5, 16), range(4), range(3, 8)),  # 2.5 cells: the third still takes half from outside
        (NONE, Fraction(-1, 16), range(4), range(7)),
    ],
)
def test_a_shifts_mask_by_hand(down, right, rows, columns):
    wanted = torch.zeros(4, 8, dtype=torch.bool)
    wanted[rows.start : rows.stop, columns.start : columns.stop] = True
    assert torch.equal(Shift().mask((4, 8), (down, right)), wanted)


def test_a_turns_mask_by_hand():
    """A half turn takes off the outermost cells; at 45 degrees the middle stays and the corners go."""
    half = Turn().mask((5, 6), 180.0)
    assert half.sum() == 3 * 4
    assert half[1:-1, 1:-1].all()
    diagonal = Turn().mask((9, 9), 45.0)
    places = torch.arange(9) - 4
    # |row| + |column| at most 3 √2 = 4.24, as sources are 3 cells or less from the middle
    assert torch.equal(diagonal, places[:, None].abs() + places.abs() <= 4)


@pytest.mark.parametrize(('interpolation', 'limit'), [('bicubic', 6e-3), ('bilinear', 1.2e-2)])
def test_a_small_turn_is_undone_by_its_opposite_inside_the_mask(interpolation, limit):
    """Up to the resampler twice: torch's bicubic (a = -0.75) is not exact even on ramps."""
    places = torch.linspace(-1, 1, 48, dtype=torch.float64)
    x = (torch.sin(4 * places[:, None]) * torch.cos(3 * places + 1))[None, None]
    turn = Turn(interpolation=interpolation)
    back = turn(turn(x, 6.0), -6.0)
    inside = turn.mask((48, 48), 6.0) & turn.mask((48, 48), -6.0)
    inside[[0, 1, 2, -3, -2, -1]] = False  # where the way back takes what came in on the way there
    inside[:, [0, 1, 2, -3, -2, -1]] = False
    assert inside.sum() > 1200
    assert (back - x)[..., inside].abs().max() < limit
    assert (turn(x, 6.0) - x)[..., inside].abs().max() > 0.3
    assert (turn(turn(x, 6.0), 6.0) - x)[..., inside].abs().max() > 0.3  # the same way again is not back
