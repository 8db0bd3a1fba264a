"""Rotate, Flip, scales, Compose and Choice: their laws, and agreement with the released formulas."""

from collections import Counter
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from eqzoo.transforms import AnisotropicScale, Choice, Compose, Flip, IsotropicScale, Rotate
from eqzoo.transforms.scale import interpolated_by_products

HALF = (Fraction(1, 2), Fraction(1, 2))


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def draws(transform, grid, count):
    generator = torch.Generator().manual_seed(0)
    return [transform.sample(generator, grid) for _ in range(count)]


def test_a_quarter_turn_is_counter_clockwise():
    x = torch.tensor([[[[1, 2], [3, 4]]]])
    assert torch.equal(Rotate()(x, 1), torch.tensor([[[[2, 4], [1, 3]]]]))


def test_turns_form_a_group(x):
    rotate = Rotate()
    assert torch.equal(rotate(rotate(x, 1), 3), x)
    assert torch.equal(rotate(rotate(x, 2), 2), x)
    assert torch.equal(rotate(rotate(x, 1), 1), rotate(x, 2))


def test_the_released_turns_are_ours_in_another_order(x):
    """The release turns clockwise, dims (-1, -2), by k of 1, 2, 3: the same set."""
    rotate = Rotate()
    for k in (1, 2, 3):
        assert torch.equal(torch.rot90(x, k=k, dims=[-1, -2]), rotate(x, 4 - k))


@pytest.mark.parametrize(('axis', 'first_row'), [('horizontal', [2, 1]), ('vertical', [3, 4])])
def test_flips_exchange_sides_and_are_their_own_inverse(axis, first_row):
    x = torch.tensor([[[[1, 2], [3, 4]]]])
    flip = Flip()
    assert flip(x, axis)[0, 0, 0].tolist() == first_row
    assert torch.equal(flip(flip(x, axis), axis), x)


@pytest.mark.parametrize('transform', [Rotate(), Flip()])
def test_exact_transforms_commute_with_pooling(transform):
    x = torch.randint(0, 256, (1, 3, 32, 32)).double()
    for params in transform.cases((8, 8)).values():
        assert torch.equal(transform(F.avg_pool2d(x, 4), params), F.avg_pool2d(transform(x, params), 4))


def test_scaling_does_not_commute_with_pooling_in_general():
    """The counter-example: without it, the test above could not fail."""
    x = torch.randn(1, 3, 32, 32)
    scale = IsotropicScale()
    params = (Fraction(5, 8), Fraction(5, 8))
    error = (scale(F.avg_pool2d(x, 4), params) - F.avg_pool2d(scale(x, params), 4)).abs().max()
    assert error > 0.01


@pytest.mark.parametrize('side', [32, 256])
def test_scaling_is_the_released_formula(side):
    """The release passes scale_factor=s/32, we pass sizes: the same bits, on latents and on images."""
    x = torch.randn(1, 2, side, side)
    for s in range(8, 32):
        released = F.interpolate(x, scale_factor=s / 32, mode='bilinear', align_corners=False)
        assert torch.equal(IsotropicScale()(x, (Fraction(s, 32), Fraction(s, 32))), released)


def test_the_released_scales_break_on_sixteen_cells():
    """At f16, s = 9 makes 4.5 cells: the release rounds down and no longer fits its 72 pixels; we refuse."""
    scales = (Fraction(9, 32), Fraction(9, 32))
    assert IsotropicScale()(torch.zeros(1, 3, 256, 256), scales).shape[2:] == (72, 72)
    assert F.interpolate(torch.zeros(1, 16, 16, 16), scale_factor=9 / 32, mode='bilinear').shape[2:] == (4, 4)
    with pytest.raises(ValueError, match=r'IsotropicScale: 16 x 16 scaled by 9/32 x 9/32 is not whole'):
        IsotropicScale()(torch.zeros(1, 16, 16, 16), scales)


