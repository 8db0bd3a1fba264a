"""Phases: one config, several trainings, each from where the last ended, resumed across them."""

import shutil

import pytest
import torch

from eqzoo.commands.cli import run
from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.engine import read_checkpoint
from eqzoo.engine.phases import phases_of

CONFIG = """
from mmengine.config import read_base

with read_base():
    from eqzoo.configs.demo.rot_scale import *

custom_hooks = dict(ema=dict(type='EMAHook', decay=0.5))
val_dataloader = None
visualizer = None
default_hooks.checkpoint.update(save_best=None)
phases = dict(
    regularise={},
    decoder={
        'model.objective': dict(type='Plain'),
        'model.penalties': [],
        'model.encoder_rate': 0.0,
        'optim_wrapper.autoencoder.optimizer.lr': 5e-3,
    },
)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'two_phases.py'
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole') / 'run'
    train(str(config), overrides=[f'work_dir={folder}'], smoke=True)
    return folder


def test_the_last_phase_ends_where_a_run_without_phases_does(finished):
    first, last = read_checkpoint(finished / 'regularise' / 'iter_4.pth'), read_checkpoint(finished / 'iter_4.pth')
    before, after = first['ema_state_dict'], last['ema_state_dict']
    assert before.keys() == after.keys()
    encoder = [name for name in before if name.startswith(('encoder', 'quant_conv'))]
    assert encoder
    # the phase starts from the average, and the frozen encoder's average is itself
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_a_run_stopped_in_any_phase_ends_with_the_same_bits(config, finished, tmp_path, assert_same, capsys):
    whole = read_checkpoint(finished / 'iter_4.pth')
    for name, lost in (
        ('first', ['iter_4.pth', 'iter_2.pth', 'regularise/iter_4.pth']),
        ('between', ['iter_4.pth', 'iter_2.pth']),
        ('second', ['iter_4.pth']),
    ):
        folder = tmp_path / name
        shutil.copytree(finished, folder)
        for file in lost:
            (folder / file).unlink()
        train(str(config), overrides=[f'work_dir={folder}'], smoke=True, resume=True, dry_run=True)
        assert 'has changed' not in capsys.readouterr().out
        train(str(config), overrides=[f'work_dir={folder}'], smoke=True, resume=True)
        assert (f'Phase regularise is done: {folder}/regularise/iter_4.pth' in capsys.readouterr().out) is (
            name != 'first'
        )
        resumed = read_checkpoint(folder / 'iter_4.pth')
        for part in ('state_dict', 'ema_state_dict', 'optimizer'):
            assert_same(resumed[part], whole[part], f'{name}: {part}')


def test_each_phase_has_its_own_keys_and_nothing_of_the_others(config):
    first, last = phases_of(load_config(config, ['work_dir=runs/x']))
    assert (first.name, first.config.work_dir, first.start) == ('regularise', 'runs/x/regularise', None)
    assert (last.name, last.config.work_dir) == ('decoder', 'runs/x')
    assert last.start == first.result
    assert (first.config.model.objective.type, last.config.model.objective.type) == ('ImplicitEquivariance', 'Plain')
    assert (len(first.config.model.penalties), len(last.config.model.penalties)) == (1, 0)
    assert last.config.model.encoder_rate == 0
    last.begin()
    assert last.config.model.autoencoder.weights == str(first.result)


def test_a_config_without_phases_is_one():
    config = load_config('configs/demo/plain.py')
    (only,) = phases_of(config)
    assert (only.name, only.config) == ('', config)


def test_a_dry_run_describes_every_phase(config, tmp_path, capsys):
    run(train, [str(config), '--smoke', '--dry-run', f'work_dir={tmp_path}/work'])
    text = capsys.readouterr().out
    assert text.index('phase regularise:') < text.index('phase decoder:') < text.index('frozen: only the decoder')
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('phases', 'message'),
    [
        ('[dict()]', r'phases: expected the changed keys of each phase by its name'),
        ("dict(a={'train_cfg.max_iter': 4})", r"phases.a: train_cfg has no key 'max_iter'. Did you mean 'max_iters'"),
        ("dict(a={'train_cfg.max_iters': 'many'})", r'phases.a train_cfg.max_iters: expected a number such as 500'),
        ("dict(a={}, b={'model.encoder_rate': 0.0})", r'encoder_rate: 0 freezes the encoder, .* KLDivergence'),
        ("dict(a={}, b={'model.objective': dict(type='Plian')})", r"Unknown .* 'Plian'. Did you mean 'Plain'"),
    ],
)
def test_a_mistake_in_any_phase_is_one_message_before_the_first_runs(config, phases, message, tmp_path):
    path = tmp_path / 'wrong.py'
    path.write_text(CONFIG.split('phases =')[0] + f'phases = {phases}')
    with pytest.raises(SystemExit, match=message):
        run(train, [str(path), '--smoke', '--dry-run', f'work_dir={tmp_path}/work'])


def test_a_discriminator_goes_on_in_the_next_phase(config):
    loaded = load_config(str(config))
    loaded.model.adversarial_loss = dict(type='AdversarialLoss', discriminator=dict(type='PatchGAN'), start_step=0)
    first, last = phases_of(loaded)
    first.begin()
    last.begin()
    assert 'weights' not in first.config.model.adversarial_loss.discriminator
    assert last.config.model.adversarial_loss.discriminator.weights == str(first.result)


@pytest.mark.parametrize('name', ['FeatureDiscriminator', 'other'])
def test_a_discriminator_that_is_another_one_or_reads_no_checkpoints_starts_anew(config, name):
    loaded = load_config(str(config))
    kind = 'PatchGAN' if name == 'other' else name
    loaded.model.adversarial_loss = dict(type='AdversarialLoss', discriminator=dict(type=kind), start_step=0)
    if name == 'other':
        loaded.phases.decoder['model.adversarial_loss.discriminator'] = dict(type='PatchGAN', width=16)
    _, last = phases_of(loaded)
    assert not last.keeps_discriminator
