"""The codebook's hook and evaluator: usage counts, and the codes that are revived."""

import math
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import nn

from eqzoo.autoencoders import KLAutoencoder, VQAutoencoder
from eqzoo.commands.train import train
from eqzoo.engine import CodebookHook, latest_checkpoint, read_checkpoint
from eqzoo.engine.runner import build_optimizers
from eqzoo.evaluators import AutoencoderView, CodebookUsage

TINY = dict(latent_channels=2, num_codes=8, block_out_channels=(8, 8), attention_levels=(), norm_num_groups=4)


def make_runner(hook):
    autoencoder = VQAutoencoder(**TINY).eval()
    with torch.no_grad():
        autoencoder.quantize.embedding.weight.copy_(torch.arange(8.0)[:, None].expand(8, 2))
    model = nn.Module()
    model.autoencoder = autoencoder
    model.parameter_groups = lambda: {'autoencoder': list(autoencoder.parameters())}
    model.rate_factors = dict
    model.is_repeating = False
    config = Config(dict(optim_wrapper=dict(autoencoder=dict(optimizer=dict(type='Adam', lr=0.0)))))
    optimizers = build_optimizers(model, config)
    runner = SimpleNamespace(model=model, optim_wrapper=optimizers, seed=0, iter=0)
    hook.before_run(runner)
    hook.before_train(runner)
    return runner


def step(hook, runner, *values):
    """Quantise features at `values`, a micro-batch each, as one training step does."""
    hook.before_train_iter(runner, runner.iter)
    for value in values:
        features = torch.as_tensor(value, dtype=torch.float32)[None, None, :, None].expand(1, 2, -1, 1)
        runner.model.autoencoder.bottleneck(features.clone().requires_grad_()).penalties['codebook'].backward()
    runner.optim_wrapper['autoencoder'].step()
    runner.logged = {}
    hook.after_train_iter(runner, runner.iter, {'draws': torch.arange(len(values))}, runner.logged)
    runner.iter += 1


def test_usage_and_perplexity_are_of_the_whole_step():
    hook = CodebookHook()
    runner = make_runner(hook)
    step(hook, runner, [1.1, 0.9], [3.0, 3.2, 5.0, 5.1])
    assert runner.logged['codebook/usage'] == 3 / 8
    assert runner.logged['codebook/perplexity'] == pytest.approx(3.0)
    step(hook, runner, [1.0, 1.0, 1.0, 2.0])
    assert runner.logged['codebook/usage'] == 2 / 8
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert runner.logged['codebook/perplexity'] == pytest.approx(math.exp(entropy))
    assert hook.idle.tolist() == [2, 0, 0, 1, 2, 1, 2, 2]


def test_what_is_quantised_between_steps_does_not_count():
    hook = CodebookHook()
    runner = make_runner(hook)
    runner.model.autoencoder.bottleneck(torch.full((1, 2, 1, 1), 7.0))
    step(hook, runner, [0.0])
    assert runner.logged['codebook/usage'] == 1 / 8


def test_idle_codes_are_replaced_by_features_of_the_step():
    hook = CodebookHook(revive_after=2)
    runner = make_runner(hook)
    step(hook, runner, [0.1, 1.1, 2.1, 3.1, 4.1, 5.1])
    assert runner.logged['codebook/revived'] == 0
    step(hook, runner, [0.1, 1.1, 2.1, 3.1, 4.1, 5.1])
    codes = runner.model.autoencoder.quantize.embedding.weight.detach()
    assert runner.logged['codebook/revived'] == 2
    torch.testing.assert_close(codes[:6, 0], torch.arange(6.0))
    revived = {round(value, 4) for value in codes[6:, 0].tolist()}
    assert len(revived) == 2
    assert revived < {0.1, 1.1, 2.1, 3.1, 4.1, 5.1}
    assert hook.idle.tolist() == [0] * 8
    moments = runner.optim_wrapper['autoencoder'].optimizer.state[runner.model.autoencoder.quantize.embedding.weight]
    assert (moments['exp_avg'][:6] != 0).all()
    assert (moments['exp_avg'][6:] == 0).all()


def test_no_more_codes_are_revived_than_there_are_features():
    hook = CodebookHook(revive_after=1)
    runner = make_runner(hook)
    step(hook, runner, [0.1, 0.1])
    assert runner.logged['codebook/revived'] == 2
    assert (hook.idle == 0).sum() == 3


