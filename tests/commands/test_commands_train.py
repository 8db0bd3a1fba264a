"""`tools/train.py`: every leaf runs, a resumed run is the same run, and mistakes are one message."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eqzoo.commands.cli import run
from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.engine import latest_checkpoint, read_checkpoint

# those of studies are tested with the studies
LEAVES = sorted(str(path) for path in Path('configs').rglob('*.py') if not {'_base_', 'studies', 'zoo'} & {*path.parts})


def parts_of(leaf):
    """What a leaf's smoke run is made of: which autoencoder, and the types of all components."""
    content = load_config(leaf).to_dict()
    autoencoder = content['model']['autoencoder']
    shape = [autoencoder.get(key) for key in ('type', 'latent_channels', 'block_out_channels', 'width')]
    return {str(shape), *component_types(content)}


def component_types(value):
    if isinstance(value, dict):
        yield from [str(value['type'])] if 'type' in value else []
        yield from (name for part in value.values() for name in component_types(part))
    elif isinstance(value, list | tuple):
        yield from (name for part in value for name in component_types(part))


def parameters(leaves):
    """A case for each leaf; one without a part that no leaf before it has, as with another weight, is slow."""
    seen, cases = set(), []
    for leaf in sorted(leaves, key=lambda leaf: ('/sd' in leaf, leaf)):  # the small networks first
        parts = parts_of(leaf)
        cases.append(pytest.param(leaf, marks=[pytest.mark.slow] if parts <= seen else []))
        seen |= parts
    return cases


GENERATORS = [
    leaf for leaf in LEAVES if Path(leaf).parent.name in ('dit', 'sit', 'repa', 'maskgit', 'halton', 'lightningdit')
]
JOINT = [leaf for leaf in LEAVES if Path(leaf).parent.name == 'repae']
AUTOENCODERS = [leaf for leaf in LEAVES if leaf not in (*GENERATORS, *JOINT)]


def smoke(leaf, work_dir, *overrides, resume=False):
    train(leaf, overrides=[f'work_dir={work_dir}', *overrides], smoke=True, resume=resume)
    return read_checkpoint(latest_checkpoint(work_dir))


@pytest.mark.parametrize('leaf', parameters(GENERATORS))
def test_every_generator_trains_in_smoke(leaf, tmp_path):
    checkpoint = smoke(leaf, tmp_path)
    assert checkpoint['meta']['iter'] == 4
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())
    assert {path.name for path in (tmp_path / 'pictures').iterdir()} == {'0000002.png', '0000004.png'}


@pytest.mark.parametrize('leaf', parameters(AUTOENCODERS))
def test_every_autoencoder_trains_in_smoke(leaf, tmp_path):
    checkpoint = smoke(leaf, tmp_path)
    assert checkpoint['meta']['iter'] == 4
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())
    assert {path.name for path in (tmp_path / 'pictures').iterdir()} == {'0000002.png', '0000004.png'}
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert {'loss', 'eq_err/rotation'} <= {key for line in scalars for key in json.loads(line)}
    assert list(tmp_path.glob('*/vis_data/events.out.tfevents*'))
    assert list(tmp_path.glob('best_eq_err_rotation_*.pth'))


@pytest.mark.parametrize('leaf', parameters(JOINT))
def test_every_autoencoder_trains_with_its_generator_in_smoke(leaf, tmp_path):
    checkpoint = smoke(leaf, tmp_path)
    assert checkpoint['meta']['iter'] == 4
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())
    pictures = {f'000000{step}_{name}.png' for step in (2, 4) for name in ('autoencoder', 'samples')}
    assert {path.name for path in (tmp_path / 'pictures').iterdir()} == pictures
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert {'loss', 'generator_loss', 'psnr'} <= {key for line in scalars for key in json.loads(line)}


