"""Hooks: the moving average, and the count of unreadable images."""

import logging
import threading
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from torch import nn

from eqzoo.engine import CheckpointHook, EMAHook, ProgressHook, ScalarsHook, StopHook, UnreadableHook, hooks
from eqzoo.engine.ema import averaged_model


def runner_of(value, subject='autoencoder'):
    model = nn.Module()
    model.subjects = (subject,)
    setattr(model, subject, nn.Linear(2, 2))
    model.discriminator = nn.Linear(2, 2)
    runner = SimpleNamespace(model=model, hooks=[])
    fill(runner, value)
    return runner


def fill(runner, value):
    for parameter in runner.model.parameters():
        parameter.data.fill_(value)


@pytest.mark.parametrize('subject', ['autoencoder', 'generator'])
def test_the_average_is_of_what_the_training_is_about(subject):
    runner, hook = runner_of(1.0, subject), EMAHook(decay=0.75)
    trained = getattr(runner.model, subject)
    assert averaged_model(runner, subject) is trained
    hook.before_run(runner)
    runner.hooks.append(hook)
    fill(runner, 5.0)
    hook.after_train_iter(runner, 0)
    assert averaged_model(runner, subject) is hook.average
    assert {name: value.unique().tolist() for name, value in hook.average.state_dict().items()} == {
        'weight': [2.0],
        'bias': [2.0],
    }
    hook.before_val_epoch(runner)
    assert getattr(runner.model, subject) is hook.average
    hook.after_val_epoch(runner)
    assert getattr(runner.model, subject) is trained


def test_the_average_moves_by_one_minus_decay_and_is_what_is_validated_and_saved():
    runner, hook = runner_of(1.0), EMAHook(decay=0.75)
    hook.before_run(runner)
    fill(runner, 5.0)
    hook.after_train_iter(runner, 0)  # 0.75 · 1 + 0.25 · 5
    trained = runner.model.autoencoder
    hook.before_val_epoch(runner)
    assert torch.equal(runner.model.autoencoder.weight, torch.full((2, 2), 2.0))
    hook.after_val_epoch(runner)
    assert runner.model.autoencoder is trained
    checkpoint = {}
    hook.before_save_checkpoint(runner, checkpoint)
    assert torch.equal(checkpoint['ema_state_dict']['bias'], torch.full((2,), 2.0))


def test_a_resumed_average_goes_on_and_a_missing_one_starts_from_the_weights():
    runner, hook = runner_of(1.0), EMAHook(decay=0.5)
    hook.before_run(runner)
    hook.after_load_checkpoint(runner, {})
    fill(runner, 3.0)  # mmengine loads the weights after that call
    hook.before_train(runner)
    assert torch.equal(hook.average.weight, torch.full((2, 2), 3.0))
    saved = {name: torch.zeros_like(value) for name, value in hook.average.state_dict().items()}
    hook.after_load_checkpoint(runner, {'ema_state_dict': saved})
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    assert torch.equal(hook.average.weight, torch.full((2, 2), 1.5))


def test_decay_is_below_one():
    with pytest.raises(ValueError, match=r'EMAHook.decay must be in \[0, 1\), got 1'):
        EMAHook(decay=1)


def test_unreadable_images_are_named_once_and_counted(caplog):
    runner, hook = SimpleNamespace(logger=logging.getLogger('test')), UnreadableHook()
    for names in (['a.png'], [], ['a.png', 'b\x1b.png']):
        reasons = {'b\x1b.png': 'the file is empty'}
        hook.after_train_iter(runner, 0, {'unreadable': names, 'reasons': reasons, 'enlarged': names[1:]})
    hook.after_train(runner)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        'Unreadable image skipped: a.png (1 so far)',
        r'Unreadable image skipped: b\x1b.png (the file is empty) (2 so far)',
        r"Enlarged, being smaller than the crop: b\x1b.png. on_small of the dataset says what to do with such images: 'enlarge', 'skip' or 'refuse'.",
        'Skipped: 2 unreadable images.',
        'Enlarged: 1 image of the batches.',
    ]


