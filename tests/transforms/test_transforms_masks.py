"""Masks of Shift and Turn, alone, chosen and composed: what came in from outside is left out, and little more."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from signals import randn

from eqzoo.transforms import Choice, Compose, Flip, IsotropicScale, Rotate, Shift, Turn
from eqzoo.transforms.base import valid_area

NONE = Fraction(0)


def differs(transform, params, size, seed=0):
    """Where a transformed image depends on what is beyond its border, as a larger image shows."""
    margin = 48
    large = randn(1, 1, size[0] + 2 * margin, size[1] + 2 * margin, seed=seed)
    inner = large[..., margin:-margin, margin:-margin]
    scaled = params
    if isinstance(transform, Shift):  # parts of the side: the same number of cells
        scaled = tuple(p * side / (side + 2 * margin) for p, side in zip(params, size, strict=True))
    outer = transform(large, scaled)[..., margin:-margin, margin:-margin]
    return ((transform(inner, params) - outer).abs() > 1e-9)[0, 0]


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


@pytest.mark.parametrize('size', [(24, 24), (20, 32)])
@pytest.mark.parametrize('cells', [1, 2.5, -0.25, -3])
def test_a_shifts_mask_is_exactly_what_did_not_come_in(cells, size):
    shift = Shift(interpolation='bilinear', eval_shifts=(cells,))
    (params,) = shift.cases(size).values()
    assert torch.equal(shift.mask(size, params), ~differs(shift, params, size))


def test_a_turns_mask_by_hand():
    """A half turn takes off the outermost cells; at 45 degrees the middle stays and the corners go."""
    half = Turn().mask((5, 6), 180.0)
    assert half.sum() == 3 * 4
    assert half[1:-1, 1:-1].all()
    diagonal = Turn().mask((9, 9), 45.0)
    places = torch.arange(9) - 4
    # |row| + |column| at most 3 √2 = 4.24, as sources are 3 cells or less from the middle
    assert torch.equal(diagonal, places[:, None].abs() + places.abs() <= 4)


@pytest.mark.parametrize('interpolation', ['bicubic', 'bilinear'])
@pytest.mark.parametrize('angle', [5.0, 45.0, -100.0])
@pytest.mark.parametrize('size', [(24, 24), (20, 32)])
def test_a_turns_mask_leaves_out_all_that_came_in_and_little_more(size, angle, interpolation):
    turn = Turn(interpolation=interpolation)
    came_in, mask = differs(turn, angle, size), turn.mask(size, angle)
    assert came_in.any()
    assert not (came_in & mask).any()
    wasted = ~came_in & ~mask
    assert wasted.sum() < 2 * sum(size) * 1.5  # a cell or so around


def test_a_cells_whole_square_of_pixels_is_inside():
    """The mask of latents holds for what an encoder sees of the image: 8 x 8 pixels."""
    for angle in (5.0, 30.0, 45.0):
        pixels = Turn().mask((128, 128), angle)
        whole = F.avg_pool2d(pixels[None, None].float(), 8)[0, 0] == 1
        assert not (Turn().mask((16, 16), angle) & ~whole).any()


def test_exact_transforms_have_no_mask():
    for transform in (Rotate(), Flip(), IsotropicScale()):
        (_, params), *_ = transform.cases((8, 8)).items()
        assert valid_area(transform, (8, 8), params) is None


def test_a_choices_mask_is_the_drawn_ones():
    choice = Choice([Rotate(), Shift()])
    params = (Fraction(1, 8), NONE)
    assert choice.mask((8, 8), (0, 1)) is None
    assert torch.equal(choice.mask((8, 8), (1, params)), Shift().mask((8, 8), params))


def test_a_composed_mask_leaves_out_what_any_of_them_filled_in():
    compose = Compose([Turn(interpolation='bilinear'), Shift(interpolation='bilinear'), Rotate()])
    params = (20.0, (Fraction(3, 32), Fraction(1, 32)), 1)
    mask = compose.mask((32, 32), params)
    # pixels that came in, made known: a value that no image has
    turned = Turn(interpolation='bilinear')
    x = turned.mask((32, 32), 20.0)[None, None].double()  # 1 where valid, 0 where not
    shifted = Shift(interpolation='bilinear')(x, params[1])[0, 0]
    valid = (shifted == 1) & Shift().mask((32, 32), params[1])
    valid = valid.rot90(1)
    assert not (mask & ~valid).any()
    assert mask.sum() > 0.7 * valid.sum()
    assert Compose([Rotate(), Flip()]).mask((8, 4), (1, 'vertical')).all()
    assert Compose([Rotate(), Flip()]).mask((8, 4), (1, 'vertical')).shape == (4, 8)
