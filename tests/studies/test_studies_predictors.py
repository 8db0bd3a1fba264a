"""Predictors: rank correlations against scipy's and by hand, few points, NaN, ties and unequal seeds."""

import math
from pathlib import Path

import pytest
import scipy.stats

from eqzoo.studies.plots import plot_predictions
from eqzoo.studies.predictors import arm_means, predictions, rank_correlation
from eqzoo.studies.scores import Score
from eqzoo.studies.study import AutoencoderArm, GeneratorArm, Study
from eqzoo.studies.tables import predictor_table

# viv and fd of each autoencoder's seeds; 'stopped' has no generator, 'nan' a score that is not a number
VALUES = {
    'a': [(1.0, 300.0), (1.2, 310.0)],
    'b': [(1.1, 290.0)],
    'c': [(0.9, 280.0), (0.7, 240.0), (0.8, 275.0)],
    'd': [(0.6, 250.0), (0.5, 260.0)],
    'stopped': [(2.0, None)],
    'nan': [(0.1, math.nan)],
}


@pytest.fixture
def study():
    return Study(
        's',
        'S',
        '',
        {name: AutoencoderArm(name, 'c.py') for name in VALUES},
        {'DiT': GeneratorArm('DiT', 'd.py', (0.5, 1.0))},
        {'autoencoder': (), 'generator': ()},
        'fd',
        '',
        predictors={'viv': 'lower', 'lnc@10': 'higher', 'flat': '', 'absent': 'lower'},
    )


@pytest.fixture
def scores():
    found = []
    for name, rows in VALUES.items():
        for seed, (viv, fd) in enumerate(rows):
            own = {'viv': viv, 'lnc@10': 1 - viv / 4, 'flat': 1.0}
            found.append(Score(name, seed, None, None, own, {}))
            if fd is not None:
                value = None if math.isnan(fd) else fd
                found.append(Score(name, seed, 'DiT', 200, {'fd': 1000 * viv}, {}))  # another step, another order
                found.append(Score(name, seed, 'DiT', 400, {'fd': value, 'fd/reconstructions': -viv}, {}))
    return found


POINTS = [pair for name in 'abcd' for pair in VALUES[name]]


def test_correlations_are_scipys_over_points_and_over_means(study, scores):
    found = predictions(study, scores)[0]
    assert (found.predictor, found.score) == ('viv', 'fd')
    wanted = scipy.stats.spearmanr(*zip(*POINTS, strict=True)).statistic
    assert found.over_seeds() == (pytest.approx(wanted, rel=1e-12), 8)
    means = {'a': (1.1, 305.0), 'b': (1.1, 290.0), 'c': (0.8, 265.0), 'd': (0.55, 255.0)}
    assert arm_means(found.points) == {name: pytest.approx(pair) for name, pair in means.items()}
    # by hand, with 'a' and 'b' at one rank: ranks (3.5, 3.5, 2, 1) and (4, 3, 2, 1)
    assert found.over_arms() == (pytest.approx(4.5 / math.sqrt(4.5 * 5)), 4)


def test_ties_have_mean_ranks_and_the_sign_is_that_of_the_order():
    assert rank_correlation([(1, 4), (2, 3), (3, 2), (4, 1)]).value == pytest.approx(-1)
    points = [(1, 1), (1, 2), (2, 2), (3, 0), (0, 5)]
    wanted = scipy.stats.pearsonr(*(scipy.stats.rankdata(side) for side in zip(*points, strict=True))).statistic
    assert rank_correlation(points).value == pytest.approx(wanted, rel=1e-12)


def test_fewer_than_four_points_have_no_correlation():
    assert rank_correlation([(1, 1), (2, 2), (3, 3)]) == (None, 3)
    assert rank_correlation([]) == (None, 0)


def test_a_constant_has_none_either():
    value, count = rank_correlation([(1, 1), (1, 2), (1, 3), (1, 4)])
    assert math.isnan(value)
    assert count == 4


def test_the_table_has_the_expected_signs_and_counts(study, scores):
    lines = predictor_table(study, predictions(study, scores))
    assert lines[0] == (
        '|  | expected | fd of DiT, arms | fd of DiT, arms and seeds '
        '| fd/reconstructions of DiT, arms | fd/reconstructions of DiT, arms and seeds |'
    )
    over = scipy.stats.spearmanr(*zip(*POINTS, strict=True)).statistic
    assert lines[2:] == [
        f'| viv | + | +0.95 (n 4) | +{over:.2f} (n 8) | −1.00 (n 5) | −1.00 (n 9) |',
        f'| lnc@10 | − | −0.95 (n 4) | −{over:.2f} (n 8) | +1.00 (n 5) | +1.00 (n 9) |',
        '| flat | – | constant (n 4) | constant (n 8) | constant (n 5) | constant (n 9) |',
        '| absent | + | not measured | not measured | not measured | not measured |',
    ]
    few = [each for each in scores if each.autoencoder in 'ab']
    assert predictor_table(study, predictions(study, few))[2].startswith('| viv | + | – (n 2) | – (n 3) |')
    nothing = [each for each in scores if each.generator is None]
    assert predictor_table(study, predictions(study, nothing)) == []


def test_numbers_of_the_json_have_no_nan(study, scores):
    flat = next(each for each in predictions(study, scores) if each.predictor == 'flat')
    assert flat.as_json()['over_arms'] == {'spearman': None, 'n': 4}


def test_the_plot_has_a_point_for_each_seed_and_each_mean(study, scores, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr('eqzoo.studies.plots.save_svg', lambda figure, file: drawn.append(figure))
    assert plot_predictions(predictions(study, scores), [*study.autoencoders], tmp_path / 'p.svg')
    panel = drawn[0].axes[0]
    lines = {line.get_label(): line for line in panel.get_lines() if not line.get_label().startswith('_')}
    assert [*lines] == [*VALUES]
    assert (lines['c'].get_xdata().item(), lines['c'].get_ydata().item()) == pytest.approx((0.8, 265.0))
    assert len(lines['stopped'].get_xdata()) == 0
    points = [point for line in panel.get_lines() if line.get_label().startswith('_') for point in line.get_xydata()]
    assert sorted(map(tuple, points)) == sorted(POINTS)
    assert (panel.get_xlabel(), panel.get_ylabel()) == ('viv', 'fd of DiT')
    assert not plot_predictions([], [], Path('nowhere'))