def test_half_a_scale_commutes_with_pooling():
    """Bilinear at one half is the mean of 2 x 2, so both orders are means over the same pixels."""
    x = torch.randint(0, 256, (1, 3, 32, 32)).double()
    scale = IsotropicScale()
    assert torch.equal(scale(F.avg_pool2d(x, 4), HALF), F.avg_pool2d(scale(x, HALF), 4))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('antialias', [False, True])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_half_precision_is_resampled_in_single(interpolation, antialias, dtype):
    x = torch.randn(1, 2, 16, 16).to(dtype)
    scale = IsotropicScale(interpolation=interpolation, antialias=antialias)
    assert torch.equal(scale(x, HALF), scale(x.float(), HALF).to(dtype))


def test_the_released_grid_is_drawn_on_32_cells():
    assert {params[0] for params in draws(IsotropicScale(), (32, 32), 2000)} == {Fraction(s, 32) for s in range(8, 32)}


@pytest.mark.parametrize(('cells', 'ks'), [(16, range(4, 16)), (8, range(2, 8)), (4, range(1, 4)), (6, range(2, 6))])
def test_coarser_grids_have_their_own_scales(cells, ks):
    assert {params[0] for params in draws(IsotropicScale(), (cells, cells), 500)} == {Fraction(k, cells) for k in ks}


def test_scales_are_uniform():
    """4,800 draws of 24 scales: 200 each, standard deviation 13.8; within five of it."""
    counts = Counter(params[0] for params in draws(IsotropicScale(), (32, 32), 4800))
    assert all(abs(count - 200) < 70 for count in counts.values())


@pytest.mark.parametrize(
    ('transform', 'outcomes', 'limit'),  # the chi-square's 0.999 quantile at outcomes - 1 degrees of freedom
    [
        (Rotate(), 3, 13.8),
        (Flip(), 2, 10.8),
        (IsotropicScale(), 6, 20.5),
        (AnisotropicScale(), 36, 66.6),  # of all pairs: each side is uniform and independent of the other
        (Choice([Rotate(turns=(1,)), Rotate(turns=(2,))]), 2, 10.8),
    ],
)
def test_first_draws_of_many_seeds_are_uniform(transform, outcomes, limit):
    """First draws of many seeds, because training seeds a generator for each step."""
    counts = Counter(transform.sample(torch.Generator().manual_seed(seed), (8, 8)) for seed in range(3600))
    expected = 3600 / outcomes
    assert len(counts) == outcomes
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < limit


@pytest.mark.parametrize(('minimum', 'cells', 'lowest'), [(0.28, 25, 7), (0.07, 100, 7), (0.3, 8, 3), (1e-4, 8, 1)])
def test_the_minimum_is_an_exact_decimal(minimum, cells, lowest):
    """As a float, 0.28 * 25 is more than 7 and would start at 8; and no scale is 0."""
    scales = {params[0] for params in draws(IsotropicScale(minimum), (cells, cells), 1500)}
    assert min(scales) == Fraction(lowest, cells)


def test_isotropic_scales_are_equal_and_anisotropic_ones_are_not():
    assert all(vertical == horizontal for vertical, horizontal in draws(IsotropicScale(), (16, 24), 50))
    pairs = draws(AnisotropicScale(), (16, 24), 200)
    assert sum(vertical != horizontal for vertical, horizontal in pairs) > 150
    assert {(16 * v).denominator for v, _ in pairs} == {(24 * h).denominator for _, h in pairs} == {1}


def test_constants_stay_constant():
    x = torch.full((1, 1, 16, 16), 0.7)
    for arguments in (dict(), dict(interpolation='bicubic'), dict(interpolation='bicubic', antialias=True)):
        assert torch.allclose(IsotropicScale(**arguments)(x, HALF), torch.tensor(0.7), rtol=0, atol=1e-6)


def test_a_size_that_is_not_whole_is_refused():
    with pytest.raises(ValueError, match=r'IsotropicScale: 10 x 10 scaled by 1/4 x 1/4 is not whole'):
        IsotropicScale()(torch.zeros(1, 1, 10, 10), (Fraction(1, 4), Fraction(1, 4)))


