"""Turn: quarter turns are exact, others are scipy's or near the truth, and undone by their opposites."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from signals import disc, randn

from eqzoo.transforms import Rotate, Turn


@pytest.mark.parametrize('angle', [90, 180, 270, -90])
@pytest.mark.parametrize('interpolation', ['bicubic', 'bilinear'])
def test_quarter_turns_are_rotates(angle, interpolation):
    x = randn(2, 3, 17, 17)
    turned = Turn(interpolation=interpolation)(x, float(angle))
    torch.testing.assert_close(turned, Rotate()(x, angle // 90 % 4 or 4), rtol=0, atol=1e-9)


@pytest.mark.parametrize('angle', [7.0, -33.0, 120.0])
@pytest.mark.parametrize('sides', [(40, 40), (32, 48)])
def test_bilinear_turns_are_scipys(angle, sides):
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


def test_angles_are_drawn_uniformly_to_both_sides():
    generator = torch.Generator().manual_seed(0)
    angles = torch.tensor([Turn(30).sample(generator, (8, 8)) for _ in range(2000)])
    assert angles.abs().max() < 30
    counts = angles.histc(10, -30, 30)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square's 0.999 quantile at 9
