"""Gates: limits, NaN and controls; what is stopped, and what is not known yet."""

import json
import math
from dataclasses import replace

import pytest
from fake_tests import fake_stage, finish

from eqzoo.studies.gates import Gatekeeper, GateOutcome, condition, gate_records
from eqzoo.studies.plan import Gated, StudyPlan
from eqzoo.studies.report import report_study
from eqzoo.studies.scores import collect_scores
from eqzoo.studies.study import AutoencoderArm, Gate, GeneratorArm, Study
from eqzoo.studies.tables import gate_table

BASE = Gate('base', 'sec/0.25', at_least=0.4, of='start')
SHARP = Gate('sharp', 'psnr', at_least=-0.2, at_most=0.2, to_control='difference')
EASY = Gate('easy', 'viv', at_most=0.9, to_control='ratio')
CLEAR = Gate('clear', 'psnr', at_least=20.0)
NOTED = Gate('noted', 'psnr', at_least=99.0, stops=False)


@pytest.fixture
def make(tmp_path):
    """A function that returns a study with the given gates, its plan, and its keeper with the lines it reports."""

    def make_study(*gates, seeds=(0, 1)):
        arms = {'plain': AutoencoderArm('plain', 'c.py', 's.py')}
        arms |= {name: AutoencoderArm(name, 'c.py', 's.py', against='plain') for name in ('EQ', 'SE')}
        study = Study(
            's',
            'S',
            '',
            arms,
            {'DiT': GeneratorArm('DiT', 'd.py')},
            {'autoencoder': ('psnr',), 'generator': ('fd',)},
            'fd',
            '',
            gates={gate.name: gate for gate in gates},
        )
        plan = StudyPlan(steps={'DiT': (400,)})
        for seed in seeds:
            start = plan.add(fake_stage(tmp_path, f'start {seed}'))
            for name in arms:
                if any(gate.of == 'start' for gate in gates):
                    plan.started[name, seed] = start
                test = plan.add(fake_stage(tmp_path, f'test {name} {seed}'), Gated('start', name, seed))
                plan.measured[name, seed] = test
                score = plan.add(fake_stage(tmp_path, f'score {name} {seed}'), Gated('arm', name, seed))
                plan.scored['DiT', name, seed, 400] = score
        lines = []
        return study, plan, Gatekeeper(study, plan, report=lines.append), lines

    return make_study


@pytest.mark.parametrize(
    ('gate', 'value', 'control', 'compared', 'passes'),
    [
        (SHARP, 24.75, 25.0, -0.25, False),
        (Gate('', 'psnr', at_least=-0.25, to_control='difference'), 24.75, 25.0, -0.25, True),  # a limit passes
        (SHARP, 25.125, 25.0, 0.125, True),
        (SHARP, 25.25, 25.0, 0.25, False),
        (EASY, 1.125, 1.25, 0.9, True),
        (EASY, 1.2, 1.25, 0.96, False),
        (EASY, 0.5, 0.0, math.nan, False),  # no ratio to zero
        (EASY, math.nan, 1.0, math.nan, False),
        (EASY, 1.0, math.nan, math.nan, False),
        (CLEAR, 20.0, None, 20.0, True),
        (CLEAR, math.nextafter(20.0, 0), None, 19.99999, False),
        (CLEAR, math.nan, None, math.nan, False),
        (CLEAR, math.inf, None, math.inf, False),
    ],
)
def test_a_gate_compares_and_includes_its_limits(gate, value, control, compared, passes):
    assert gate.compared(value, control) == pytest.approx(compared, abs=1e-5, nan_ok=True)
    assert gate.passes(gate.compared(value, control)) is passes


def test_each_seed_is_compared_with_its_own_control(make):
    _, plan, keeper, lines = make(SHARP, EASY)
    for (name, seed), psnr, viv in [
        (('plain', 0), 25.0, 1.5),
        (('plain', 1), 20.0, 1.0),
        (('EQ', 0), 24.875, 1.2),  # −0.125, 0.8
        (('EQ', 1), 20.0, 0.95),  # 0, 0.95
        (('SE', 0), 24.5, 0.3),  # −0.5, 0.2
        (('SE', 1), 20.125, 0.875),
    ]:
        finish(plan.measured[name, seed], {'psnr': psnr, 'viv': viv})
    admitted = {stage.name for stage in plan.stages.values() if keeper.admits(stage)}
    assert {name for name in admitted if name.startswith('score')} == {
        *('score plain 0', 'score plain 1', 'score EQ 0', 'score SE 1')
    }
    assert [each.value for each in keeper.outcomes(Gated('arm', 'EQ', 0))] == pytest.approx([-0.125, 0.8])
    assert lines[0] == (
        'gates of plain, seed 0: sharp control (psnr − control ≥ −0.2 and ≤ 0.2); easy control (viv / control ≤ 0.9)'
    )
    stopped = [line for line in lines if line.endswith('; no generator is trained on it')]
    assert [line.split(':')[0] for line in stopped] == ['gates of SE, seed 0', 'gates of EQ, seed 1']
    assert 'sharp −0.5000 failed' in stopped[0]
    assert len(lines) == 6  # once each, however often it is asked


