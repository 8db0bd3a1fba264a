"""Stages: a small study from config to table, killed and resumed, failures, and the estimate of time."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from eqzoo.commands.study import run_command, study
from eqzoo.studies import Stage, StageCommand, load_study, plan_study, run_stages
from eqzoo.studies.report import _final, report_study
from eqzoo.studies.scores import Score
from eqzoo.studies.stages import StageError, _failure_message, _Pace, run_stage

SMALL = """
small = {'train_cfg.max_iters': 4, 'train_dataloader.batch_size': 2, 'train_dataloader.dataset.num_images': 6,
         'default_hooks.checkpoint.interval': 1}
start = 'START'
tests = {'test_dataloader.dataset.num_images': 6, 'test_evaluators': [
    dict(type='ReconstructionMetric'), dict(type='EquivarianceError', transforms=dict(rotation=dict(type='Rotate')))]}
eq = {'model.objective': dict(type='ImplicitEquivariance', transform=dict(type='Rotate'), p_equivariance=1.0)}
broken = {'optim_wrapper.autoencoder.optimizer.lr': 0.3}
arm = dict(config='configs/studies/shapes/kl.py', start='start.py')
study = dict(
    title='A small study',
    claim='None.',
    autoencoders={
        'plain': dict(**arm, change={**small, **tests}),
        'EQ': dict(**arm, change={**small, **tests, **eq}, against='plain'),
        'broken': dict(**arm, change={**small, **tests, **broken}, against='plain'),
    },
    gates=dict(
        base=dict(metric='psnr', of='start', at_least=3.0),
        sharp=dict(metric='psnr', to_control='difference', at_least=-2.0),
        turning=dict(metric='eq_err/rotation', at_most=1e-6, stops=False),
    ),
    criterion=dict(words='SWD falls in the seed.', metric='swd', of='SiT', better='lower', seeds_agreeing=1, of_seeds=1),
    predictors=('psnr', 'eq_err/rotation'),
    generators={
        'SiT': dict(
            config='configs/studies/shapes/sit.py',
            scores=(0.5, 1.0),
            change={
                'train_cfg.max_iters': 4,
                'cache_dataloader.dataset.num_images': 8,
                'train_dataloader.batch_size': 2,
                'default_hooks.checkpoint.interval': 1,
                'default_hooks.checkpoint.keep_every': 2,
                'sampling.num_samples': 8,
                'test_evaluators': [
                    dict(type='GenerationSlicedWasserstein', reference='REFERENCE'),
                    dict(
                        type='GenerationMetric',
                        extractor=dict(type='EfficientNetLite0', size=32),
                        reference=dict(type='Shapes', num_images=8, size=32),
                        against='reconstructions',
                        metrics=('fd',),
                        min_images=8,
                    ),
                ],
            },
        )
    },
    columns=dict(autoencoder=('psnr', 'eq_err/rotation'), generator=('swd',)),
    score='swd',
)
"""
START = """
from mmengine.config import read_base
with read_base():
    from eqzoo.configs.studies.shapes.kl_start import *
train_cfg.update(max_iters=3)
train_dataloader.update(batch_size=2)
train_dataloader.dataset.update(num_images=6)
"""
RUN = ('tools/study.py', '--jobs', '2', '--seeds', '1')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a study, its start and its reference."""
    from eqzoo.data import Shapes
    from eqzoo.engine.references import make_reference
    from eqzoo.vision import EfficientNetLite0

    folder = tmp_path_factory.mktemp('study')
    (folder / 'start.py').write_text(START)
    make_reference(Shapes(8, 32), EfficientNetLite0(size=32), folder / 'reference.npz')
    text = SMALL.replace("'start.py'", f"'{folder}/start.py'").replace('REFERENCE', f'{folder}/reference.npz')
    (folder / 'small.py').write_text(text)
    return folder


