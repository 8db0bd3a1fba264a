"""The criterion: verdicts over few and many seeds, the sign test, and the record of when it was written down."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import scipy.stats

from eqzoo.studies import load_study
from eqzoo.studies.criterion import (
    changes_since,
    criterion_lines,
    date_of_criterion,
    judge,
    read_record,
    sign_test,
    write_down,
)
from eqzoo.studies.scores import Score
from eqzoo.studies.study import AutoencoderArm, Criterion, GeneratorArm, Study
from eqzoo.studies.tables import criterion_table

CRITERION = Criterion('The fd of DiT falls in five of five seeds.', 'fd_x/reconstructions', 'DiT', 'lower', 5, 5)


def study_of(criterion):
    return Study(
        's',
        'S',
        '',
        {'plain': AutoencoderArm('plain', 'c.py'), 'EQ': AutoencoderArm('EQ', 'c.py', against='plain')},
        {'DiT': GeneratorArm('DiT', 'd.py', (0.5, 1.0))},
        {'autoencoder': (), 'generator': ()},
        'fd_x',
        '',
        criterion=criterion,
    )


def scores_of(differences, metric='fd_x/reconstructions'):
    """Scores after the last step whose differences are as given, and opposite ones half-way; None is a missing seed."""
    return [
        Score(name, seed, 'DiT', step, {metric: 100.0 + seed + share * difference * (name == 'EQ')}, {})
        for seed, difference in enumerate(differences)
        if difference is not None
        for name, (step, share) in itertools.product(('plain', 'EQ'), ((200, -1), (400, 1)))
    ]


@pytest.mark.parametrize(
    ('differences', 'agreeing', 'of', 'verdict'),
    [
        ([-1, -2, -0.5, -3, -1], 5, 5, 'met'),
        ([-1, -2, 0.5, -3, -1], 4, 5, 'not met'),
        ([-1, -2, 0, -3, -1], 4, 5, 'not met'),  # equal is not better
        ([-1, -2, math.nan, -3, -1], 4, 5, 'not met'),
        ([-1, -2, -1], 3, 3, 'not decidable'),
        ([-1, 2], 1, 2, 'not met'),  # further seeds cannot change it
        ([-1, -2, None, -3, -1], 4, 4, 'not decidable'),  # stopped by a gate
        ([], 0, 0, 'not decidable'),
        ([-1, -2, -0.5, -3, -1, 5, 5], 5, 5, 'met'),  # further seeds change nothing
    ],
)
def test_the_verdict_is_that_of_the_first_seeds(differences, agreeing, of, verdict):
    (found,) = judge(study_of(CRITERION), scores_of(differences), range(7))
    assert (found.agreeing, len(found.differences), found.verdict) == (agreeing, of, verdict)
    assert [*found.differences.values()] == pytest.approx(
        [each for each in differences if each is not None][:of], nan_ok=True
    )


def test_fewer_seeds_may_have_to_agree_and_higher_may_be_better():
    criterion = replace(CRITERION, better='higher', seeds_agreeing=3)
    for differences, verdict in (([1, 1, 1], 'met'), ([1, 1, -1], 'not decidable'), ([-1, -1, -1], 'not met')):
        (found,) = judge(study_of(criterion), scores_of(differences), range(5))
        assert found.verdict == verdict


@pytest.mark.parametrize(('agreeing', 'count'), [(5, 5), (4, 5), (0, 5), (3, 3), (7, 9)])
def test_the_chance_is_that_of_scipys_sign_test(agreeing, count):
    wanted = scipy.stats.binomtest(agreeing, count, 0.5, alternative='greater').pvalue
    assert sign_test(agreeing, count) == pytest.approx(wanted, rel=1e-12)
    assert sign_test(count, count) == 2.0**-count


def test_the_table_has_counts_chance_and_verdict():
    study = study_of(CRITERION)
    for differences, line in (
        ([-1, -2, -0.5, -3.5, -1], '| EQ − plain | 5 of 5 | −1.60 ± 1.19 | 0.031 | met |'),
        ([-1, -2], '| EQ − plain | 2 of 2 | −1.50 ± 0.71 | 0.25 | not decidable with 2 of 5 seeds |'),
        ([], '| EQ − plain | 0 of 0 | – | – | not decidable with 0 of 5 seeds |'),
    ):
        scores = scores_of(differences)
        assert criterion_table(study, judge(study, scores, range(5)))[2] == line


def test_the_page_has_the_words_verbatim_and_names_a_metric_that_nothing_has():
    study = study_of(CRITERION)
    lines = criterion_lines(study, scores_of([-1]))
    assert lines[0] == '> The fd of DiT falls in five of five seeds.'
    assert 'at least 5 of the first 5 seeds' in lines[2]
    assert 'chance of that is 0.031 if' in lines[2]
    assert len(lines) == 3
    lines = criterion_lines(study, scores_of([-1], 'fd_x/reconstruction'))
    assert "No test of DiT has this metric.** Did you mean 'fd_x/reconstruction'" in lines[-1]
    assert judge(study, scores_of([-1], 'fd_y'), range(5))[0].verdict == 'not decidable'


def test_the_seeds_are_named_if_they_are_not_the_first_ones():
    study = replace(study_of(CRITERION), first_seed=10)
    assert 'at least 5 of the first 5 seeds (seeds 10 to 14). For' in criterion_lines(study, [])[2]
    assert 'the first 5 seeds. For' in criterion_lines(study_of(CRITERION), [])[2]
    assert [study.which_seeds(1), study_of(CRITERION).which_seeds(1)] == [' (seed 10)', '']


def test_another_first_seed_leaves_a_trace(tmp_path):
    path, file = tmp_path / 'mine.py', tmp_path / 'mine.begun'

    def write(more=''):
        path.write_text(CONFIG.replace('WANTED', '5') + more)
        return write_down(load_study(path), str(path), file)

    (first,) = write()
    assert first['first_seed'] == 0
    record = write("study['first_seed'] = 10")
    assert [each['first_seed'] for each in record] == [0, 10]
    assert changes_since(record) == [f'- first_seed changed on {record[1]["date"]}; before: `0`']
    record[1]['date'] = 'LATER'
    assert date_of_criterion(record) == 'LATER'
    # of an entry that eqzoo wrote before, it is not known
    del record[0]['first_seed']
    assert (changes_since(record), date_of_criterion(record)) == ([], first['date'])
    file.write_text(json.dumps(record[:1]))
    assert len(write()) == 1


CONFIG = """
study = dict(
    title='t',
    autoencoders={'plain': dict(config='x'), 'EQ': dict(config='x', against='plain')},
    generators={'DiT': dict(config='y')},
    gates=dict(sharp=dict(metric='psnr', at_least=20)),
    criterion=dict(words='w', metric='fd', of='DiT', better='lower', seeds_agreeing=WANTED, of_seeds=5),
)
"""


def test_the_record_keeps_every_version_with_its_date(tmp_path):
    path, file = tmp_path / 'mine.py', tmp_path / 'mine.begun'
    file.touch()  # as eqzoo marked a study before

    def write(text, *overrides):
        path.write_text(text)
        return write_down(load_study(path), str(path), file, overrides)

    (first,) = write(CONFIG.replace('WANTED', '5'))
    assert first['config'] == path.read_text()
    assert (first['criterion']['seeds_agreeing'], first['gates']['sharp']['at_least']) == (5, 20)
    assert len(write(path.read_text())) == 1  # the same again
    del first['overrides']  # as eqzoo wrote records before
    file.write_text(json.dumps([first]))
    assert len(write(path.read_text())) == 1
    assert [each.get('overrides') for each in write(path.read_text(), 'device=cpu')] == [None, ['device=cpu']]
    file.write_text(json.dumps([first]))
    commented = write(CONFIG.replace('WANTED', '5') + '# a comment\n')
    assert changes_since(commented) == []
    assert date_of_criterion(commented) == first['date']
    record = write(CONFIG.replace('WANTED', '3').replace('at_least=20', 'at_least=10'))
    assert read_record(file) == record
    record[-1]['date'] = 'LATER'
    assert date_of_criterion(record) == 'LATER'
    criterion, gates = changes_since(record)
    assert criterion.startswith('- criterion changed on LATER; before: `{"words": "w"')
    assert '"seeds_agreeing": 5' in criterion
    assert '"at_least": 20' in gates
