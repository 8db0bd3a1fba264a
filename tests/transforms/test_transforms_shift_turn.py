"""Shift and Turn: exact cases, agreement with scipy, masks, and refused arguments."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from resampling_signals import disc, randn

from eqzoo.transforms import Choice, Compose, Flip, IsotropicScale, Rotate, Shift, Turn
from eqzoo.transforms.base import valid_area

NONE = Fraction(0)


def test_constants_stay_constant():
    x = torch.full((1, 2, 16, 24), 0.7, dtype=torch.float64)
    for transform in (Shift(), Shift(interpolation='bilinear'), Turn(), Turn(interpolation='bilinear')):
        for params in transform.cases((8, 12)).values():
            torch.testing.assert_close(transform(x, params), x, rtol=0, atol=1e-12)


def test_every_argument_changes_something():
    x = randn(1, 1, 16, 16)
    params = (Fraction(1, 32), NONE)
    assert not torch.allclose(Shift()(x, params), Shift(interpolation='bilinear')(x, params))
    assert not torch.allclose(Turn()(x, 20.0), Turn(interpolation='bilinear')(x, 20.0))
    assert Shift(eval_shifts=(0.5,)).cases((4, 8)) == {'0.5': (Fraction(1, 8), Fraction(1, 16))}
    assert Turn(eval_angles=(10,)).cases((4, 8)) == {'10': 10.0}
    drawn = [Shift(2, steps=1).sample(torch.Generator().manual_seed(seed), (8, 8))[0] for seed in range(200)]
    assert set(drawn) == {Fraction(k, 8) for k in range(-2, 3)}


@pytest.mark.parametrize('transform', [Shift(), Shift(interpolation='bilinear'), Turn()])
def test_half_precision_is_resampled_in_single(transform):
    x = randn(1, 2, 16, 16).to(torch.bfloat16)
    (_, params), *_ = transform.cases((16, 16)).items()
    assert torch.equal(transform(x, params), transform(x.float(), params).to(torch.bfloat16))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Shift(0.1), 'Shift.maximum must be at least 1/8 cell, the smallest step, got 0.1'),
        (lambda: Shift(math.nan), 'Shift.maximum must be a number above 0, got nan'),
        (lambda: Shift(steps=0), 'Shift.steps must be at least 1, got 0'),
        (
            lambda: Shift(interpolation='bicubic'),
            r"Shift.interpolation must be 'fourier' or 'bilinear', got 'bic",
        ),
        (lambda: Shift(eval_shifts=()), r'Shift.eval_shifts must be .*, got \(\)'),
        (lambda: Shift(eval_shifts=(0, 1)), r'Shift.eval_shifts must be .*, got \(0, 1\)'),
        (lambda: Shift()(torch.zeros(1, 1, 4, 4), (Fraction(1), NONE)), 'Shift: 1 of the side; shifts must be shorter'),
        (lambda: Turn(0), r'Turn.maximum must be in \(0, 180\], got 0'),
        (lambda: Turn(interpolation='fourier'), r"Turn.interpolation must be 'bicubic' or 'bilinear'"),
        (lambda: Turn(eval_angles=30), 'Turn.eval_angles must be a list of one or more numbers, got 30'),
        (lambda: Turn(eval_angles=(30, 360)), r'Turn.eval_angles must be .* got \(30, 360\)'),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


SIDE = 32


def cosine(frequency, moved=0.0):
    """Return a cosine that continues smoothly in a mirrored border, moved to the right by `moved` cells, (1, 1, 4, SIDE)."""
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
    """Exact below Nyquist's frequency, also at the border: the only signal whose shift is known everywhere."""
    moved = Shift()(cosine(frequency), (NONE, cells / SIDE))
    torch.testing.assert_close(moved, cosine(frequency, float(cells)), rtol=0, atol=1e-12)


@pytest.mark.parametrize('shift', [Fraction(1, 64), Fraction(-5, 128), Fraction(3, 32)])
def test_fourier_shifts_a_smooth_spot_correctly(shift):
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
def test_whole_shifts_add_up_inside_the_mask(first, second, interpolation):
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


def test_fractional_shifts_add_up_to_a_whole_one():
    """Far from the border, which is mirrored at each step; bilinear blurs at each step."""
    places = torch.arange(64, dtype=torch.float64)
    bell = torch.exp(-((places - 31) ** 2) / 18).expand(1, 1, 4, 64)
    errors = {}
    for interpolation in ('fourier', 'bilinear'):
        shift = Shift(interpolation=interpolation)
        moved = shift(shift(bell, (NONE, Fraction(1, 256))), (NONE, Fraction(3, 256)))
        errors[interpolation] = (moved - bell.roll(1, dims=3)).abs().max()
    assert errors['fourier'] < 1e-9
    assert errors['bilinear'] > 1e-3


