"""Resuming with a config that has changed: every change is listed, and is applied, kept from the checkpoint or refused."""

import math
import re
import shutil

import fault_hooks  # noqa: F401  registers them
import pytest
import torch

from eqzoo.commands.cli import run
from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.engine import build_runner, read_checkpoint, shrink
from eqzoo.engine.resume import RULES, config_changes
from eqzoo.files import sha256_of

CONFIG = """
from mmengine.config import read_base

with read_base():
    from eqzoo.configs.demo.rot_scale import *

custom_hooks = dict(ema=dict(type='EMAHook', decay=0.5))
val_dataloader = None
visualizer = None
default_hooks.checkpoint.update(save_best=None)
param_scheduler = dict(autoencoder=[
    dict(type='LinearLR', start_factor=0.5, end=4, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=4, T_max=100, end=104, by_epoch=False),
])
"""
LR = 'optim_wrapper.autoencoder.optimizer.lr'


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp('config') / 'small.py'
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory):
    """The folder of a run of four steps, with a checkpoint of each second."""
    folder = tmp_path_factory.mktemp('whole') / 'run'
    train(config, overrides=[f'work_dir={folder}'], smoke=True)
    return folder


@pytest.fixture
def resumed(config, whole, tmp_path, capsys):
    """A function that resumes the run at its second step; returns its last checkpoint and what it printed."""

    def resume(*overrides, change=lambda config: None):
        folder = tmp_path / 'run'
        shutil.copytree(whole, folder)
        (folder / 'iter_4.pth').unlink()
        capsys.readouterr()
        small = shrink(load_config(config, [f'work_dir={folder}', *overrides]))
        change(small)
        build_runner(small, resume=True).train()
        return read_checkpoint(folder / f'iter_{small.train_cfg.max_iters}.pth'), capsys.readouterr().out

    return resume


def changes(text):
    """The lines about changes: policy, key and values."""
    return re.findall(r'^  (applied|kept|refused) +(\S+): (.*), now (.*?)(?: \(.*\))?$', text, re.MULTILINE)


def test_a_dry_run_lists_changes_and_makes_none(config, whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / 'run')
    before = sha256_of(*sorted((tmp_path / 'run').glob('*.pth')))
    train(config, overrides=[f'work_dir={tmp_path}/run', f'{LR}=1e-12'], smoke=True, resume=True, dry_run=True)
    assert [(policy, key) for policy, key, *_ in changes(capsys.readouterr().out)] == [('applied', LR)]
    assert sha256_of(*sorted((tmp_path / 'run').glob('*.pth'))) == before
    with pytest.raises(ValueError, match=r'refused  model.encoder_rate: 1.0, now 0.5'):
        train(
            config,
            overrides=[f'work_dir={tmp_path}/run', 'model.encoder_rate=0.5'],
            smoke=True,
            resume=True,
            dry_run=True,
        )


def test_an_unchanged_resume_has_the_same_bits_and_no_message(resumed, whole, assert_same):
    checkpoint, out = resumed()
    assert 'has changed' not in out
    assert changes(out) == []
    last = read_checkpoint(whole / 'iter_4.pth')
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_same(checkpoint[part], last[part], part)


def test_a_new_learning_rate_is_trained_with(resumed, whole):
    checkpoint, out = resumed(f'{LR}=1e-12')
    assert changes(out) == [('applied', LR, '0.001', '1e-12')]
    (group,) = checkpoint['optimizer']['autoencoder']['param_groups']
    assert group['initial_lr'] == 1e-12
    # step 4 has been taken: half the rate at step 0, all of it at step 3, then a cosine over 100 steps
    assert group['lr'] == pytest.approx(1e-12 * (1 + math.cos(math.pi * 0 / 100)) / 2, rel=1e-6)
    before = read_checkpoint(whole / 'iter_2.pth')['state_dict']
    assert max(float((checkpoint['state_dict'][name] - value).abs().max()) for name, value in before.items()) < 1e-9
    last = read_checkpoint(whole / 'iter_4.pth')['state_dict']
    assert max(float((last[name] - value).abs().max()) for name, value in before.items()) > 1e-4