@pytest.fixture(scope='module')
def finished(folder):
    """The study, run without a stop."""
    subprocess.run([sys.executable, *RUN, str(folder / 'small.py'), '--work-dir', str(folder / 'a')], check=True)
    return folder / 'a' / 'small'


def is_running(session):
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def rows(folder):
    return list(csv.DictReader((folder / 'results.csv').read_text().splitlines()))


def test_it_measures_every_arm_and_step(finished):
    found = [(row['autoencoder'], row['generator'], row['step']) for row in rows(finished)]
    assert found == [
        ('plain', '', ''),
        ('EQ', '', ''),
        ('broken', '', ''),
        ('plain', 'SiT', '2'),
        ('plain', 'SiT', '4'),
        ('EQ', 'SiT', '2'),
        ('EQ', 'SiT', '4'),
    ]
    plain, eq, broken = (float(row['psnr']) for row in rows(finished)[:3])
    assert plain != eq
    assert 3 < plain < 25
    assert broken < plain - 2


def test_what_fails_a_gate_has_no_generator(folder, finished):
    """Its stages that come after the test are not run, and the page says why."""
    page = (finished / 'README.md').read_text()
    psnr = {row['autoencoder']: float(row['psnr']) for row in rows(finished) if row['psnr']}
    assert f'| broken | 0 | – | −{psnr["plain"] - psnr["broken"]:.4f} failed |' in page
    for end in ('| plain | 0 | – | control |', '| start of plain | 0 |'):
        (line,) = (line for line in page.splitlines() if line.startswith(end))
        assert line.endswith('| passed |')
    gates = json.loads((finished / 'results.json').read_text())['gates']
    assert [(each['autoencoder'], each['gate']) for each in gates if each['stops'] and not each['passed']] == [
        ('broken', 'sharp')
    ]
    assert not any(each['passed'] for each in gates if each['gate'] == 'turning')  # which only reports
    kinds = [path.parent.name.split('-')[0] for path in (folder / 'a' / 'stages').glob('*/stage.json')]
    assert {kind: kinds.count(kind) for kind in ('tune', 'latents', 'generator', 'score')} == {
        'tune': 3,
        'latents': 2,
        'generator': 2,
        'score': 4,
    }


def test_its_criterion_was_written_down_before_the_first_stage(folder, finished):
    content = json.loads((finished / 'results.json').read_text())
    (entry,) = content['written_down']
    assert entry['config'] == (folder / 'small.py').read_text()
    assert entry['criterion']['words'] == 'SWD falls in the seed.'
    assert entry['date'] <= content['first_stage'] < content['first_test_of_a_generator']
    swd = {row['autoencoder']: float(row['swd']) for row in rows(finished) if row['step'] == '4'}
    eq, broken = content['judgements']
    assert eq['verdict'] == ('met' if swd['EQ'] < swd['plain'] else 'not met')
    assert eq['differences'] == {'0': swd['EQ'] - swd['plain']}
    assert (broken['verdict'], broken['differences']) == ('not decidable', {})
    assert '> SWD falls in the seed.' in (finished / 'README.md').read_text()


def test_reconstructions_are_measured_by_one_stage(folder, finished):
    """By the autoencoder that decodes the samples: a test refuses the file of another one."""
    stages = folder / 'a' / 'stages'
    assert len([*stages.glob('reconstructions-*/reference.npz')]) == 2
    assert not [*stages.glob('score-*/*.npz')]
    distances = [float(row['fd_effnet_lite0_32px/reconstructions']) for row in rows(finished) if row['step']]
    assert len(distances) == 4
    assert min(distances) > 0