def test_nothing_is_decided_before_the_tests_that_decide(make):
    _, plan, keeper, lines = make(SHARP)
    score, test = plan.scored['DiT', 'EQ', 0, 400], plan.measured['EQ', 0]
    assert keeper.admits(test) is True
    assert keeper.admits(score) is None
    finish(test, {'psnr': 25.0})
    assert keeper.admits(score) is None  # the control's is not done
    assert lines == []
    finish(plan.measured['plain', 0], {'psnr': 25.0})
    assert keeper.admits(score) is True
    # controls need no other test
    assert keeper.admits(plan.scored['DiT', 'plain', 0, 400]) is True


def test_nan_fails_and_says_so(make):
    _, plan, keeper, lines = make(CLEAR)
    finish(plan.measured['EQ', 0], {'psnr': math.nan})
    assert keeper.admits(plan.scored['DiT', 'EQ', 0, 400]) is False
    assert lines == ['gates of EQ, seed 0: clear nan failed (psnr ≥ 20); no generator is trained on it']
    (record,) = gate_records(keeper, plan)
    assert (record['value'], record['nan'], record['passed']) == (None, True, False)
    assert str(GateOutcome(SHARP, math.nan)) == 'nan failed'


def test_a_control_can_fail_a_gate_of_its_own_value(make):
    _, plan, keeper, _ = make(CLEAR)
    finish(plan.measured['plain', 0], {'psnr': 19.0})
    finish(plan.measured['EQ', 0], {'psnr': 21.0})
    assert keeper.admits(plan.scored['DiT', 'plain', 0, 400]) is False
    assert keeper.admits(plan.scored['DiT', 'EQ', 0, 400]) is True


def test_a_gate_that_only_reports_stops_nothing(make):
    _, plan, keeper, lines = make(NOTED)
    finish(plan.measured['plain', 0], {'psnr': 19.0})
    assert keeper.admits(plan.scored['DiT', 'plain', 0, 400]) is True
    assert lines == ['gates of plain, seed 0: noted 19.00 failed (psnr ≥ 99, only reported)']


def test_a_start_that_fails_stops_its_seed_alone(make):
    study, plan, keeper, lines = make(BASE, CLEAR)
    assert keeper.admits(plan.measured['EQ', 0]) is None
    finish(plan.started['plain', 0], {'sec/0.25': 0.39})
    finish(plan.started['plain', 1], {'sec/0.25': 0.4})
    assert {keeper.admits(plan.measured[arm]) for arm in plan.measured if arm[1] == 0} == {False}
    assert keeper.admits(plan.scored['DiT', 'plain', 0, 400]) is False
    assert {keeper.admits(plan.measured[arm]) for arm in plan.measured if arm[1] == 1} == {True}
    assert keeper.admits(plan.scored['DiT', 'plain', 1, 400]) is None
    assert lines[0] == (
        'gates of start of plain, seed 0: base 0.3900 failed (sec/0.25 of the start ≥ 0.4); nothing more of seed 0 is run'
    )
    # a test of an earlier run is no reason to show it
    finish(plan.measured['EQ', 0], {'psnr': 25.0})
    finish(plan.measured['EQ', 1], {'psnr': 25.0})
    finish(plan.measured['SE', 1], {'psnr': 15.0})
    assert gate_table(study, keeper, plan)[2:] == [
        '| start of plain | 0 | 0.3900 failed | – | stopped |',
        '| start of plain | 1 | 0.4000 passed | – | passed |',
        '| plain | 0 | – | – | not run |',
        '| plain | 1 | – | – | not tested |',
        '| EQ | 0 | – | – | not run |',
        '| EQ | 1 | – | 25.00 passed | passed |',
        '| SE | 0 | – | – | not run |',
        '| SE | 1 | – | 15.00 failed | stopped |',
    ]
    records = [(each['of'], each['autoencoder'], each['seed']) for each in gate_records(keeper, plan)]
    assert records == [('start', 'plain', 0), ('start', 'plain', 1), ('arm', 'EQ', 1), ('arm', 'SE', 1)]


