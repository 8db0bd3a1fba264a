"""Scores and their statistics: means, paired differences and speed-ups, computed by hand."""

import math

import pytest

from eqzoo.studies.scores import Score, SpeedUp, by_seed, first_below, paired_difference, speed_up, spread


def test_the_deviation_is_that_of_one_seed_not_of_the_mean():
    found = spread([1.0, 2.0, 4.0])
    assert found.mean == pytest.approx(7 / 3)
    assert found.std == pytest.approx(math.sqrt((16 / 9 + 1 / 9 + 25 / 9) / 2))
    assert found.count == 3


def test_one_seed_has_no_deviation_and_no_seed_no_mean():
    assert spread([5.0]) == (5.0, None, 1)
    assert spread([]) is None


def test_nan_is_not_averaged_away():
    assert math.isnan(spread([1.0, math.nan, 2.0]).mean)


def test_differences_pair_the_seeds():
    """Seeds differ far more than arms; unpaired, the difference would be lost."""
    control, arm = {0: 10.0, 1: 20.0, 2: 30.0}, {0: 9.0, 1: 18.5, 2: 29.5, 7: 0.0}
    found = paired_difference(arm, control)
    assert found.spread.mean == pytest.approx(-1.0)
    assert found.spread.std == pytest.approx(0.5)
    assert found.agreeing == found.spread.count == 3


def test_agreement_counts_the_signs_of_the_mean():
    assert paired_difference({0: 1.0, 1: -0.1, 2: 3.0}, {0: 0.0, 1: 0.0, 2: 0.0}).agreeing == 2
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ('target', 'step'),
    [(10.0, 100.0), (12.0, 100.0), (9.0, 125.0), (6.0, 200.0), (4.0, 300.0), (3.9, None)],
)
def test_the_step_is_interpolated_between_scores(target, step):
    assert first_below([(100, 10.0), (200, 6.0), (300, 4.0)], target) == step


def test_a_curve_that_rises_again_has_reached_the_target():
    assert first_below([(1, 9.0), (2, 5.0), (3, 8.0)], 5.0) == 2


def test_the_speed_up_is_paired_by_seed():
    control = {0: [(100, 9.0), (400, 4.0)], 1: [(100, 9.0), (400, 5.0)]}
    arm = {0: [(100, 6.0), (400, 2.0)], 1: [(100, 9.0), (400, 5.5)]}
    assert speed_up(arm, control) == SpeedUp((400 / 250, None), 400)


def test_a_speed_up_is_a_bound_if_the_first_score_reaches_the_controls():
    control = {0: [(100, 9.0), (400, 4.0)], 1: [(100, 9.0), (400, 5.0)]}
    arm = {0: [(100, 3.0), (400, 2.0)], 1: [(100, 9.0), (400, 1.0)]}
    assert speed_up(arm, control) == SpeedUp((4.0, 400 / 250), 400, is_bound=True)
    assert speed_up({1: arm[1]}, control) == SpeedUp((400 / 250,), 400)


def test_seeds_whose_control_has_no_last_score_have_no_speed_up():
    control = {0: [(100, 9.0), (400, math.nan)], 1: [(100, 9.0)], 2: [(100, 9.0), (400, 5.0)]}
    arm = {seed: [(100, math.nan), (200, 9.0), (400, 1.0)] for seed in control}
    # between the scores that are numbers
    assert speed_up(arm, control) == SpeedUp((400 / 300,), 400)
    assert speed_up(arm, {0: control[0]}) is None
    assert speed_up({2: [(100, math.nan), (400, math.nan)]}, control) == SpeedUp((None,), 400)


def test_values_are_selected_by_arm_step_and_metric():
    scores = [
        Score('a', 0, None, None, {'psnr': 1.0}, {}),
        Score('a', 1, None, None, {'psnr': None}, {}),
        Score('a', 0, 'DiT', 10, {'psnr': 3.0}, {}),
        Score('a', 0, 'DiT', 20, {'psnr': 4.0}, {}),
        Score('b', 0, None, None, {'psnr': 5.0}, {}),
    ]
    found = by_seed(scores, 'psnr', 'a')
    assert found[0] == 1.0
    assert math.isnan(found[1])
    assert by_seed(scores, 'psnr', 'a', 'DiT', 20) == {0: 4.0}
    assert by_seed(scores, 'ssim', 'a') == {}