def test_hyper_parameters_and_schedules_are_where_they_would_be_from_the_start(resumed):
    schedule = [dict(type='ExponentialLR', gamma=0.9, by_epoch=False)]
    checkpoint, out = resumed(
        'optim_wrapper.autoencoder.optimizer.betas=(0.5,0.6)',
        f'param_scheduler.autoencoder={schedule!r}',
        change=lambda config: config.optim_wrapper.autoencoder.optimizer.update(weight_decay=0.25),
    )
    assert [each[:2] for each in changes(out)] == [
        ('applied', 'optim_wrapper.autoencoder.optimizer.betas.0'),
        ('applied', 'optim_wrapper.autoencoder.optimizer.betas.1'),
        ('applied', 'optim_wrapper.autoencoder.optimizer.weight_decay'),
        ('applied', 'param_scheduler.autoencoder'),
    ]
    (group,) = checkpoint['optimizer']['autoencoder']['param_groups']
    assert (tuple(group['betas']), group['weight_decay']) == ((0.5, 0.6), 0.25)
    assert group['lr'] == pytest.approx(1e-3 * 0.9**3)  # mmengine ends it before the last step


def test_a_run_with_a_new_rate_has_the_schedule_of_one_that_always_had_it(config, resumed, tmp_path, assert_same):
    """Exactly: the numbers of the schedule are computed by the same steps."""
    always = tmp_path / 'always'
    train(config, overrides=[f'work_dir={always}', f'{LR}=3e-4'], smoke=True)
    checkpoint, _ = resumed(f'{LR}=3e-4')
    expected = read_checkpoint(always / 'iter_4.pth')
    assert_same(
        checkpoint['optimizer']['autoencoder']['param_groups'], expected['optimizer']['autoencoder']['param_groups']
    )
    for one, other in zip(
        checkpoint['param_schedulers']['autoencoder'], expected['param_schedulers']['autoencoder'], strict=True
    ):
        assert one == other


def test_the_seed_is_the_checkpoints(resumed, whole, assert_same):
    checkpoint, out = resumed('seed=5')
    assert changes(out) == [('kept', 'seed', '0', '5')]
    assert_same(checkpoint['state_dict'], read_checkpoint(whole / 'iter_4.pth')['state_dict'])
    assert 'seed = 0\n' in checkpoint['meta']['cfg']


def test_other_data_batches_and_losses_are_applied_and_listed(resumed):
    def change(config):
        config.train_dataloader.batch_size = 2
        config.train_dataloader.dataset.num_images = 8
        config.model.penalties[0].weight = 0.5
        config.model.micro_batch_size = 1
        config.train_cfg.max_iters = 5
        config.train_dataloader.num_workers = 1  # changes no result

    checkpoint, out = resumed(change=change)
    assert checkpoint['meta']['iter'] == 5
    assert sorted(changes(out)) == [
        ('applied', 'model.micro_batch_size', 'None', '1'),
        ('applied', 'model.penalties.0.weight', '1e-06', '0.5'),
        ('applied', 'train_cfg.max_iters', '4', '5'),
        ('applied', 'train_dataloader.batch_size', '4', '2'),
        ('applied', 'train_dataloader.dataset.num_images', '16', '8'),
    ]


def drop_average(config):
    config.custom_hooks = {}


@pytest.mark.parametrize(
    ('overrides', 'change', 'key'),
    [
        ([], lambda c: c.model.autoencoder.update(norm_num_groups=2), 'model.autoencoder.norm_num_groups: 4, now 2'),
        (['model.autoencoder.padding_mode=reflect'], None, "model.autoencoder.padding_mode: 'zeros', now 'reflect'"),
        (
            [],
            lambda c: c.model.autoencoder.update(block_out_channels=(4, 8, 8)),
            'model.autoencoder.block_out_channels.0',
        ),
        (['model.encoder_rate=0.5'], None, 'model.encoder_rate: 1.0, now 0.5'),
        (
            [],
            lambda c: c.optim_wrapper.autoencoder.optimizer.update(type='AdamW'),
            "optimizer.type: 'Adam', now 'AdamW'",
        ),
        (
            [],
            lambda c: c.optim_wrapper.autoencoder.optimizer.update(amsgrad=True),
            'optimizer.amsgrad: False, now True',
        ),
        ([], drop_average, 'custom_hooks.EMAHook: '),
    ],
)
def test_what_a_resume_cannot_change_is_refused(overrides, change, key, resumed):
    with pytest.raises(ValueError, match='The config has changed since iter_2.pth') as refused:
        resumed('seed=5', *overrides, change=change or (lambda config: None))
    assert re.search(rf'^  refused  \S*{re.escape(key)}', str(refused.value), re.MULTILINE)
    assert '  kept     seed: 0, now 5 (' in str(refused.value)  # all are listed
    assert re.search(r'^Set \S+ back to resume, or start another run', str(refused.value), re.MULTILINE)


