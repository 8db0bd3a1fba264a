"""Tables, CSV and Markdown of a study, from made-up scores, cell by cell."""

import csv
import math
from dataclasses import replace

import pytest

from eqzoo.studies.report import _csv, put_into
from eqzoo.studies.scores import Score, _check_cards
from eqzoo.studies.study import AutoencoderArm, GeneratorArm, Study
from eqzoo.studies.tables import autoencoder_table, curve_table, difference_table, generator_table

CARD = {'data': {'kind': 'Shapes', 'seed': 0}, 'num_images': 8, 'evaluators': {'R': {'metrics': ['psnr', 'fd_x']}}}


@pytest.fixture
def study():
    return Study(
        name='s',
        title='S',
        claim='',
        autoencoders={
            'plain': AutoencoderArm('plain', 'c.py'),
            'EQ': AutoencoderArm('EQ', 'c.py', against='plain'),
        },
        generators={'DiT': GeneratorArm('DiT', 'd.py', (0.25, 1.0))},
        columns={'autoencoder': ('psnr', 'eq_err/scale', 'not_there'), 'generator': ('fd_x',)},
        score='fd_x',
        data='Shapes',
    )


@pytest.fixture
def scores():
    tests = [
        Score(name, seed, None, None, {'psnr': psnr, 'eq_err/scale': error}, CARD)
        for name, seed, psnr, error in [
            ('plain', 0, 20.0, 0.5),
            ('plain', 1, 21.0, 0.4),
            ('EQ', 0, 19.5, 0.1),
            ('EQ', 1, 21.5, 0.2),
        ]
    ]
    samples = [
        Score(name, seed, 'DiT', step, {'fd_x': value}, CARD)
        for name, seed, step, value in [
            ('plain', 0, 100, 200.0),
            ('plain', 0, 400, 100.0),
            ('plain', 1, 100, 220.0),
            ('plain', 1, 400, 120.0),
            ('EQ', 0, 100, 150.0),
            ('EQ', 0, 400, 50.0),
            ('EQ', 1, 100, 230.0),
            ('EQ', 1, 400, 130.0),
        ]
    ]
    return tests + samples


def test_autoencoders_are_shown_with_mean_and_deviation(study, scores):
    assert autoencoder_table(study, scores) == [
        '|  | psnr ↑ | error: scale ↓ |',
        '| --- | ---: | ---: |',
        '| plain | 20.50 ± 0.71 | 0.4500 ± 0.0707 |',
        '| EQ | 20.50 ± 1.41 | 0.1500 ± 0.0707 |',
    ]


def test_generators_are_shown_after_their_last_step(study, scores):
    assert generator_table(study, scores)[2:] == [
        '| DiT on plain | 400 | 110.0 ± 14.1 |',
        '| DiT on EQ | 400 | 90.00 ± 56.57 |',
    ]


def test_differences_are_paired_and_count_agreeing_seeds(study, scores):
    assert difference_table(study, scores)[2:] == [
        '| EQ − plain | +0.000 ± 0.707 (0/2) | −0.300 ± 0.141 (2/2) | −20.00 ± 42.43 (1/2) |'
    ]


def test_curves_and_a_score_that_one_seed_does_not_reach(study, scores):
    assert curve_table(study, scores) == [
        '|  | 100 | 400 | speed-up |',
        '| --- | ---: | ---: | ---: |',
        '| DiT on plain | 210.0 ± 14.1 | 110.0 ± 14.1 | – |',
        '| DiT on EQ | 190.0 ± 56.6 | 90.00 ± 56.57 | 1.60× (in 1 of 2 seeds) |',
    ]


def test_a_speed_up_that_is_a_bound_is_marked(study, scores):
    scores = [replace(each, metrics={'fd_x': 90.0}) if each.step == 100 and each.seed == 0 else each for each in scores]
    assert curve_table(study, scores)[3].endswith('| ≥ 4.00× (in 1 of 2 seeds) |')
    scores = [replace(each, metrics={'fd_x': None}) if each.step == 400 and each.seed == 0 else each for each in scores]
    assert curve_table(study, scores)[3].endswith('| not reached in 400 |')


@pytest.mark.parametrize(
    ('values', 'spread', 'difference'),
    [
        ((3e-5, 2e-5, 4e-5), '0.000030 ± 0.000010', '+0.000030 ± 0.000010 (3/3)'),
        ((3e-5,), '0.000030', '+0.000030 (1/1)'),
        ((-0.0004, -0.0002), '-0.0003 ± 0.0001', '−0.00030 ± 0.00014 (2/2)'),
        ((25.61, 25.612), '25.6110 ± 0.0014', '+25.6110 ± 0.0014 (2/2)'),
        # as usual: two digits are not worth another form, equal values have no deviation, and noise has no digits
        ((0.012, 0.013), '0.0125 ± 0.0007', '+0.013 ± 0.001 (2/2)'),
        ((20.5, 20.5), '20.50 ± 0.00', '+20.50 ± 0.00 (2/2)'),
        ((0.1 + 0.2, 0.3), '0.3000 ± 0.0000', '+0.300 ± 0.000 (2/2)'),
        ((0.5, -0.5), '0.0000 ± 0.7071', '+0.000 ± 0.707 (0/2)'),
        ((0.0087, -0.0083), '0.0002 ± 0.0120', '+0.000 ± 0.012 (1/2)'),
        ((0.0, 0.0), '0.0000 ± 0.0000', '+0.000 ± 0.000 (0/2)'),
        ((150.0, 151.0), '150.5 ± 0.7', '+150.50 ± 0.71 (2/2)'),
    ],
)
def test_means_and_deviations_keep_their_digits(study, values, spread, difference):
    pairs = [(seed, name, value * (name == 'EQ')) for seed, value in enumerate(values) for name in ('plain', 'EQ')]
    scores = [Score(name, seed, None, None, {'psnr': value}, CARD) for seed, name, value in pairs]
    assert autoencoder_table(study, scores)[3] == f'| EQ | {spread} |'
    assert difference_table(study, scores)[2].split(' | ')[1] == difference