@pytest.mark.parametrize('config', ['configs/zoo/autoencoders/taesd.py', 'configs/studies/p_shapes.py'])
def test_a_config_that_trains_nothing_is_refused(config):
    with pytest.raises(SystemExit, match=f'{config} describes no training: .*train_cfg'):
        run(train, [config, '--smoke'])


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('train_dataloader.dataset.size=62', 'images of 62 x 62 pixels; expected positive multiples of 4'),
        ('optim_wrapper.autoencoder.optimizer.type=AdamV', "Unknown optimizer 'AdamV'. Did you mean 'Adam"),
        ('optim_wrapper={"generator": {"optimizer": {"type": "Adam"}}}', 'has the parameter groups .*autoencoder'),
        ('visualizer.vis_backends.1.type=ClearMLVisBackend', 'ClearMLVisBackend needs clearml, which is not installed'),
        ('default_hooks.checkpoint.type=Checkpoint', "Unknown hook 'Checkpoint'. Did you mean 'CheckpointHook'"),
        ('val_dataloader=none', 'PictureHook draws images of val_dataloader, which is missing'),
        ('custom_hooks={"codes": {"type": "CodebookHook"}}', 'KLAutoencoder has no codebook; leave the hook out'),
        ('evaluators.0.type=NeighborConsistency', 'lnc'),
        ('model.autoencoder.norm_num_groups=3', 'divisible'),
    ],
)
def test_a_dry_run_refuses_what_a_run_would_refuse_before_its_first_step(override, message, tmp_path):
    words = ['configs/demo/pretrain.py', f'work_dir={tmp_path}/run', 'val_dataloader.dataset.num_images=4']
    with pytest.raises(SystemExit, match=message):
        run(train, [*words, override, '--dry-run'])
    assert not (tmp_path / 'run').exists()


def test_a_dry_run_refuses_a_folder_that_holds_a_run(tmp_path):
    (tmp_path / 'iter_4.pth').touch()
    with pytest.raises(SystemExit, match='already holds a run'):
        run(train, ['configs/demo/pretrain.py', f'work_dir={tmp_path}', '--dry-run'])


def test_a_resumed_run_is_the_same_run(tmp_path, assert_same):
    """Autoencoder, discriminator, both optimizers and the average: all bit for bit."""
    leaf = 'configs/eqvae/sdxl_rot_scale.py'
    ema = "custom_hooks={'ema': {'type': 'EMAHook', 'decay': 0.5}}"
    whole = smoke(leaf, tmp_path / 'whole', ema)
    smoke(leaf, tmp_path / 'cut', ema)
    latest = tmp_path / 'cut' / 'iter_4.pth'
    latest.unlink()  # as if killed after the second step's checkpoint
    resumed = smoke(leaf, tmp_path / 'cut', ema, resume=True)
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        assert_same(resumed[part], whole[part], part)
    changed = [
        n for n, v in whole['ema_state_dict'].items() if not torch.equal(v, whole['state_dict'][f'autoencoder.{n}'])
    ]
    assert len(changed) > 50  # the average is not simply the weights


@pytest.mark.parametrize('leaf', ['configs/repa/repa_tiny_shapes.py', 'configs/maskgit/maskgit_base_vqgan.py'])
def test_a_resumed_generator_is_the_same_run(leaf, tmp_path, assert_same):
    """Of MaskGIT with its dropout."""
    whole = smoke(leaf, tmp_path / 'run')
    (tmp_path / 'run' / 'iter_4.pth').unlink()
    resumed = smoke(leaf, tmp_path / 'run', resume=True)
    assert resumed.keys() == whole.keys()
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'generator', 'latents'):
        assert_same(resumed.get(part), whole.get(part), part)


def test_resume_works_after_the_folder_was_moved(tmp_path):
    leaf = 'configs/demo/plain.py'
    smoke(leaf, tmp_path / 'old')
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert latest_checkpoint(tmp_path / 'new') == tmp_path / 'new' / 'iter_4.pth'
    assert smoke(leaf, tmp_path / 'new', resume=True)['meta']['iter'] == 4


def test_without_files_it_says_all_that_is_missing_before_anything_is_built(tmp_path, monkeypatch, root):
    (tmp_path / 'configs').symlink_to(root / 'configs')
    monkeypatch.chdir(tmp_path)  # where nobody has put weights or data
    monkeypatch.delenv('EQZOO_WEIGHTS_DIR', raising=False)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        run(train, ['configs/eqvae/sdxl_rot_scale.py', f'work_dir={tmp_path}/work'])
    message = str(stop.value)
    assert message.startswith('error: configs/eqvae/sdxl_rot_scale.py cannot run yet: 4 missing.')
    for part in (
        'vgg16-397923af.pth',
        'eqzoo://sdxl-vae',
        'data/openimages/train',
        'data/imagenet/val',
        'download.py sdxl-vae',
    ):
        assert part in message
    assert message.endswith('python tools/train.py configs/eqvae/sdxl_rot_scale.py --smoke')
    assert not (tmp_path / 'work').exists()