def test_tensors_are_compared_whatever_the_config_says(config, whole, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(whole, folder)
    checkpoint = read_checkpoint(folder / 'iter_4.pth')
    for name, value in (('shape', torch.zeros(1)), ('type', None)):
        weights = dict(checkpoint['state_dict'])
        first = min(weights)
        weights[first] = weights[first].double() if value is None else value
        torch.save({**checkpoint, 'state_dict': weights}, folder / 'iter_4.pth')
        expected = r'\(1,\), not' if name == 'shape' else r'torch.float64 .*, not torch.float32'
        with pytest.raises(ValueError, match=f'1 have another shape or type: {first} is .*{expected}'):
            train(config, overrides=[f'work_dir={folder}'], smoke=True, resume=True)


def test_names_of_tensors_are_compared_whatever_the_config_says(config, whole, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(whole, folder)
    checkpoint = read_checkpoint(folder / 'iter_4.pth')
    weights = dict(checkpoint['state_dict'])
    first = min(weights)
    weights['other'] = weights.pop(first)
    torch.save({**checkpoint, 'state_dict': weights}, folder / 'iter_4.pth')
    with pytest.raises(ValueError, match=rf'1 tensors are missing \({first}\), 1 are unknown \(other\), 0 have'):
        train(config, overrides=[f'work_dir={folder}'], smoke=True, resume=True)


def test_code_in_a_checkpoint_is_not_run(config, whole, tmp_path):
    """The text `config` is run by mmengine; ours, `cfg`, is read as values."""
    folder = tmp_path / 'run'
    shutil.copytree(whole, folder)
    checkpoint = read_checkpoint(folder / 'iter_4.pth')
    harm = f'import pathlib\npathlib.Path({str(tmp_path / "harm")!r}).touch()\n'
    torch.save({**checkpoint, 'meta': {**checkpoint['meta'], 'config': harm}}, folder / 'iter_4.pth')
    train(config, overrides=[f'work_dir={folder}'], smoke=True, resume=True)
    torch.save({**checkpoint, 'meta': {**checkpoint['meta'], 'cfg': harm}}, folder / 'iter_4.pth')
    with pytest.raises(ValueError, match='config in .*iter_4.pth cannot be compared'):
        train(config, overrides=[f'work_dir={folder}'], smoke=True, resume=True)
    assert not (tmp_path / 'harm').exists()


def test_the_remedy_for_a_loss_that_is_not_finite_is_one(config, tmp_path, capsys):
    """The advice of the message, followed: a smaller rate, with --resume."""
    words = [config, '--smoke', f'work_dir={tmp_path}', 'param_scheduler.autoencoder=[]']
    with pytest.raises(SystemExit, match='iter_2.pth with --resume, with a smaller learning rate'):
        run(train, [*words, "custom_hooks={'ema': {'type': 'EMAHook'}, 'fault': {'type': 'PoisonWeights', 'step': 3}}"])
    run(train, [*words, f'{LR}=1e-7', '--resume', "custom_hooks={'ema': {'type': 'EMAHook'}}"])
    out = capsys.readouterr().out
    assert ('applied', LR, '0.001', '1e-07') in changes(out)
    assert 'autoencoder.lr: 1.0000e-07' in out.rsplit('[4/4]', 1)[1]


BASE = """
model = dict(type='T', autoencoder=dict(type='KLAutoencoder', weights=None, scale=0.5), penalties=[dict(type='P', weight=1.0)])
optim_wrapper = dict(autoencoder=dict(optimizer=dict(type='Adam', lr=0.001), clip_grad=None))
custom_hooks = dict(ema=dict(type='EMAHook', decay=0.5))
train_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='Shapes', size=64))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='psnr'))
evaluators = [dict(type='ReconstructionMetric')]
compile = False
seed = 0
work_dir = '/a'
"""


@pytest.mark.parametrize(
    ('old', 'new', 'expected'),
    [
        ("work_dir = '/a'", "work_dir = '/b'", []),
        ('num_workers=0', 'num_workers=8', []),
        ('weights=None', "weights='x.pth'", ['kept model.autoencoder.weights']),
        ('scale=0.5', 'scale=0.25', ['kept model.autoencoder.scale']),
        ('scale=0.5', 'mean=0.5', ['kept model.autoencoder.scale', 'kept model.autoencoder.mean']),
        ("'KLAutoencoder'", "'VQAutoencoder'", ['refused model.autoencoder.type']),
        ("'KLAutoencoder'", "'eqzoo.autoencoders.kl.KLAutoencoder'", []),
        ('quant_conv=True', 'quant_conv=True', []),
        ('scale=0.5', 'scale=0.5, quant_conv=True', []),  # its default
        ('scale=0.5', 'scale=0.5, quant_conv=False', ['refused model.autoencoder.quant_conv']),
        ("[dict(type='P', weight=1.0)]", '[]', ['applied model.penalties']),
        ('clip_grad=None', 'clip_grad=dict(max_norm=1.0)', ['applied optim_wrapper.autoencoder.clip_grad']),
        ('ema=dict', 'average=dict', []),
        ('decay=0.5', 'decay=0.9', ['applied custom_hooks.EMAHook.decay']),
        ('size=64', 'size=32', ['applied train_dataloader.dataset.size']),
        ("'Shapes'", "'ImageFolder'", ['applied train_dataloader.dataset.type']),
        ("'psnr'", "'ssim'", ['applied default_hooks.checkpoint.save_best']),
        ('compile = False', "compile = dict(backend='eager')", ['applied compile']),
        ('compile = False\n', '', []),
        ('seed = 0', 'seed = 1', ['kept seed']),
        ("dict(type='T',", "dict(type='U',", ['refused model.type']),
        ('scale=0.5', 'scale=0.5, shift=0.1', ['kept model.autoencoder.shift']),
        ('penalties=', "adversarial_loss=dict(type='A'), penalties=", ['refused model.adversarial_loss']),
        ("'Adam'", "'AdamW'", ['refused optim_wrapper.autoencoder.optimizer.type']),
        ('lr=0.001', 'lr=0.001, fused=True', ['refused optim_wrapper.autoencoder.optimizer.fused']),
        ("ema=dict(type='EMAHook', decay=0.5)", '', ['refused custom_hooks.EMAHook']),
        ("[dict(type='ReconstructionMetric')]", '[]', ['applied evaluators']),
        (
            'seed = 0',
            "seed = 0\nsampling = dict(num_samples=3)\ndevice = 'cpu'\ntest_evaluators = [dict(type='A')]",
            [],
        ),
    ],
)
def test_each_kind_of_key_has_its_policy(old, new, expected):
    found = config_changes(BASE, BASE.replace(old, new))
    assert [f'{each.rule.policy} {each.key}' for each in found] == expected


def test_a_generators_autoencoder_is_no_more_trained(root):
    text = BASE.replace(
        "model = dict(type='T'", "model = dict(type='T', generator=dict(network=dict(width=8, weights='a'))"
    )
    kinds = {
        ('weights=None', "weights='x.pth'"): 'applied model.autoencoder.weights',
        ('scale=0.5', 'scale=0.25'): 'refused model.autoencoder.scale',
        ('width=8', 'width=16'): 'refused model.generator.network.width',
        ("weights='a'", "weights='b'"): 'kept model.generator.network.weights',
    }
    for (old, new), expected in kinds.items():
        (change,) = config_changes(text, text.replace(old, new))
        assert f'{change.rule.policy} {change.key}' == expected


def test_paths_in_a_folder_that_was_moved_are_the_same():
    old = BASE.replace('weights=None', "weights='/a/first/iter_4.pth'")
    assert config_changes(old, old.replace('/a', '/b')) == []


def test_the_best_of_another_measure_is_chosen_anew(tmp_path):
    leaf, hook = 'configs/demo/plain.py', 'default_hooks.checkpoint'
    train(leaf, overrides=[f'work_dir={tmp_path}', f'{hook}.save_best=psnr', f'{hook}.rule=greater'], smoke=True)
    assert (tmp_path / 'best_psnr_iter_4.pth').is_file()
    (tmp_path / 'iter_4.pth').unlink()
    checkpoint = read_checkpoint(tmp_path / 'iter_2.pth')
    checkpoint['message_hub']['runtime_info']['best_score'] = 1000.0
    torch.save(checkpoint, tmp_path / 'iter_2.pth')
    train(
        leaf,
        overrides=[f'work_dir={tmp_path}', f'{hook}.save_best=ssim', f'{hook}.rule=greater'],
        smoke=True,
        resume=True,
    )
    assert (tmp_path / 'best_ssim_iter_4.pth').is_file()


def test_the_page_has_every_rule(root):
    page = (root / 'docs/scaling.md').read_text()
    assert {rule.policy for rule in RULES} == {'applied', 'kept', 'refused', 'not compared'}
    for rule in RULES:
        assert not rule.reason or rule.reason in page, rule
