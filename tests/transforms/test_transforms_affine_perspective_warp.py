"""Affine, Perspective and Warp one by one: matrices, a pinhole camera and waves, written out anew."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from resampling_signals import coordinates, disc, randn, waves

from eqzoo.transforms import Affine, Compose, Motion, Perspective, Rotate, Shift, Turn, Warp

LINEAR_AFFINE = Affine(interpolation='bilinear')
MOTIONS = [Affine().sample(torch.Generator().manual_seed(seed), (8, 8)) for seed in range(4)]


@pytest.mark.parametrize('angle', [90, 180, -90])
@pytest.mark.parametrize('affine', [Affine(), LINEAR_AFFINE])
def test_quarter_turns_agree_with_rotate(angle, affine):
    x = randn(2, 3, 17, 17)
    turned = affine(x, Motion(angle=float(angle)))
    torch.testing.assert_close(turned, Rotate()(x, angle // 90 % 4), rtol=0, atol=1e-9)


@pytest.mark.parametrize('size', [(24, 24), (20, 32)])
def test_a_turn_alone_agrees_with_turn(size):
    x = randn(1, 2, *size)
    torch.testing.assert_close(Affine()(x, Motion(angle=33.0)), Turn()(x, 33.0), rtol=0, atol=1e-9)
    assert torch.equal(Affine().mask(size, Motion(angle=33.0)), Turn().mask(size, 33.0))


@pytest.mark.parametrize(('down', 'right'), [(1, 0), (-2, 3), (0, -5)])
def test_whole_shifts_agree_with_shift_including_the_border(down, right):
    x = randn(1, 2, 8, 16)
    wanted = Shift()(x, (Fraction(down, 8), Fraction(right, 16)))
    torch.testing.assert_close(Affine()(x, Motion(shift=(down / 8, right / 16))), wanted, rtol=0, atol=1e-9)


def test_half_the_size_is_average_pooling_with_a_mirrored_border():
    x = randn(1, 2, 8, 12)
    small = F.avg_pool2d(x, 2)
    mirrored = torch.cat([small[:, :, :2].flip(2), small, small[:, :, 2:].flip(2)], dim=2)
    mirrored = torch.cat([mirrored[..., :3].flip(3), mirrored, mirrored[..., 3:].flip(3)], dim=3)
    torch.testing.assert_close(LINEAR_AFFINE(x, Motion(zoom=0.5)), mirrored, rtol=0, atol=1e-12)


def test_twice_the_size_agrees_with_interpolate():
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
def test_a_spot_above_the_centre_moves_as_expected(motion, to):
    spot = disc(33, 16, 15.5 - 6, width=1.5)[..., :32, :]  # the centre is (15.5, 16)
    moved = Affine()(spot, motion) * Affine().mask((32, 33), motion)  # without mirror images of it
    row, column = divmod(int(moved.argmax()), 33)
    assert abs(row - 15.5 - to[1]) <= 1
    assert abs(column - 16 - to[0]) <= 1


@pytest.mark.parametrize('motion', MOTIONS)
@pytest.mark.parametrize('size', [(32, 32), (24, 48)])
def test_a_full_motion_is_the_product_of_its_matrices(motion, size):
    """Computed independently in the plane's coordinates, x to the right and y upwards."""
    angle, lean = math.radians(motion.angle), math.radians(motion.shear)
    turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    shear = [[1, math.tan(lean)], [0, 1]]
    zoom = [[motion.zoom / math.sqrt(motion.stretch), 0], [0, motion.zoom * math.sqrt(motion.stretch)]]
    matrix = torch.linalg.multi_dot([torch.tensor(each, dtype=torch.float64) for each in (turn, shear, zoom)])
    rows, columns = LINEAR_AFFINE(coordinates(*size), motion)[0]
    inside = LINEAR_AFFINE.mask(size, motion)
    assert inside.sum() > 200
    source = torch.stack([columns - (size[1] - 1) / 2, (size[0] - 1) / 2 - rows])[:, inside]
    x, y = matrix @ source
    across = (size[1] - 1) / 2 + x + motion.shift[1] * size[1]
    down = (size[0] - 1) / 2 - y + motion.shift[0] * size[0]
    wanted = coordinates(*size)[0][:, inside]
    torch.testing.assert_close(torch.stack([down, across]), wanted, rtol=0, atol=1e-9)


