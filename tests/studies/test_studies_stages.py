"""Stages: a small study from config to table, killed and resumed, failures, and the estimate of time."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eqzoo.commands.study import run_command, study
from eqzoo.studies import Stage, StageCommand, load_study, plan_study, run_stages
from eqzoo.studies.stages import StageError, _failure_message, _Pace

SMALL = """
small = {'train_cfg.max_iters': 4, 'train_dataloader.batch_size': 2, 'train_dataloader.dataset.num_images': 6,
         'default_hooks.checkpoint.interval': 1}
start = 'START'
tests = {'test_dataloader.dataset.num_images': 6, 'test_evaluators': [
    dict(type='ReconstructionMetric'), dict(type='EquivarianceError')]}
eq = {'model.objective': dict(type='ImplicitEquivariance', transform=dict(type='Rotate'), p_equivariance=1.0)}
arm = dict(config='configs/studies/shapes/kl.py', start='start.py')
study = dict(
    title='A small study',
    claim='None.',
    autoencoders={
        'plain': dict(**arm, change={**small, **tests}),
        'EQ': dict(**arm, change={**small, **tests, **eq}, against='plain'),
    },
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
                'test_evaluators': [dict(type='GenerationSlicedWasserstein', reference='REFERENCE')],
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
RUN = ('tools/study.py', '--jobs', '1', '--seeds', '1')


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
        ('plain', 'SiT', '2'),
        ('plain', 'SiT', '4'),
        ('EQ', 'SiT', '2'),
        ('EQ', 'SiT', '4'),
    ]
    plain, eq = (float(row['psnr']) for row in rows(finished)[:2])
    assert plain != eq
    assert 3 < plain < 25


def test_its_page_has_tables_plots_and_the_machine(finished):
    page = (finished / 'README.md').read_text()
    psnr = float(rows(finished)[0]['psnr'])
    assert f'| plain | {psnr:.{2 if psnr >= 10 else 4}f} |' in page
    assert '| SiT on EQ | 4 |' in page
    assert 'speed-up' in page
    content = json.loads((finished / 'results.json').read_text())
    assert content['hardware'][0]['threads'] >= 1
    assert content['hardware'][0]['torch'] in page
    number = content['scores'][2]['card']['evaluators']['GenerationSlicedWasserstein']
    assert content['protocols'][number]['metrics'] == ['swd']
    for name in ('metrics.svg', 'curves.svg', 'pictures.png'):
        assert f']({name})' in page
        assert (finished / name).stat().st_size > 1000


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
    assert '15 stages, 15 of them done' in capsys.readouterr().out


def test_a_dry_run_prints_commands_and_runs_none(folder, capsys):
    study(str(folder / 'small.py'), overrides=[], seeds=1, work_dir=str(folder / 'c'), dry_run=True)
    printed = capsys.readouterr().out
    plan = plan_study(load_study(folder / 'small.py'), [0], folder / 'c' / 'stages')
    assert all(str(command) in printed for stage in plan.stages.values() for command in stage.commands)
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


def test_a_failed_stage_holds_back_only_those_that_need_it(tmp_path):
    def stage(name, *commands, needs=()):
        return Stage(name, tmp_path / name, commands, needs)

    latents = StageCommand('train', ('configs/demo/pretrain.py',), (('smoke', True),), (f'work_dir={tmp_path}/x',))
    wrong = stage('wrong', StageCommand('train', ('configs/no_such.py',)))
    needing = stage('needing', latents, needs=(wrong,))
    right = stage('right', StageCommand('train', ('configs/demo/pretrain.py',), (('dry_run', True),)))
    with pytest.raises(StageError, match=r'1 of 3 stages failed, 1 that need them .*:\n  wrong: Config') as caught:
        run_stages([wrong, needing, right], run_command, jobs=1, report=lambda _: None)
    assert [each.record() is not None for each in (wrong, needing, right)] == [False, False, True]
    log = (tmp_path / 'wrong' / 'log.txt').read_text()
    assert 'Traceback' in log
    assert str(tmp_path / 'wrong' / 'log.txt') in str(caught.value)
    assert 'Nothing is missing' in (tmp_path / 'right' / 'log.txt').read_text()


def numbered_stage(tool, config, number=0):
    return Stage(f'{tool} {number}', Path(f'{tool}-{number}'), (StageCommand(tool, (config, f'{number}.pth')),))


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