def test_its_page_has_tables_plots_and_the_machine(finished):
    page = (finished / 'README.md').read_text()
    psnr = float(rows(finished)[0]['psnr'])
    assert f'| plain | {psnr:.{2 if psnr >= 10 else 4}f} |' in page
    assert '| SiT on EQ | 1 | 4 |' in page
    assert '| SiT on broken | 0 | 4 | – |' in page
    assert 'speed-up' in page
    content = json.loads((finished / 'results.json').read_text())
    assert content['hardware'][0]['threads'] >= 1
    assert content['hardware'][0]['torch'] in page
    number = content['scores'][3]['card']['evaluators']['GenerationSlicedWasserstein']
    assert content['protocols'][number]['metrics'] == ['swd']
    pictures = ('reconstructions.png', 'rotated.png', 'halved.png', 'latents.png')
    for name in ('metrics.svg', 'curves.svg', 'predictors.svg', *pictures):
        assert f'({name})]({name})' in page
        assert (finished / name).stat().st_size > 1000
    sizes = {}
    for name in (*pictures, 'before_and_after.png'):
        with Image.open(finished / name) as picture:
            sizes[name] = picture.size
    assert len({width for width, _ in sizes.values()}) == 1
    # the same rows once more, below a heading each
    assert sizes['before_and_after.png'][1] > sum(sizes[name][1] for name in pictures) * 2 / 3


def test_its_page_explains_each_term_once(finished):
    page = (finished / 'README.md').read_text()
    terms = re.findall(r'^- \*\*(.+?)\*\*: ', page, re.MULTILINE)
    assert len(terms) == len(set(terms))
    assert {'plain', 'EQ', 'SiT', 'psnr', 'swd', 'τ', 'D(τE(x))', 'PCA colours'} <= {*terms}
    sections = {each.split('\n')[0]: each for each in page.split('\n## ')}
    # where they appear first: psnr is a gate's metric before it is a column
    assert '- **psnr**: ' in sections['Gates']
    assert '- **plain**: ' in sections['Autoencoders']
    assert '- **SiT**: ' in sections['Generators']
    assert 'glossary' not in page  # this page is not among the docs


def test_a_study_that_lost_a_stage_repeats_that_stage_alone(folder, finished):
    results = (finished / 'results.csv').read_bytes()
    records = {path: path.stat().st_mtime_ns for path in (folder / 'a' / 'stages').glob('*/stage.json')}
    lost = max(records, key=records.get)
    lost.unlink()
    words = [*RUN, str(folder / 'small.py'), '--work-dir', str(folder / 'a'), '--resume']
    subprocess.run([sys.executable, *words], check=True)
    assert (finished / 'results.csv').read_bytes() == results
    repeated = {path for path, written in records.items() if path.stat().st_mtime_ns != written}
    assert repeated == {lost}


@pytest.mark.slow(reason='a whole study again, a minute; the test above resumes one')
def test_a_killed_and_resumed_study_has_the_same_results(folder, finished):
    words = [sys.executable, *RUN, str(folder / 'small.py'), '--work-dir', str(folder / 'b')]
    stages = folder / 'b' / 'stages'
    run = subprocess.Popen(words, start_new_session=True)
    while run.poll() is None and len(list(stages.glob('*/stage.json'))) < 8:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)  # the study alone: its workers have to notice
    assert run.wait() == -signal.SIGKILL  # it was killed before its end
    while is_running(run.pid):
        time.sleep(0.05)
    subprocess.run([*words, '--resume'], check=True)
    assert (folder / 'b' / 'small' / 'results.csv').read_text() == (finished / 'results.csv').read_text()


def test_finished_stages_are_not_run_again(folder, finished, capsys):
    before = {file: file.stat().st_mtime_ns for file in (folder / 'a' / 'stages').rglob('*.json')}
    with pytest.raises(ValueError, match='small has already been started in .* --resume'):
        study(str(folder / 'small.py'), overrides=[], seeds=1, work_dir=str(folder / 'a'))
    study(str(folder / 'small.py'), overrides=[], seeds=1, work_dir=str(folder / 'a'), resume=True, jobs=1)
    assert {file: file.stat().st_mtime_ns for file in (folder / 'a' / 'stages').rglob('*.json')} == before
    assert '27 stages, 22 of them done' in capsys.readouterr().out  # the others are behind a gate