def test_seeds_are_counted_where_they_differ(study, scores):
    """EQ has one seed more than plain, and its generator one less, as a gate stops them."""
    scores = [each for each in scores if (each.autoencoder, each.seed, each.generator) != ('EQ', 1, 'DiT')]
    scores.append(Score('EQ', 2, None, None, {'psnr': 23.5, 'eq_err/scale': 0.3}, CARD))
    assert autoencoder_table(study, scores) == [
        '|  | seeds | psnr ↑ | error: scale ↓ |',
        '| --- | ---: | ---: | ---: |',
        '| plain | 2 | 20.50 ± 0.71 | 0.4500 ± 0.0707 |',
        '| EQ | 3 | 21.50 ± 2.00 | 0.2000 ± 0.1000 |',
    ]
    assert generator_table(study, scores)[2:] == [
        '| DiT on plain | 2 | 400 | 110.0 ± 14.1 |',
        '| DiT on EQ | 1 | 400 | 50.00 |',
    ]
    # of the seeds that both have
    assert difference_table(study, scores)[2:] == [
        '| EQ − plain | +0.000 ± 0.707 (0/2) | −0.300 ± 0.141 (2/2) | −50.00 (1/1) |'
    ]
    assert curve_table(study, scores)[3] == '| DiT on EQ | 150.0 | 50.00 | 1.60× |'


def test_what_nothing_has_is_no_table(study, scores):
    tests = [each for each in scores if each.generator is None]
    assert generator_table(study, tests) == curve_table(study, tests) == autoencoder_table(study, []) == []
    assert difference_table(study, tests)[2].endswith('| – |')


def test_nan_is_shown(study, scores):
    scores[0] = Score('plain', 0, None, None, {'psnr': None, 'eq_err/scale': 0.5}, CARD)
    assert autoencoder_table(study, scores)[2] == '| plain | nan | 0.4500 ± 0.0707 |'
    assert difference_table(study, scores)[2].split(' | ')[1] == 'nan'


def test_a_name_cannot_end_its_cell(study, scores):
    study.autoencoders['a|b'] = AutoencoderArm('a|b', 'c.py')
    assert autoencoder_table(study, scores)[-1] == r'| a\|b | 0 | – | – |'


def test_the_csv_has_every_digit(scores):
    rows = list(csv.DictReader(_csv([*scores, Score('x', 0, None, None, {'psnr': 1 / 3}, CARD)]).splitlines()))
    assert float(rows[-1]['psnr']) == 1 / 3
    assert rows[4] == {'autoencoder': 'plain', 'generator': 'DiT', 'step': '100', 'seed': '0', 'psnr': '',
                       'eq_err/scale': '', 'fd_x': '200.0'}  # fmt: skip
    assert not any(math.isnan(float(row['fd_x'])) for row in rows if row['fd_x'])


def test_the_csv_tells_nan_from_what_was_not_measured():
    scores = [Score('x', 0, None, None, {'psnr': None, 'viv': math.nan}, CARD), Score('y', 0, None, None, {}, CARD)]
    assert _csv(scores).splitlines()[1:] == ['x,,,0,nan,nan', 'y,,,0,,']


def test_unlike_cards_are_refused(study, scores):
    _check_cards(study, scores)
    other = {**CARD, 'num_images': 9}
    with pytest.raises(ValueError, match='psnr .*: num_images is 8 in test of plain, seed 0 and 9'):
        _check_cards(study, [*scores, Score('EQ', 2, None, None, {'psnr': 1.0}, other)])
    # predictors are compared too; other metrics are not
    unlike = [Score('EQ', seed, None, None, {'viv': 1.0}, card) for seed, card in enumerate((CARD, other))]
    _check_cards(study, unlike)
    with pytest.raises(ValueError, match='viv .*: num_images is 8 in test of EQ, seed 0 and 9'):
        _check_cards(replace(study, predictors={'viv': 'lower'}), unlike)


def test_a_table_replaces_the_previous_one(tmp_path):
    file = tmp_path / 'README.md'
    file.write_text('a\n<!-- study: s -->\nold\n<!-- end of study -->\nb\n<!-- study: t -->\n<!-- end of study -->\n')
    for lines in (['| x |', '| y |'], ['| z |']):
        put_into(file, 's', lines)
    assert file.read_text() == (
        'a\n<!-- study: s -->\n\n| z |\n\n<!-- end of study -->\nb\n<!-- study: t -->\n<!-- end of study -->\n'
    )
    with pytest.raises(ValueError, match='has no place for this study'):
        put_into(file, 'u', [])
