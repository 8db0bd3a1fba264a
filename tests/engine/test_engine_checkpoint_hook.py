"""Retention of checkpoints: each is written before another is deleted."""

from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from eqzoo import distributed
from eqzoo.engine import CheckpointHook


class Runner(SimpleNamespace):
    """What the hook asks of mmengine's Runner; its checkpoints are empty files."""

    def __init__(self, folder, steps=10):
        hub = MessageHub.get_instance(f'{folder.name}-{id(self)}')
        super().__init__(work_dir=str(folder), iter=0, max_iters=steps, message_hub=hub, calls=[])
        self.logger = SimpleNamespace(info=lambda message: None)
        self.folder = folder

    def call_hook(self, name):
        self.calls.append(name)

    def save_checkpoint(self, folder, name, *, by_epoch, meta):
        assert (folder, by_epoch, meta['epoch']) == (self.work_dir, False, 0)
        self.calls.append((name, meta['iter'], self.files()))
        (self.folder / name).touch()

    def files(self):
        return {file.name for file in self.folder.glob('*.pth')}


def train(hook, runner, validations=None):
    while runner.iter < runner.max_iters:
        hook.after_train_iter(runner, runner.iter)
        runner.iter += 1  # as the loop counts, before it validates
        if validations and runner.iter in validations:
            error = validations[runner.iter]
            hook.after_val_epoch(runner, {'error': error, 'other/score': -error, 'psnr': 20 - error})


def test_the_newest_are_kept_and_the_last_step_is_saved(tmp_path):
    runner = Runner(tmp_path)
    train(CheckpointHook(3, max_keep_ckpts=2), runner)
    assert runner.files() == {'iter_9.pth', 'iter_10.pth'}
    saved = [each for each in runner.calls if each != 'before_checkpoint']
    assert [(name, step) for name, step, _ in saved] == [(f'iter_{step}.pth', step) for step in (3, 6, 9, 10)]
    assert saved[-1][2] == {'iter_6.pth', 'iter_9.pth'}  # nothing was deleted before
    assert runner.calls.count('before_checkpoint') == 4


def test_a_stopped_run_has_in_the_end_the_files_of_one_that_was_not(tmp_path):
    runner, hook = Runner(tmp_path), CheckpointHook(3, max_keep_ckpts=2, keep_every=12)
    (tmp_path / 'iter_12.pth').touch()  # damaged: the run has resumed before it
    for step in (3, 6, 8):
        runner.iter = step - 1
        hook.save(runner)
    assert runner.files() == {'iter_3.pth', 'iter_6.pth', 'iter_8.pth', 'iter_12.pth'}  # a signal came in step 8
    runner.iter = 8
    hook.before_train(runner)
    assert runner.files() == {'iter_3.pth', 'iter_6.pth', 'iter_8.pth', 'iter_12.pth'}
    train(hook, runner)
    assert runner.files() == {'iter_9.pth', 'iter_10.pth', 'iter_12.pth'}


def test_what_a_killed_run_had_no_time_to_delete_is_deleted_at_the_next_start(tmp_path):
    runner, hook = Runner(tmp_path), CheckpointHook(3, max_keep_ckpts=2)
    for step in (6, 9, 10):
        (tmp_path / f'iter_{step}.pth').touch()
    runner.iter = 10
    hook.before_train(runner)
    assert runner.files() == {'iter_9.pth', 'iter_10.pth'}


def test_a_changed_interval_or_end_does_not_delete_what_is_kept_for_good(tmp_path):
    runner = Runner(tmp_path, 14)
    train(CheckpointHook(2, max_keep_ckpts=1, keep_every=2), runner)
    kept = {f'iter_{step}.pth' for step in range(2, 15, 2)}
    assert runner.files() == kept
    runner.max_iters = 20
    hook = CheckpointHook(8, max_keep_ckpts=1, keep_every=2)
    hook.before_train(runner)
    train(hook, runner)
    assert runner.files() == {*kept, 'iter_16.pth', 'iter_20.pth'}