def test_an_arm_that_fails_leaves_the_page_of_the_others(folder, finished, tmp_path):
    text = (folder / 'small.py').read_text()
    (tmp_path / 'failing.py').write_text(text.replace(".lr': 0.3", ".lr': 1e30"))
    words = [sys.executable, *RUN, f'{tmp_path}/failing.py', '--work-dir', str(folder / 'a')]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert 'stages failed' in run.stderr
    page = (folder / 'a' / 'failing' / 'README.md').read_text()
    (failure,) = (line for line in page.splitlines() if line.startswith('- fine-tuning of broken, seed 0: '))
    assert page.index('**Not complete.** These stages failed') < page.index(failure) < page.index('## Criterion')
    assert '| broken | 0 | – | – | – | not tested |' in page
    assert str(folder) not in page.partition('## How it was made')[0]
    content = json.loads((folder / 'a' / 'failing' / 'results.json').read_text())
    assert [f'- {each}' for each in content['failures']] == [failure]
    kept = [row for row in rows(finished) if row['autoencoder'] != 'broken']
    assert rows(folder / 'a' / 'failing') == kept
    assert 'Not complete' not in (finished / 'README.md').read_text()


def test_nothing_is_written_before_the_first_score(folder, tmp_path):
    plan = plan_study(load_study(folder / 'small.py'), [0], tmp_path / 'stages')
    given = dict(words=['small.py'], failures=['start of plain, seed 0: nan'])
    report_study(load_study(folder / 'small.py'), plan, [0], tmp_path / 'out', **given)
    assert not (tmp_path / 'out').exists()


def test_an_earlier_step_does_not_stand_for_the_last(folder, tmp_path):
    plan = plan_study(load_study(folder / 'small.py'), [0], tmp_path)
    scores = [Score('EQ', 0, *at, {'swd': 1.0}, {}) for at in ((None, None), ('SiT', 2), ('SiT', 4))]
    assert _final(scores, plan) == scores[2:]


@pytest.mark.parametrize('resumable', [True, False])
def test_a_stage_that_was_stopped_keeps_its_first_begin(tmp_path, resumable):
    stage = Stage('a', tmp_path / 'stage', (StageCommand('none', ('x',)),), resumable=resumable)

    def fail(command):
        raise FloatingPointError('nan')

    for _ in range(2):
        assert run_stage(stage, fail).error == 'nan'
    attempts = json.loads((stage.folder / 'attempts.json').read_text())
    begins = [f'2026-01-0{day}T00:00:00+00:00' for day in (1, 2)]
    # the second run ended, perhaps killed, when it last wrote to its log: after 50 seconds
    given = [{**attempts[0], 'begun': begins[0], 'seconds': 100.0}, {**attempts[1], 'begun': begins[1]}]
    (stage.folder / 'attempts.json').write_text(json.dumps(given))
    end = datetime.fromisoformat(begins[1]).timestamp() + 50
    os.utime(stage.folder / 'log.txt', (end, end))
    assert run_stage(stage, lambda command: None).error is None
    record = stage.record()
    assert record['begun'] == begins[0]
    # what is not resumable begins again from nothing, so that earlier runs are not in its time
    assert record['seconds'] == pytest.approx(150 if resumable else 0, abs=5)
    assert not (stage.folder / 'attempts.json').exists()


