"""Perspective: a pinhole camera's pictures of a plane; straight lines, the inverse, and all directions alike."""

import math

import numpy as np
import pytest
import torch
from signals import coordinates, randn, waves

from eqzoo.transforms import Affine, Compose, Motion, Perspective, Warp

LINEAR = Perspective(interpolation='bilinear')
VIEWS = [(30.0, 0.0), (30.0, 90.0), (-20.0, 45.0), (25.0, 200.0)]


class Back(Perspective):
    """The way back: values come from where a camera sees them, by the formula in Perspective's docstring."""

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
    """Follow a horizontal edge: its rows where it is seen, and how far they are from a straight line, in cells."""
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
def test_it_is_what_a_pinhole_camera_sees(view, size):
    """Points in space, a camera that looks at the centre, and a division by depth."""
    rows, columns = LINEAR(coordinates(*size), view)[0]
    inside = LINEAR.mask(size, view)
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
    """Seen from the right, what is on the right is magnified upwards and what is on the left is not."""
    rows = LINEAR(coordinates(32, 32), (30.0, 0.0))[0, 0]
    steps = rows.diff(dim=0)[15]  # at the centre's height
    assert steps[28] < 0.87 < 1 < steps[4]
    assert (steps[2:-2].diff() < 0).all()


def test_edges_stay_straight_but_not_parallel():
    """Warp, which bends them, and Affine, which keeps them parallel, are the counter-examples."""
    slopes, errors = zip(*[straightness(LINEAR, (30.0, 20.0), row) for row in (16.3, 31.5, 45.2)], strict=True)
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
    """Up to two resamplings by torch's bicubic (a = -0.75), as in the test of Turn."""
    x = waves(*size)
    both = Compose([Perspective(), Back()])
    inside = both.mask(size, (view, view))
    assert inside.sum() > 0.5 * inside.numel()
    assert (both(x, (view, view)) - x)[..., inside].abs().max() < 1.5e-2
    assert (Perspective()(x, view) - x)[..., inside].abs().max() > 0.3
    assert (both(x, (view, (-view[0], view[1]))) - x)[..., inside].abs().max() > 0.05  # the other side is not back


@pytest.mark.parametrize('angle', [10.0, 30.0])
def test_all_directions_are_alike(angle):
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
    """At the largest angle accepted, sources are less than twice as far as on an affine picture, in any direction."""
    widest = Perspective(math.degrees(math.atan(0.5 / math.sqrt(2))) - 1e-9, field_of_view=90, eval_angles=(5,))
    ends = torch.tensor([0.0, 31.0], dtype=torch.float64)
    for direction in range(0, 360, 15):
        rows, columns = widest.sources(ends[:, None], ends, (32, 32), (widest.max_angle, float(direction)))
        flat = torch.hypot(rows - 15.5, columns - 15.5) * math.cos(math.radians(widest.max_angle))
        assert flat.max() < 2 * 15.5 * math.sqrt(2)