def test_a_grid_without_scales_is_refused():
    message = (
        r'IsotropicScale: a latent grid of 5 x 7 has no scale k/1 in \[0.25, 1\); use a smaller minimum, or larger'
    )
    with pytest.raises(ValueError, match=message):
        IsotropicScale().sample(torch.Generator(), (5, 7))
    with pytest.raises(ValueError, match=r'AnisotropicScale: a latent grid of 8 x 1 has no scale k/1'):
        AnisotropicScale().sample(torch.Generator(), (8, 1))


@pytest.mark.parametrize('cls', [IsotropicScale, AnisotropicScale])
def test_every_argument_of_a_scale_changes_something(cls, x):
    plain = cls()
    assert not torch.equal(cls(interpolation='bicubic')(x, HALF), plain(x, HALF))
    assert not torch.equal(cls(antialias=True)(x, HALF), plain(x, HALF))
    assert min(params[0] for params in draws(cls(0.5), (32, 32), 300)) == Fraction(1, 2)
    assert cls(eval_scales=(0.5,)).cases((8, 8)) == {'0.5': HALF}
    assert cls(eval_scales=(Fraction(1, 3),)).cases((9, 9)) == {'0.333333': (Fraction(1, 3), Fraction(1, 3))}


def test_scales_of_an_evaluation_are_whole_cells_of_every_grid():
    found = IsotropicScale().cases((9, 9))
    assert found == {name: (Fraction(cells, 9),) * 2 for name, cells in {'0.222': 2, '0.444': 4, '0.778': 7}.items()}
    assert IsotropicScale().cases((2, 2)) == {'0.5': HALF}
    for grid in ((14, 14), (25, 45), (7, 7)):
        latents = torch.zeros(1, 1, *grid)
        assert all(IsotropicScale()(latents, case).numel() for case in IsotropicScale().cases(grid).values())


def test_every_argument_of_rotate_and_flip_changes_something():
    assert {Rotate(turns=(2,)).sample(torch.Generator().manual_seed(i), (8, 8)) for i in range(9)} == {2}
    assert {Flip(axes=('vertical',)).sample(torch.Generator().manual_seed(i), (8, 8)) for i in range(9)} == {'vertical'}


def test_compose_applies_the_first_one_first(x):
    compose = Compose([IsotropicScale(), Rotate()])
    wanted = Rotate()(IsotropicScale()(x, HALF), 1)
    assert torch.equal(compose(x, (HALF, 1)), wanted)


def test_compose_draws_for_the_grid_left_by_earlier_transforms():
    """After a quarter turn 8 x 12 cells are 12 x 8, on which the height's scale is k/12."""
    compose = Compose([Rotate(turns=(1,)), AnisotropicScale()])
    heights = {params[1][0] for params in draws(compose, (8, 12), 300)}
    assert heights == {Fraction(k, 12) for k in range(3, 12)}


def test_scale_then_rotate_is_the_released_formula():
    """Scale by s/32, then rot90 with dims (-1, -2), which is clockwise: our turn 4 - k."""
    x = torch.randn(1, 4, 32, 32)
    compose = Compose([IsotropicScale(), Rotate()])
    for s, k in [(8, 1), (13, 2), (31, 3)]:
        scaled = F.interpolate(x, scale_factor=s / 32, mode='bilinear', align_corners=False)
        released = torch.rot90(scaled, k=k, dims=[-1, -2])
        assert torch.equal(compose(x, ((Fraction(s, 32), Fraction(s, 32)), 4 - k)), released)


def test_compose_keeps_what_an_iterator_yields():
    assert len(Compose(iter([Rotate(), Flip()])).transforms) == 2


def test_choice_numbers_cases_of_two_transforms_of_one_class():
    choice = Choice([IsotropicScale(eval_scales=(0.5,)), Flip(axes=('vertical',)), IsotropicScale(eval_scales=(0.5,))])
    assert choice.cases((8, 8)) == {
        'IsotropicScale[0] 0.5': (0, HALF),
        'Flip vertical': (1, 'vertical'),
        'IsotropicScale[2] 0.5': (2, HALF),
    }