@pytest.mark.parametrize(
    ('interval', 'keep_every', 'message'),
    [(4, 6, 'got 6, no multiple of the interval 4: checkpoints of steps 12, 24, … are'), (3, 6, ''), (3, None, '')],
)
def test_steps_that_are_not_written_are_remarked(interval, keep_every, message, capsys, monkeypatch):
    monkeypatch.setattr(distributed, '_SAID', set())
    CheckpointHook(interval, keep_every=keep_every)
    remark = capsys.readouterr().err
    assert message in remark
    assert bool(remark) == bool(message)


def test_the_counter_of_a_checkpoint_is_that_of_its_step(tmp_path):
    runner, hook = Runner(tmp_path), CheckpointHook(3, save_best='error')
    for counted in (3, 4):  # as it is in a run, and after a resume
        runner.iter = 4
        runner.message_hub.update_info('iter', counted)
        hook.after_val_epoch(runner, {'error': 1.0 / counted})
        assert runner.message_hub.get_info('iter') == 3


def test_some_are_kept_for_good_and_others_files_are_left_alone(tmp_path):
    (tmp_path / 'iter_mine.pth').touch()
    runner = Runner(tmp_path)
    train(CheckpointHook(1, max_keep_ckpts=1, keep_every=4), runner)
    assert runner.files() == {'iter_4.pth', 'iter_8.pth', 'iter_10.pth', 'iter_mine.pth'}
    runner = Runner(tmp_path)
    train(CheckpointHook(2, max_keep_ckpts=-1), runner)
    assert {'iter_2.pth', 'iter_4.pth', 'iter_6.pth', 'iter_8.pth', 'iter_10.pth'} <= runner.files()


@pytest.mark.parametrize(
    ('options', 'best'),
    [
        (dict(save_best='error'), 'best_error_iter_4.pth'),
        (dict(save_best='error', rule='greater'), 'best_error_iter_6.pth'),
        (dict(save_best='other/score', rule='greater'), 'best_other_score_iter_4.pth'),
        (dict(save_best='psnr'), 'best_psnr_iter_4.pth'),
        (dict(save_best='psnr', rule='less'), 'best_psnr_iter_6.pth'),
    ],
)
def test_the_best_is_kept_whatever_else_is_deleted(options, best, tmp_path):
    runner = Runner(tmp_path)
    train(CheckpointHook(10, max_keep_ckpts=1, **options), runner, {2: 0.5, 4: 0.25, 6: 0.75, 8: 0.5})
    assert runner.files() == {'iter_10.pth', best}
    writes = [each for each in runner.calls if each != 'before_checkpoint' and each[0] == best]
    assert len(writes[0][2]) == 1  # the one before was still there


def test_a_metric_of_no_evaluator_is_refused(tmp_path):
    with pytest.raises(ValueError, match="save_best: got 'psn'; .* error, other/score, psnr"):
        train(CheckpointHook(10, save_best='psn'), Runner(tmp_path), {2: 0.5})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(interval=0), 'CheckpointHook.interval must be at least 1, got 0'),
        (dict(keep_every=0), 'CheckpointHook.keep_every must be at least 1 or None, got 0'),
        (dict(max_keep_ckpts=0), 'CheckpointHook.max_keep_ckpts must be at least 1 or -1, got 0'),
        (dict(rule='least'), "rule must be 'less', 'greater' or None, got 'least'"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CheckpointHook(**options)


def test_nan_is_never_the_best(tmp_path):
    runner = Runner(tmp_path)
    train(CheckpointHook(10, save_best='error'), runner, {2: float('nan'), 4: 0.25, 6: 0.1, 8: float('nan')})
    assert runner.files() == {'iter_10.pth', 'best_error_iter_6.pth'}
    runner = Runner(tmp_path)
    runner.message_hub.update_info('best_score', float('nan'))  # as earlier versions left it
    train(CheckpointHook(10, save_best='error'), runner, {2: 0.5})
    assert 'best_error_iter_2.pth' in runner.files()