def test_a_turn_of_a_rectangle_keeps_distances_in_pixels():
    rows, columns = LINEAR_AFFINE(coordinates(24, 48), Motion(angle=20.0))[0]
    inside = LINEAR_AFFINE.mask((24, 48), Motion(angle=20.0))
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


LINEAR_PERSPECTIVE = Perspective(interpolation='bilinear')
VIEWS = [(30.0, 0.0), (30.0, 90.0), (-20.0, 45.0), (25.0, 200.0)]


class Back(Perspective):
    """The inverse: sources are the points where the camera sees them, by the formula in Perspective's docstring."""

    def sources(self, rows, columns, size, view):
        angle, direction = (math.radians(each) for each in view)
        middle = [(side - 1) / 2 for side in size]
        right, up = columns - middle[1], middle[0] - rows
        along = right * math.cos(direction) + up * math.sin(direction)
        across = up * math.cos(direction) - right * math.sin(direction)
        distance = max(size) / 2 / math.tan(math.radians(self.field_of_view / 2))
        depth = distance - along * math.sin(angle)
        along, across = distance * along * math.cos(angle) / depth, distance * across / depth
        right = along * math.cos(direction) - across * math.sin(direction)
        up = along * math.sin(direction) + across * math.cos(direction)
        return middle[0] - up, middle[1] + right


def straightness(transform, params, row, size=(64, 64)):
    """Follow a horizontal edge; return its slope, and its largest distance from a straight line in cells."""
    rows = transform(coordinates(*size), params)[0, 0]
    seen = []
    for column in range(12, size[1] - 12):
        below = int((rows[:, column] < row).sum())
        before, after = rows[below - 1, column], rows[below, column]
        seen.append(float(below - 1 + (row - before) / (after - before)))
    columns = np.arange(12, size[1] - 12)
    line = np.polyfit(columns, seen, 1)
    return line[0], np.abs(np.polyval(line, columns) - seen).max()