@pytest.mark.parametrize('reason', ['frozen', 'skipped'])
def test_codes_of_a_frozen_codebook_and_of_a_skipped_step_stay(reason):
    hook = CodebookHook(revive_after=1)
    runner = make_runner(hook)
    if reason == 'frozen':
        runner.model.encoder_rate = 0
    before = runner.model.autoencoder.quantize.embedding.weight.detach().clone()
    hook.before_train_iter(runner, 0)
    runner.model.autoencoder.bottleneck(torch.full((1, 2, 1, 1), 7.0))
    logged = {'skipped': torch.tensor(float(reason == 'skipped'))}
    hook.after_train_iter(runner, 0, {'draws': torch.arange(1)}, logged)
    assert torch.equal(runner.model.autoencoder.quantize.embedding.weight, before)
    assert logged['codebook/revived'] == 0
    assert hook.idle.tolist() == [1] * 7 + [0]


def test_features_of_a_validation_are_not_kept():
    hook = CodebookHook(revive_after=5)
    runner = make_runner(hook)
    step(hook, runner, [0.0])
    for _ in range(3):
        runner.model.autoencoder.bottleneck(torch.zeros(1, 2, 4, 4))
    assert not hook._features
    assert not hook._indices


def test_after_training_nothing_listens():
    hook = CodebookHook()
    runner = make_runner(hook)
    hook.after_train(runner)
    assert not runner.model.autoencoder.quantize._forward_hooks


def test_counts_are_saved_and_loaded():
    hook, other = CodebookHook(), CodebookHook()
    runner = make_runner(hook)
    step(hook, runner, [3.0])
    checkpoint = {}
    hook.before_save_checkpoint(runner, checkpoint)
    make_runner(other)
    other.after_load_checkpoint(runner, checkpoint)
    assert other.idle.tolist() == [1, 1, 1, 0, 1, 1, 1, 1]


def test_mistakes_are_refused_at_once():
    with pytest.raises(ValueError, match=r'CodebookHook.revive_after must be at least 1 or None, got 0'):
        CodebookHook(revive_after=0)
    model = SimpleNamespace(autoencoder=KLAutoencoder(4, (8, 8), norm_num_groups=4))
    with pytest.raises(ValueError, match=r'CodebookHook: KLAutoencoder has no codebook; leave the hook out'):
        CodebookHook().before_run(SimpleNamespace(model=model))
    view = AutoencoderView(model.autoencoder, torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r'CodebookUsage: KLAutoencoder has no codebook; leave the evaluator out'):
        CodebookUsage().process(view)


def test_evaluator_counts_over_all_images():
    torch.manual_seed(0)
    autoencoder, evaluator = VQAutoencoder(**TINY).eval(), CodebookUsage()
    images = torch.rand(6, 3, 8, 8) * 2 - 1
    for batch in images.split(4):
        evaluator.process(AutoencoderView(autoencoder, batch))
    counts = torch.bincount(autoencoder.tokens(images).flatten(), minlength=8)
    shares = counts[counts > 0] / counts.sum()
    metrics = evaluator.evaluate(6)
    assert metrics['codebook/usage'] == (counts > 0).sum() / 8
    assert metrics['codebook/perplexity'] == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-5)


def test_a_resumed_run_revives_the_same_codes(tmp_path):
    """Four steps at once, and as if killed after two: bit for bit, the idle counts crossing the cut."""
    overrides = [f'work_dir={tmp_path}', "custom_hooks={'codebook':{'type':'CodebookHook','revive_after':3}}"]
    train('configs/demo/vq_rot_scale.py', overrides=overrides, smoke=True)
    whole = read_checkpoint(latest_checkpoint(tmp_path))
    before = read_checkpoint(tmp_path / 'iter_2.pth')
    latest_checkpoint(tmp_path).unlink()
    train('configs/demo/vq_rot_scale.py', overrides=overrides, smoke=True, resume=True)
    resumed = read_checkpoint(latest_checkpoint(tmp_path))
    name = 'autoencoder.quantize.embedding.weight'
    assert torch.equal(resumed['state_dict'][name], whole['state_dict'][name])
    assert torch.equal(resumed['codebook_idle'], whole['codebook_idle'])
    # codes idle at the cut were due after it
    assert (before['codebook_idle'] == 2).any()
    moved = (whole['state_dict'][name] - before['state_dict'][name]).abs().amax(dim=1)
    assert (moved[before['codebook_idle'] == 2] > 0.1).sum() > 10