def test_an_autoencoder_whose_control_failed_is_not_decided(make):
    study, plan, keeper, _ = make(SHARP, seeds=(0,))
    finish(plan.measured['EQ', 0], {'psnr': 25.0})
    lines = gate_table(study, keeper, plan)[2:]
    assert [line.split(' | ')[-1] for line in lines] == ['not tested |', 'not decided |', 'not tested |']
    finish(plan.measured['plain', 0], {'psnr': 25.0})
    finish(plan.scored['DiT', 'EQ', 0, 400], {'fd': 1.0})
    # those whose stages failed are missing, and the others are there
    found = collect_scores(study, plan, [0], keeper)
    assert [(each.autoencoder, each.generator) for each in found] == [('plain', None), ('EQ', None), ('EQ', 'DiT')]


def test_a_stage_of_two_autoencoders_runs_if_one_may(make, tmp_path):
    _, plan, keeper, _ = make(CLEAR)
    stage = fake_stage(tmp_path, 'shared')
    for name in ('EQ', 'SE'):
        plan.add(stage, Gated('arm', name, 0))
    finish(plan.measured['EQ', 0], {'psnr': 19.0})
    assert keeper.admits(stage) is None
    finish(plan.measured['SE', 0], {'psnr': 21.0})
    assert keeper.admits(stage) is True


def test_scores_are_those_that_gates_admit(make):
    """Not those of an earlier run or of another study, and of each autoencoder's own seeds."""
    study, plan, keeper, _ = make(CLEAR)
    study.autoencoders['SE'] = replace(study.autoencoders['SE'], seeds=1)
    for stage in plan.measured.values():
        finish(stage, {'psnr': 19.0 if stage.name == 'test EQ 1' else 21.0})
    for stage in plan.scored.values():
        finish(stage, {'fd': 1.0})
    found = collect_scores(study, plan, [0, 1], keeper)
    assert {(each.autoencoder, each.seed) for each in found if each.generator is None} == {
        *(('plain', 0), ('plain', 1), ('EQ', 0), ('EQ', 1), ('SE', 0))
    }
    assert {(each.autoencoder, each.seed) for each in found if each.generator} == {
        *(('plain', 0), ('plain', 1), ('EQ', 0), ('SE', 0))
    }


def test_a_metric_that_no_test_has_is_refused_with_the_nearest(make):
    _, plan, keeper, _ = make(CLEAR)
    finish(plan.measured['plain', 0], {'psnrs': 19.0, 'ssim': 1.0})
    message = r"gates\['clear'\].metric: test plain 0 has no 'psnr'. Did you mean 'psnrs'.* It has: psnrs, ssim"
    with pytest.raises(ValueError, match=message):
        keeper.admits(plan.scored['DiT', 'plain', 0, 400])


def test_unlike_measurements_are_not_compared(make):
    _, plan, keeper, _ = make(SHARP)
    finish(plan.measured['plain', 0], {'psnr': 25.0})
    finish(plan.measured['EQ', 0], {'psnr': 25.0}, num_images=9)
    message = r"gates\['sharp'\]: psnr .* num_images is 9 in test EQ 0 and 8 in test plain 0"
    with pytest.raises(ValueError, match=message):
        keeper.admits(plan.scored['DiT', 'EQ', 0, 400])


def test_conditions_are_read_as_they_are_written():
    assert [condition(gate) for gate in (BASE, SHARP, EASY)] == [
        'sec/0.25 of the start ≥ 0.4',
        'psnr − control ≥ −0.2 and ≤ 0.2',
        'viv / control ≤ 0.9',
    ]


def test_a_study_whose_starts_all_fail_has_a_page_that_says_so(make, tmp_path):
    study, plan, _, _ = make(BASE, seeds=(0,))
    finish(plan.started['plain', 0], {'sec/0.25': 0.1})
    words = ['my studies/mine.py', 'device=cpu', 'train_cfg.max_iters=4']
    report_study(study, plan, [0], tmp_path / 'out', words=words)
    page = (tmp_path / 'out' / 'README.md').read_text()
    assert "\n$ python tools/study.py 'my studies/mine.py' device=cpu train_cfg.max_iters=4 --seeds 1\n" in page
    assert json.loads((tmp_path / 'out' / 'results.json').read_text())['overrides'] == words[1:]
    assert '| start of plain | 0 | 0.1000 failed | stopped |' in page
    assert '| EQ | 0 | – | not run |' in page
    assert 'DiT' not in page
    assert (tmp_path / 'out' / 'results.csv').read_text() == 'autoencoder,generator,step,seed\n'
    assert '.png' not in page
    assert '.svg' not in page
