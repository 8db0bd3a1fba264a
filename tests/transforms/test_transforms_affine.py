"""Affine: turns, whole shifts and zooms are what they should be, and all of them the product of their matrices."""

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from signals import coordinates, disc, randn

from eqzoo.transforms import Affine, Motion, Rotate, Shift, Turn

LINEAR = Affine(interpolation='bilinear')
MOTIONS = [Affine().sample(torch.Generator().manual_seed(seed), (8, 8)) for seed in range(4)]


@pytest.mark.parametrize('angle', [90, 180, -90])
@pytest.mark.parametrize('affine', [Affine(), LINEAR])
def test_quarter_turns_are_rotates(angle, affine):
    x = randn(2, 3, 17, 17)
    turned = affine(x, Motion(angle=float(angle)))
    torch.testing.assert_close(turned, Rotate()(x, angle // 90 % 4), rtol=0, atol=1e-9)


@pytest.mark.parametrize('size', [(24, 24), (20, 32)])
def test_a_turn_alone_is_turns(size):
    x = randn(1, 2, *size)
    torch.testing.assert_close(Affine()(x, Motion(angle=33.0)), Turn()(x, 33.0), rtol=0, atol=1e-9)
    assert torch.equal(Affine().mask(size, Motion(angle=33.0)), Turn().mask(size, 33.0))


@pytest.mark.parametrize(('down', 'right'), [(1, 0), (-2, 3), (0, -5)])
def test_a_shift_by_whole_cells_is_shifts_also_what_comes_in(down, right):
    x = randn(1, 2, 8, 16)
    wanted = Shift()(x, (Fraction(down, 8), Fraction(right, 16)))
    torch.testing.assert_close(Affine()(x, Motion(shift=(down / 8, right / 16))), wanted, rtol=0, atol=1e-9)


def test_half_the_size_is_the_mean_of_four_and_its_mirror_image_around():
    x = randn(1, 2, 8, 12)
    small = F.avg_pool2d(x, 2)
    mirrored = torch.cat([small[:, :, :2].flip(2), small, small[:, :, 2:].flip(2)], dim=2)
    mirrored = torch.cat([mirrored[..., :3].flip(3), mirrored, mirrored[..., 3:].flip(3)], dim=3)
    torch.testing.assert_close(LINEAR(x, Motion(zoom=0.5)), mirrored, rtol=0, atol=1e-12)


def test_twice_the_size_is_interpolates():
    x = randn(1, 2, 16, 24)
    wanted = F.interpolate(x, scale_factor=2, mode='bicubic', align_corners=False)[..., 8:-8, 12:-12]
    torch.testing.assert_close(Affine()(x, Motion(zoom=2.0)), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ('motion', 'to'),
    [
        (Motion(shear=45.0), (6, -6)),  # what is above leans to the right
        (Motion(stretch=4.0), (0, -12)),  # taller
        (Motion(zoom=2.0), (0, -12)),
        (Motion(angle=90.0), (-6, 0)),  # counter-clockwise
        (Motion(shift=(0.25, 0.5)), (16, 2)),  # down by 8, right by 16.5
        (Motion(zoom=1.5, angle=90.0), (-9, 0)),
        (Motion(shear=45.0, angle=90.0), (-6, -6)),  # sheared first, then turned
        (Motion(shear=45.0, stretch=4.0), (12, -12)),  # stretched first
    ],
)
def test_a_spot_above_the_centre_goes_where_it_should(motion, to):
    spot = disc(33, 16, 15.5 - 6, width=1.5)[..., :32, :]  # the centre is (15.5, 16)
    moved = Affine()(spot, motion) * Affine().mask((32, 33), motion)  # without mirror images of it
    row, column = divmod(int(moved.argmax()), 33)
    assert abs(row - 15.5 - to[1]) <= 1
    assert abs(column - 16 - to[0]) <= 1


@pytest.mark.parametrize('motion', MOTIONS)
@pytest.mark.parametrize('size', [(32, 32), (24, 48)])
def test_all_together_is_the_product_of_matrices(motion, size):
    """In the plane's coordinates, x to the right and y upwards, written down anew."""
    angle, lean = math.radians(motion.angle), math.radians(motion.shear)
    turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    shear = [[1, math.tan(lean)], [0, 1]]
    zoom = [[motion.zoom / math.sqrt(motion.stretch), 0], [0, motion.zoom * math.sqrt(motion.stretch)]]
    matrix = torch.linalg.multi_dot([torch.tensor(each, dtype=torch.float64) for each in (turn, shear, zoom)])
    rows, columns = LINEAR(coordinates(*size), motion)[0]
    inside = LINEAR.mask(size, motion)
    assert inside.sum() > 200
    source = torch.stack([columns - (size[1] - 1) / 2, (size[0] - 1) / 2 - rows])[:, inside]
    x, y = matrix @ source
    across = (size[1] - 1) / 2 + x + motion.shift[1] * size[1]
    down = (size[0] - 1) / 2 - y + motion.shift[0] * size[0]
    wanted = coordinates(*size)[0][:, inside]
    torch.testing.assert_close(torch.stack([down, across]), wanted, rtol=0, atol=1e-9)


def test_a_turn_of_a_rectangle_keeps_distances_in_pixels():
    rows, columns = LINEAR(coordinates(24, 48), Motion(angle=20.0))[0]
    inside = LINEAR.mask((24, 48), Motion(angle=20.0))
    for dim in (0, 1):
        steps = torch.hypot(rows.diff(dim=dim), columns.diff(dim=dim))
        both = inside.narrow(dim, 1, inside.shape[dim] - 1) & inside.narrow(dim, 0, inside.shape[dim] - 1)
        torch.testing.assert_close(steps[both], torch.ones_like(steps[both]), rtol=0, atol=1e-9)


def test_draws_fill_their_ranges():
    generator = torch.Generator().manual_seed(0)
    affine = Affine(40, min_zoom=0.6, max_zoom=1.5, max_stretch=1.4, max_shear=20, max_shift=0.3)
    drawn = [affine.sample(generator, (8, 8)) for _ in range(1000)]
    shifts = list(zip(*[each.shift for each in drawn], strict=True))
    for values, low, high in [
        ([each.angle for each in drawn], -40, 40),
        ([math.log(each.zoom) for each in drawn], math.log(0.6), math.log(1.5)),
        ([math.log(each.stretch) for each in drawn], -math.log(1.4), math.log(1.4)),
        ([each.shear for each in drawn], -20, 20),
        (shifts[0], -0.3, 0.3),
        (shifts[1], -0.3, 0.3),
    ]:
        assert low <= min(values)
        assert max(values) <= high
        counts = torch.tensor(values).histc(10, low, high)
        assert ((counts - 100) ** 2 / 100).sum() < 27.9  # chi-square's 0.999 quantile at 9
    assert abs(torch.corrcoef(torch.tensor([shifts[0], shifts[1]]))[0, 1]) < 0.1  # three standard deviations of 0.03


def test_cases_are_single_motions_that_are_drawn():
    cases = Affine(max_angle=0, max_stretch=1).cases((8, 8))
    assert cases == {
        'zoom 0.8': Motion(zoom=0.8),
        'zoom 1.25': Motion(zoom=1.25),
        'shear 10': Motion(shear=10.0),
        'shift 0.125': Motion(shift=(0.125, 0.125)),
    }