def test_the_order_of_a_set_does_not_matter():
    """Sets of strings are ordered differently in each process, but draws must be the same."""
    assert Flip(axes={'vertical', 'horizontal'}).axes == Flip(axes=['vertical', 'horizontal']).axes == Flip().axes
    assert Rotate(turns={3, 1}).turns == Rotate(turns=[3, 1]).turns == (1, 3)


def test_choice_draws_by_weight(x):
    choice = Choice([Rotate(), Flip()], weights=(3, 1))
    picks = Counter(index for index, _ in draws(choice, (8, 8), 2000))
    assert picks[0] / 2000 == pytest.approx(0.75, abs=0.03)  # three standard deviations of 0.0097
    assert torch.equal(choice(x, (1, 'horizontal')), x.flip(3))
    assert list(choice.cases((8, 8))) == ['Rotate 90', 'Rotate 180', 'Rotate 270', 'Flip horizontal', 'Flip vertical']


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Rotate(turns=(0,)), r'Rotate.turns\[0\] must be 1, 2 or 3, got 0\.'),
        (lambda: Rotate(turns=()), r'Rotate.turns must be a list of one or more items, each 1, 2 or 3, got \(\)'),
        (lambda: Rotate(2), r'Rotate.turns must be a list of one or more items, each 1, 2 or 3, got 2\.'),
        (lambda: Flip(axes=('diagonal',)), r"Flip.axes\[0\] must be 'horizontal' or 'vertical', got 'diagonal'"),
        (lambda: Flip(axes='horizontal'), r"Flip.axes must be a list of one or more items.*, got 'horizontal'\."),
        (lambda: IsotropicScale(1.5), r'IsotropicScale.minimum must be in \(0, 1\), got 1.5'),
        (
            lambda: AnisotropicScale(interpolation='cubic'),
            r"AnisotropicScale.interpolation must be 'bilinear' or 'bicubic'",
        ),
        (
            lambda: IsotropicScale(eval_scales=(2,)),
            r'IsotropicScale.eval_scales.* must be .*in \(0, 1\)',
        ),
        (lambda: Compose([]), r'Compose.transforms must hold at least one transform'),
        (
            lambda: IsotropicScale(eval_scales=0.5),
            r'IsotropicScale.eval_scales must be a list of one or more numbers in \(0, 1\), got 0.5',
        ),
        (lambda: Choice([Rotate()], weights=(1, 2)), r'Choice.weights must be 1 positive numbers, got \(1, 2\)'),
        (
            lambda: Choice([Rotate()], weights=(float('nan'),)),
            r'Choice.weights\[0\] must be a number above 0, got nan',
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('cls', [Compose, Choice])
def test_parts_that_are_no_transforms_are_refused(cls):
    name = cls.__name__
    with pytest.raises(
        ValueError,
        match=rf'{name}.transforms\[1\] must be a component \(EquivarianceTransform\), dict\(type=…\), got 3',
    ):
        cls([Rotate(), 3])
    with pytest.raises(ValueError, match=rf'{name}.transforms\[0\] must be a transform .*, got <class .*Rotate'):
        cls([Rotate])
    with pytest.raises(ValueError, match=rf'{name}.transforms must be a list of components .*, got Rotate\('):
        cls(Rotate())


@pytest.mark.parametrize('antialias', [False, True])
@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
def test_scaling_by_products_is_torchs_interpolation_with_its_gradient(mode, antialias):
    options, found = dict(mode=mode, antialias=antialias, align_corners=False), []
    start = torch.randn(2, 3, 16, 12, dtype=torch.float64)
    for scale in (interpolated_by_products, F.interpolate):
        x = start.clone().requires_grad_()
        y = scale(x, (5, 12), **options)
        y.pow(3).sum().backward()
        found.append((y.detach(), x.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