@pytest.mark.parametrize('direction', [0.0, 77.0])
def test_straight_on_is_the_identity(direction):
    x = randn(1, 2, 16, 24)
    torch.testing.assert_close(Perspective()(x, (0.0, direction)), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('size', [(40, 40), (24, 48)])
def test_it_agrees_with_a_pinhole_camera(view, size):
    """Computed from points in space, a camera that looks at the centre, and a division by depth."""
    rows, columns = LINEAR_PERSPECTIVE(coordinates(*size), view)[0]
    inside = LINEAR_PERSPECTIVE.mask(size, view)
    assert inside.sum() > 0.4 * inside.numel()
    points = torch.stack([columns - (size[1] - 1) / 2, (size[0] - 1) / 2 - rows, torch.zeros_like(rows)])[:, inside]
    angle, direction = (math.radians(each) for each in view)
    towards = [math.cos(direction), math.sin(direction)]
    camera = torch.tensor([*(math.sin(angle) * each for each in towards), math.cos(angle)], dtype=torch.float64)
    along = torch.tensor([*(math.cos(angle) * each for each in towards), -math.sin(angle)], dtype=torch.float64)
    across = torch.linalg.cross(camera, along)
    distance = max(size) / 2 / math.tan(math.radians(25))
    depth = distance - camera @ points
    s, t = distance * (along @ points) / depth, distance * (across @ points) / depth
    right, up = towards[0] * s - towards[1] * t, towards[1] * s + towards[0] * t
    seen = torch.stack([(size[0] - 1) / 2 - up, (size[1] - 1) / 2 + right])
    torch.testing.assert_close(seen, coordinates(*size)[0][:, inside], rtol=0, atol=1e-9)


def test_the_near_side_is_larger():
    """Seen from the right, the right side is magnified vertically and the left side is not."""
    rows = LINEAR_PERSPECTIVE(coordinates(32, 32), (30.0, 0.0))[0, 0]
    steps = rows.diff(dim=0)[15]  # at the centre's height
    assert steps[28] < 0.87 < 1 < steps[4]
    assert (steps[2:-2].diff() < 0).all()


def test_edges_stay_straight_but_not_parallel():
    """Warp, which bends them, and Affine, which keeps them parallel, are the counter-examples."""
    slopes, errors = zip(
        *[straightness(LINEAR_PERSPECTIVE, (30.0, 20.0), row) for row in (16.3, 31.5, 45.2)], strict=True
    )
    assert max(errors) < 0.02  # rows are followed in straight steps of one cell along a curve
    assert slopes[2] - slopes[0] > 0.1
    affine = Affine(interpolation='bilinear')
    parallel = [straightness(affine, Motion(angle=10.0, shear=5.0), row) for row in (16.3, 45.2)]
    assert max(error for _, error in parallel) < 1e-9
    assert abs(parallel[0][0] - parallel[1][0]) < 1e-9
    bent = ((0.0, 0.0, 0.0, 0.05, 0.0, 0.0), (0.0,) * 6)  # by one wave over the width
    assert straightness(Warp(interpolation='bilinear'), bent, 31.5)[1] > 1


@pytest.mark.parametrize('view', VIEWS)
@pytest.mark.parametrize('size', [(64, 64), (48, 80)])
def test_its_inverse_takes_it_back_inside_the_mask(view, size):
    """Up to the error of two resamplings by torch's bicubic (a = -0.75), as in the test of Turn."""
    x = waves(*size)
    both = Compose([Perspective(), Back()])
    inside = both.mask(size, (view, view))
    assert inside.sum() > 0.5 * inside.numel()
    assert (both(x, (view, view)) - x)[..., inside].abs().max() < 1.5e-2
    assert (Perspective()(x, view) - x)[..., inside].abs().max() > 0.3
    assert (both(x, (view, (-view[0], view[1]))) - x)[..., inside].abs().max() > 0.05  # the other side is not back


@pytest.mark.parametrize('angle', [10.0, 30.0])
def test_all_directions_are_equivalent(angle):
    x = randn(1, 2, 20, 32)
    right, up, left, below = (Perspective()(x, (angle, direction)) for direction in (0.0, 90.0, 180.0, 270.0))
    flipped = Perspective()(x.flip(3), (angle, 0.0)).flip(3)
    torch.testing.assert_close(left, flipped, rtol=0, atol=1e-9)
    torch.testing.assert_close(Perspective()(x, (-angle, 0.0)), left, rtol=0, atol=1e-9)
    turned = Perspective()(x.rot90(-1, (2, 3)), (angle, 0.0)).rot90(1, (2, 3))
    torch.testing.assert_close(up, turned, rtol=0, atol=1e-9)
    torch.testing.assert_close(below, Perspective()(x.flip(2), (angle, 90.0)).flip(2), rtol=0, atol=1e-9)
    assert (right - up).abs().max() > 0.1


def test_draws_go_in_all_directions():
    generator = torch.Generator().manual_seed(0)
    angles, directions = torch.tensor([Perspective(20).sample(generator, (8, 8)) for _ in range(1000)]).T
    for values, high in ((angles, 20), (directions, 360)):
        assert 0 <= values.min() <= values.max() < high
        counts = values.histc(10, 0, high)
        assert ((counts - 100) ** 2 / 100).sum() < 27.9  # chi-square's 0.999 quantile at 9


def test_the_horizon_is_never_near():
    """At the largest allowed angle, sources are less than twice as far away as for an affine map, in any direction."""
    widest = Perspective(math.degrees(math.atan(0.5 / math.sqrt(2))) - 1e-9, field_of_view=90, eval_angles=(5,))
    ends = torch.tensor([0.0, 31.0], dtype=torch.float64)
    for direction in range(0, 360, 15):
        rows, columns = widest.sources(ends[:, None], ends, (32, 32), (widest.max_angle, float(direction)))
        flat = torch.hypot(rows - 15.5, columns - 15.5) * math.cos(math.radians(widest.max_angle))
        assert flat.max() < 2 * 15.5 * math.sqrt(2)


LINEAR_WARP = Warp(interpolation='bilinear')
NONE = ((0.0,) * 6, (0.0,) * 6)
ORDER = [(1, 0), (1, 1), (2, 0), (1, 2), (2, 1), (3, 0)]  # of m and n for three modes


def patterns(warp, count=20):
    """Return the cases and some draws."""
    draws = [warp.sample(torch.Generator().manual_seed(seed), (8, 8)) for seed in range(count)]
    return [*warp.cases((8, 8)).values(), *draws]


def determinants(warp, pattern, size=(48, 64)):
    """Return the determinants of the sources' Jacobian over the whole picture, including the borders."""
    rows, columns = (torch.linspace(-0.5, side - 0.5, 2 * side, dtype=torch.float64) for side in size)
    rows, columns = (place.clone().requires_grad_() for place in torch.meshgrid(rows, columns, indexing='ij'))
    sources = warp.sources(rows, columns, size, pattern)
    down, right = (torch.autograd.grad(source.sum(), (rows, columns), retain_graph=True) for source in sources)
    return down[0] * right[1] - down[1] * right[0]


def test_no_amplitude_is_the_identity():
    x = randn(1, 2, 16, 24)
    torch.testing.assert_close(Warp()(x, NONE), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize('wave', range(6))
@pytest.mark.parametrize('size', [(32, 32), (24, 40)])
def test_each_wave_follows_the_formula(wave, size):
    m, n = ORDER[wave]
    alone = tuple(0.05 * (wave == each) for each in range(6))
    for dim, pattern in ((0, (alone, NONE[1])), (1, (NONE[0], alone))):
        inside = LINEAR_WARP.mask(size, pattern)
        moved = LINEAR_WARP(coordinates(*size), pattern)[0] - coordinates(*size)[0]
        places = [(torch.arange(side, dtype=torch.float64) + 0.5) / side for side in size]
        grids = torch.meshgrid(*places, indexing='ij')
        wanted = 0.05 * size[dim] * torch.sin(math.pi * m * grids[dim]) * torch.cos(math.pi * n * grids[1 - dim])
        torch.testing.assert_close(moved[dim][inside], wanted[inside], rtol=0, atol=1e-9)
        torch.testing.assert_close(moved[1 - dim][inside], torch.zeros(int(inside.sum())).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize('modes', [1, 2, 3, 5])
def test_sources_never_fold_up_to_the_limit(modes):
    limit = sum(1 / k for k in range(1, modes + 1)) / (math.pi * modes)
    warp = Warp(0.999 * limit, modes=modes, eval_amplitudes=(0.999 * limit,))
    for pattern in patterns(warp):
        assert determinants(warp, pattern).min() > 0
        rows, columns = warp.sources(*coordinates(64, 64)[0], (64, 64), pattern)
        assert (rows.diff(dim=0) > 0).all()
        assert (columns.diff(dim=1) > 0).all()


def test_beyond_the_limit_it_folds():
    """The counter-example; with one mode the limit is sharp: v + sin(π v) / π is level at the border."""
    warp = Warp(0.318, modes=1, eval_amplitudes=(0.318,))  # 1/π is 0.3183
    ((pattern, _),) = warp.cases((8, 8)).values()
    assert 0 < determinants(warp, (pattern, (0.0,))).min() < 2e-3
    assert determinants(warp, ((0.32,), (0.0,))).min() < 0
    tripled = tuple(tuple(3 * each for each in part) for part in Warp().cases((8, 8))['0.15'])
    assert determinants(Warp(), tripled).min() < 0


def test_the_border_stays_on_the_border():
    """Nothing enters from outside: corners stay, and points of a side move along it."""
    for pattern in patterns(Warp()):
        rows, columns = LINEAR_WARP.sources(
            *torch.meshgrid(torch.tensor([-0.5, 31.5]).double(), torch.arange(48).double() - 0.5, indexing='ij'),
            (32, 48),
            pattern,
        )
        torch.testing.assert_close(rows, torch.tensor([[-0.5], [31.5]]).double().expand(2, 48), rtol=0, atol=1e-12)
        assert (columns >= -0.5 - 1e-12).all()
        assert (columns <= 47.5).all()
        assert columns[:, 0].tolist() == pytest.approx([-0.5, -0.5])
        assert (columns - torch.arange(48) + 0.5).abs().max() > 0.1


@pytest.mark.parametrize('size', [(16, 16), (24, 40)])
def test_the_mask_leaves_out_only_the_outermost_cells(size):
    for pattern in patterns(Warp()):
        mask = Warp().mask(size, pattern)
        sources = Warp().sources(*coordinates(*size)[0], size, pattern)
        edge = torch.stack([torch.minimum(s, side - 1 - s) for s, side in zip(sources, size, strict=True)]).amin(dim=0)
        assert mask[edge > 1.4].all()  # and no more, as squares of cells reach no further than 0.9 · 1.8 · √2 / 2
        assert not mask[edge < 0.99].any()


def test_displacements_reach_but_never_exceed_the_amplitude():
    """Draws usually reach half of it, and the evaluation's pattern four fifths."""
    moved = []
    for pattern in patterns(Warp(), count=200):
        rows, columns = Warp().sources(*coordinates(64, 64)[0], (64, 64), pattern)
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