def test_a_dry_run_prints_commands_and_runs_none(folder, capsys):
    study(str(folder / 'small.py'), overrides=[], seeds=1, work_dir=str(folder / 'c'), dry_run=True)
    printed = capsys.readouterr().out
    plan = plan_study(load_study(folder / 'small.py'), [0], folder / 'c' / 'stages')
    assert all(str(command) in printed for stage in plan.stages.values() for command in stage.commands)
    assert '# SiT on EQ, seed 0 (if passed: base, sharp)\n' in printed
    assert '# fine-tuning of EQ, seed 0 (if passed: base)\n' in printed
    assert '# test of the start of plain, seed 0\n' in printed
    assert not (folder / 'c').exists()


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (SystemExit(143), 'stopped by SIGTERM'),
        (SystemExit(1), 'ended with 1'),
        (SystemExit('error: no'), 'error: no'),
        (ValueError('one\n  two'), 'one two'),
        (ZeroDivisionError(), 'ZeroDivisionError()'),
    ],
)
def test_an_error_is_one_line(error, message):
    assert _failure_message(error) == message


def test_a_failed_stage_holds_back_only_those_that_need_it(own, tmp_path):
    def stage(name, *commands, needs=()):
        return Stage(name, tmp_path / name, commands, needs)

    latents = StageCommand('train', ('configs/demo/pretrain.py',), (('smoke', True),), (f'work_dir={tmp_path}/x',))
    wrong = stage('wrong', StageCommand('train', ('configs/no_such.py',)))
    needing = stage('needing', latents, needs=(wrong,))
    right = stage('right', StageCommand('train', ('configs/demo/pretrain.py',), (('dry_run', True),)))
    # of a class that a config imports; convert is given none
    copy = stage('copy', StageCommand('convert', (own.file, f'{tmp_path}/copy.pth'), (('to', 'eqzoo'),)))
    # one that a gate stops, and one whose gate needs a test that failed
    gated = [stage(name, *right.commands) for name in ('stopped', 'undecided')]
    verdicts = dict(zip(gated, (False, None), strict=True))
    with pytest.raises(StageError, match=r'1 of 5 stages failed, 2 that need them .*:\n  wrong: Config') as caught:
        run_stages(
            [wrong, *gated, needing, right, copy],
            run_command,
            jobs=1,
            configs=[own.config],
            admits=lambda each: verdicts.get(each, True),
            report=lambda _: None,
        )
    done = [each.record() is not None for each in (wrong, needing, right, copy, *gated)]
    assert done == [False, False, True, True, False, False]
    log = (tmp_path / 'wrong' / 'log.txt').read_text()
    assert 'Traceback' in log
    assert str(tmp_path / 'wrong' / 'log.txt') in str(caught.value)
    assert 'Nothing is missing' in (tmp_path / 'right' / 'log.txt').read_text()


def numbered_stage(tool, config, number=0):
    return Stage(f'{tool} {number}', Path(f'{tool}-{number}'), (StageCommand(tool, (config, f'{number}.pth')),))


def test_a_stage_empties_only_a_folder_with_the_log_of_a_stage(tmp_path):
    stage = Stage('a', tmp_path / 'stage', (StageCommand('none', ('x',)),))
    stage.folder.mkdir()
    (stage.folder / 'mine.txt').write_text('mine')
    for _ in range(2):
        assert 'holds files, but no log.txt' in run_stage(stage, lambda command: None).error
    assert (stage.folder / 'mine.txt').read_text() == 'mine'
    (stage.folder / 'log.txt').write_text('a stopped stage')
    assert run_stage(stage, lambda command: None).error is None
    assert sorted(file.name for file in stage.folder.iterdir()) == ['log.txt', 'stage.json']


def test_the_time_left_is_estimated_by_kind():
    """One long start does not change the estimate of a hundred short tests."""
    pace = _Pace()
    pace.add(numbered_stage('train', 'start.py'), 1000)
    tests = [numbered_stage('test', 'dit.py', number) for number in range(100)]
    pace.add(tests[0], 8)
    pace.add(tests[1], 12)
    assert pace.seconds_left(tests[2:], []) == pytest.approx(98 * 10)
    assert pace.seconds_left([], [tests[2]]) == pytest.approx(5)
    # a kind without a finished stage: the mean of 1000 and 10
    assert pace.seconds_left([numbered_stage('train', 'dit.py')], []) == pytest.approx(505)