def test_unreadable_images_of_other_processes_are_named_at_checkpoints_and_counted(monkeypatch):
    """Two processes, whose logs are the lists of their messages; users see the first one's."""
    meet, values = threading.Barrier(2, timeout=30), {}

    def all_gather_object(value):
        values[threading.current_thread().name] = value
        meet.wait()
        gathered = [values['0'], values['1']]
        meet.wait()
        return gathered

    monkeypatch.setattr(hooks, 'all_gather_object', all_gather_object)
    logs = [[], []]

    def work(rank):
        runner, hook = SimpleNamespace(logger=SimpleNamespace(warning=logs[rank].append)), UnreadableHook()
        for names in (['both.png', f'{rank}.png'], [f'{rank}.png']):
            hook.after_train_iter(runner, 0, {'unreadable': names, 'enlarged': ['small.png'] * rank})
            hook.before_checkpoint(runner)
        hook.after_train_iter(runner, 0, {'unreadable': [f'late{rank}.png']})
        hook.after_train(runner)

    threads = [threading.Thread(target=work, args=[rank], name=str(rank)) for rank in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    skipped = 'Unreadable image skipped: '
    assert [each for each in logs[0] if not each.startswith('Enlarged, being')] == [
        f'{skipped}both.png (1 so far)',
        f'{skipped}0.png (2 so far)',
        f'{skipped}1.png (3 so far)',
        f'{skipped}late0.png (4 so far)',
        f'{skipped}late1.png (5 so far)',
        'Skipped: 5 unreadable images.',
        'Enlarged: 2 images of the batches.',
    ]
    assert [each for each in logs[0] if 'small.png' in each] == [logs[0][3]]


def test_several_processes_agree_on_the_step_after_which_they_stop(monkeypatch):
    """This process has no signal, another has: they ask every four steps, and both stop there."""
    saved = []
    checkpoint = CheckpointHook(100)
    checkpoint.save = lambda runner: saved.append(runner.iter + 1)
    hook, asked = StopHook(interval=4), []
    loop = SimpleNamespace(stop_training=False)
    runner = SimpleNamespace(
        hooks=[checkpoint, hook], iter=0, max_iters=20, train_loop=loop, logger=logging.getLogger('test')
    )
    monkeypatch.setattr(hooks, 'rank_and_world_size', lambda: (1, 2))
    of_all = lambda own: asked.append(own) or (15 if runner.iter > 4 else 0)  # noqa: E731
    monkeypatch.setattr(hooks, 'max_over_processes', of_all)
    while not loop.stop_training:
        hook.after_train_iter(runner, runner.iter)
        runner.iter += 1
    assert (asked, saved, hook.stopped_at) == ([0, 0], [8], 8)
    assert hooks.stopped_by(runner) == 15


def test_values_wait_on_the_device_until_the_log_is_due():
    logged, hook = [], ScalarsHook()
    hub = SimpleNamespace(update_scalar=lambda name, value: logged.append((name, value)))
    model = nn.Linear(2, 2)
    model.on_nonfinite = 'stop'
    runner = SimpleNamespace(hooks=[LoggerHook(interval=3)], iter=0, max_iters=100, message_hub=hub, model=model)
    hook.before_train(runner)
    for step in range(4):
        runner.iter = step
        batch = {'indices': torch.tensor([runner.iter]), 'draws': torch.tensor([runner.iter])}
        hook.after_train_iter(runner, runner.iter, batch, {'loss': torch.tensor(runner.iter / 2), 'count': 7})
        assert len(logged) == (0 if runner.iter < 2 else 6)
    assert logged[:2] == [('train/loss', 0.0), ('train/count', 7)]
    hook.before_checkpoint(runner)
    assert logged[6:] == [('train/loss', 1.5), ('train/count', 7)]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """A gradient was not finite, while the loss was."""
    model = nn.Linear(2, 2)
    model.bias.data[1] = float('nan')
    runner = SimpleNamespace(model=model, work_dir=tmp_path)
    with pytest.raises(FloatingPointError, match='weights are not finite, though the losses were.*on_nonfinite=skip'):
        ScalarsHook().before_checkpoint(runner)


def test_a_norm_of_gradients_that_is_not_finite_stops_the_run(tmp_path):
    hook, model = ScalarsHook(), SimpleNamespace(on_nonfinite='stop')
    runner = SimpleNamespace(model=model, work_dir=tmp_path, iter=0, hooks=[], max_iters=2)
    runner.train_dataloader = SimpleNamespace(dataset=None)
    hook.before_train(runner)
    values = {'loss': torch.tensor(1.0), 'grad_norm': torch.tensor(float('inf'))}
    hook.after_train_iter(runner, 0, {'indices': None, 'draws': None}, values)
    with pytest.raises(FloatingPointError, match='step 1: .* grad_norm inf'):
        hook.read(runner)


def test_progress_is_printed_early_and_whenever_the_log_is_silent(monkeypatch, capsys):
    """A step takes 2 s, the first one 10 s, step 8 a minute; the logger prints each tenth."""
    clock = [100.0]
    monkeypatch.setattr(hooks.time, 'monotonic', lambda: clock[0])
    hook = ProgressHook()
    runner = SimpleNamespace(iter=20, max_iters=1000, hooks=[LoggerHook(interval=10)])  # resumed after 20 steps
    hook.before_train(runner)
    for seconds in (10, 2, 2, 2, 2, 2, 2, 60, 2, 2, 2):
        clock[0] += seconds
        hook.after_train_iter(
            runner, runner.iter, None, {'loss': torch.tensor(0.5), 'kl': torch.tensor(runner.iter + 1.0)}
        )
        runner.iter += 1
    assert capsys.readouterr().out.splitlines() == [
        'step 21 of 1,000  loss: 0.5000  kl: 21.0000',
        'step 25 of 1,000  loss: 0.5000  kl: 25.0000  2 s a step  about 0:32:30 left',
        'step 28 of 1,000  loss: 0.5000  kl: 28.0000  10.3 s a step  about 2:46:37 left',
    ]


def test_the_loggers_own_line_is_enough(capsys):
    hook = ProgressHook(steps=(1, 2), seconds=1e-9)
    runner = SimpleNamespace(iter=0, max_iters=4, hooks=[LoggerHook(interval=1)])
    hook.before_train(runner)
    for runner.iter in range(4):
        hook.after_train_iter(runner, runner.iter, None, {'loss': torch.tensor(0.5)})
    assert capsys.readouterr().out == ''
