"""Hooks: the moving average, and the count of unreadable images."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from eqzoo.engine import AutoencoderEMAHook, UnreadableHook


def runner_of(value):
    model = nn.Module()
    model.subject = 'autoencoder'
    model.autoencoder = nn.Linear(2, 2)
    for parameter in model.autoencoder.parameters():
        parameter.data.fill_(value)
    return SimpleNamespace(model=model)


def fill(runner, value):
    for parameter in runner.model.autoencoder.parameters():
        parameter.data.fill_(value)


def test_the_average_moves_by_one_minus_decay_and_is_what_is_validated_and_saved():
    runner, hook = runner_of(1.0), AutoencoderEMAHook(decay=0.75)
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
    runner, hook = runner_of(1.0), AutoencoderEMAHook(decay=0.5)
    hook.before_run(runner)
    fill(runner, 3.0)
    hook.after_load_checkpoint(runner, {})
    assert torch.equal(hook.average.weight, torch.full((2, 2), 3.0))
    saved = {name: torch.zeros_like(value) for name, value in hook.average.state_dict().items()}
    hook.after_load_checkpoint(runner, {'ema_state_dict': saved})
    hook.after_train_iter(runner, 0)
    assert torch.equal(hook.average.weight, torch.full((2, 2), 1.5))


def test_decay_is_below_one():
    with pytest.raises(ValueError, match=r'AutoencoderEMAHook.decay must be in \[0, 1\), got 1'):
        AutoencoderEMAHook(decay=1)


def test_unreadable_images_are_named_once_and_counted(caplog):
    runner, hook = SimpleNamespace(logger=logging.getLogger('test')), UnreadableHook()
    for names in (['a.png'], [], ['a.png', 'b.png']):
        hook.after_train_iter(runner, 0, {'unreadable': names})
    hook.after_train(runner)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        'Unreadable image skipped: a.png (1 so far)',
        'Unreadable image skipped: b.png (2 so far)',
        '2 unreadable images were skipped.',
    ]