def test_the_opposite_shift_undoes_a_fourier_shift():
    spot = disc(64, 30.0, 33.0)
    there = Shift()(spot, (Fraction(1, 200), Fraction(1, 300)))
    torch.testing.assert_close(Shift()(there, (Fraction(-1, 200), Fraction(-1, 300))), spot, rtol=0, atol=1e-9)


def test_a_shift_of_latents_is_a_shift_of_images():
    """Shifts are parts of the side: one cell of an 8 x 8 grid is 4 pixels of 32."""
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


@pytest.mark.parametrize('angle', [90, 180, 270, -90])
@pytest.mark.parametrize('interpolation', ['bicubic', 'bilinear'])
def test_quarter_turns_agree_with_rotate(angle, interpolation):
    x = randn(2, 3, 17, 17)
    turned = Turn(interpolation=interpolation)(x, float(angle))
    torch.testing.assert_close(turned, Rotate()(x, angle // 90 % 4 or 4), rtol=0, atol=1e-9)


@pytest.mark.parametrize('angle', [7.0, -33.0, 120.0])
@pytest.mark.parametrize('sides', [(40, 40), (32, 48)])
def test_bilinear_turns_agree_with_scipy(angle, sides):
    x = randn(1, 1, *sides)
    theirs = scipy.ndimage.rotate(x[0, 0].numpy(), angle, reshape=False, order=1, mode='mirror')
    turn = Turn(interpolation='bilinear')
    inside = turn.mask(sides, angle)
    assert inside.sum() > 300
    ours = turn(x, angle)[0, 0]
    np.testing.assert_allclose(ours[inside], theirs[inside], rtol=0, atol=1e-9)


def test_bicubic_is_closer_to_the_truth_than_bilinear():
    spot, angle = disc(48, 30.0, 20.0, width=2.0), math.radians(25)
    across, down = 30 - 23.5, 20 - 23.5  # from the centre
    wanted = disc(
        48,
        23.5 + math.cos(angle) * across + math.sin(angle) * down,  # counter-clockwise, with rows downwards
        23.5 - math.sin(angle) * across + math.cos(angle) * down,
        width=2.0,
    )
    errors = [(Turn(interpolation=each)(spot, 25.0) - wanted).abs().max() for each in ('bicubic', 'bilinear')]
    assert errors[0] < 0.02 < errors[1] < 0.1


@pytest.mark.parametrize(('interpolation', 'limit'), [('bicubic', 6e-3), ('bilinear', 1.2e-2)])
def test_a_small_turn_is_undone_by_its_opposite_inside_the_mask(interpolation, limit):
    """Up to the error of two resamplings: torch's bicubic (a = -0.75) is not exact even on ramps."""
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


def test_angles_are_drawn_uniformly_to_both_sides():
    generator = torch.Generator().manual_seed(0)
    angles = torch.tensor([Turn(30).sample(generator, (8, 8)) for _ in range(2000)])
    assert angles.abs().max() < 30
    counts = angles.histc(10, -30, 30)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square's 0.999 quantile at 9


def differs(transform, params, size, seed=0):
    """Return where a transformed image depends on pixels beyond its border, by comparison with a larger image."""
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
def test_a_shifts_mask_is_exact(cells, size):
    shift = Shift(interpolation='bilinear', eval_shifts=(cells,))
    (params,) = shift.cases(size).values()
    assert torch.equal(shift.mask(size, params), ~differs(shift, params, size))


def test_a_turns_mask_by_hand():
    """A half turn removes the outermost cells; at 45 degrees the corners are removed."""
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
def test_a_turns_mask_leaves_out_the_filled_border_and_little_more(size, angle, interpolation):
    turn = Turn(interpolation=interpolation)
    came_in, mask = differs(turn, angle, size), turn.mask(size, angle)
    assert came_in.any()
    assert not (came_in & mask).any()
    wasted = ~came_in & ~mask
    assert wasted.sum() < 2 * sum(size) * 1.5  # a cell or so around


def test_the_mask_of_latents_covers_only_valid_pixels():
    """The mask of latents is valid for all pixels that an encoder sees, 8 x 8 per cell."""
    for angle in (5.0, 30.0, 45.0):
        pixels = Turn().mask((128, 128), angle)
        whole = F.avg_pool2d(pixels[None, None].float(), 8)[0, 0] == 1
        assert not (Turn().mask((16, 16), angle) & ~whole).any()


def test_exact_transforms_have_no_mask():
    for transform in (Rotate(), Flip(), IsotropicScale()):
        (_, params), *_ = transform.cases((8, 8)).items()
        assert valid_area(transform, (8, 8), params) is None


def test_a_choice_has_the_mask_of_the_drawn_transform():
    choice = Choice([Rotate(), Shift()])
    params = (Fraction(1, 8), NONE)
    assert choice.mask((8, 8), (0, 1)) is None
    assert torch.equal(choice.mask((8, 8), (1, params)), Shift().mask((8, 8), params))


def test_a_composed_mask_leaves_out_everything_filled_in():
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