def test_dry_run_describes_and_trains_nothing(tmp_path, capsys):
    run(train, ['configs/eqvae/sd16_rot_scale.py', '--smoke', '--dry-run', f'work_dir={tmp_path}/work'])
    text = capsys.readouterr().out
    assert 'KLAutoencoder, f16, 16 channels' in text
    assert 'autoencoder optimizer    Adam, lr 0.0001' in text
    assert not (tmp_path / 'work').exists()


def test_a_dry_run_of_two_processes_is_of_both_and_may_have_shards(tmp_path):
    """Of four samples each process has two; only the first one prints."""
    words = ['configs/dit/dit_tiny_shapes.py', '--smoke', '--dry-run', 'sharding=full', f'work_dir={tmp_path}/work']
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--standalone']
    result = subprocess.run([*torchrun, 'tools/train.py', *words], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert re.findall(
        'step with (.*?) samples at once on each of (.*?) processes .*; sharding cuts', result.stdout
    ) == [('2', '2')]
    assert result.stdout.count('Nothing is missing.') == 1
    assert not (tmp_path / 'work' / 'iter_4.pth').exists()
    with pytest.raises(SystemExit, match='sharding: there is only one process; start several with torchrun'):
        run(train, words)


def test_an_optimizer_without_lr_has_that_of_its_class(tmp_path, capsys):
    words = ['configs/eqvae/sd16_rot_scale.py', '--smoke', '--dry-run', f'work_dir={tmp_path}/work']
    run(train, [*words, "optim_wrapper.autoencoder.optimizer={'type': 'AdamW'}", 'model.encoder_rate=0.5'])
    assert 'autoencoder optimizer    AdamW, lr 0.001' in capsys.readouterr().out


def test_a_run_is_not_overwritten(tmp_path):
    (tmp_path / 'iter_9.pth').touch()
    words = ['configs/demo/pretrain.py', f'work_dir={tmp_path}']
    with pytest.raises(SystemExit, match=r'already holds a run \(iter_9.pth\); .*--resume'):
        run(train, words)
    with pytest.raises(SystemExit, match=r'--resume: .*/none has no checkpoint'):
        run(train, ['configs/demo/pretrain.py', f'work_dir={tmp_path}/none', '--resume'])


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['configs/no_such.py'], "error: Config 'configs/no_such.py' is not a file"),
        (['configs/demo/pretrain.py', 'train_cfg.max_iter=1'], "error: Override: train_cfg has no key 'max_iter'"),
        (
            ['configs/demo/pretrain.py', "model.objective={'type': 'Plian'}"],
            r"model.objective: Unknown regulariser 'Plian'. Did you mean 'Plain'",
        ),
        (['configs/demo/pretrain.py', 'train_dataloader.dataset.num_images=0'], r'Shapes'),
        (
            ['configs/demo/pretrain.py', "custom_hooks={'pictures': {'type': 'PictureHook', 'intervall': 1}}"],
            r"custom_hooks\.pictures: PictureHook has no argument 'intervall'. Did you mean 'interval'",
        ),
    ],
)
def test_a_users_mistake_is_one_message(words, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run(train, [*words, f'work_dir={tmp_path}'])


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    smoke('configs/demo/plain.py', tmp_path)
    with pytest.raises(
        ValueError, match=r'changed since iter_4.pth:\n  refused  custom_hooks.EMAHook.*\n  refused  model.auto'
    ):
        smoke('configs/eqvae/sdxl_rot_scale.py', tmp_path, resume=True)


def test_a_run_says_what_it_will_do_before_its_first_step(tmp_path, capsys):
    words = ['configs/demo/plain.py', '--smoke', f'work_dir={tmp_path}']
    run(train, [*words, '--dry-run'])
    summary, memory = capsys.readouterr().out.removesuffix('Nothing is missing.\n').split('memory', 1)
    assert re.match(r' +[\d.]+ GiB at the peak of a step with 4 samples at once ', memory)
    assert summary.count('\n') > 5
    run(train, words)
    out = capsys.readouterr().out
    assert out.startswith(summary)
    assert out[len(summary) :].startswith('step 1 of 4  loss: ')
