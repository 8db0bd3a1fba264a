"""`tools/cache_latents.py`, from the command line's words to the store."""

import re
import subprocess
import sys

import pytest
import torch

from eqzoo.benchmarks.latents import compare_reading
from eqzoo.commands.benchmark.data import cache, store
from eqzoo.commands.cache_latents import cache_latents, normalized_std
from eqzoo.commands.cli import run
from eqzoo.commands.latent_stats import latent_stats
from eqzoo.commands.train import train
from eqzoo.data.latents import LatentStore
from eqzoo.engine import latest_checkpoint
from eqzoo.registry import build

LEAF = 'configs/eqvae/sd_rot_scale.py'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    train(LEAF, overrides=[f'work_dir={folder}'], smoke=True)
    return latest_checkpoint(folder)


@pytest.fixture
def checkpoint(trained, tmp_path):
    copy = tmp_path / 'iter_4.pth'
    copy.write_bytes(trained.read_bytes())
    return copy


def call(*words):
    return run(cache_latents, [LEAF, *map(str, words)])


def test_a_checkpoint_and_a_config_give_a_store_that_fits_them(checkpoint, tmp_path, capsys):
    written = call(checkpoint, '--smoke', '--out', tmp_path / 'store', '--flip', '--dtype', 'bfloat16')
    store = LatentStore(tmp_path / 'store', flip=True)
    assert (len(store), written.num_encoded) == (16, 16)
    assert store.plan.fields['mean'].dtype == 'bfloat16'
    assert store.autoencoder['config']['type'] == 'KLAutoencoder'
    assert store.autoencoder['config']['block_out_channels'] == [8, 8, 8, 8]
    printed = capsys.readouterr().out
    assert 'written, 16 of 16 images by this run' in printed
    assert 'mean 4x8x8 bfloat16, std 4x8x8 bfloat16, and of the mirrored image' in printed
    assert re.search(r'speed +[\d.e+]+ images/s', printed)
    call(checkpoint, '--smoke', '--out', tmp_path / 'store', '--flip', '--dtype', 'bfloat16')
    assert 'already complete; nothing to do' in capsys.readouterr().out


def test_a_spread_far_from_one_is_told_with_the_command_that_mends_it(checkpoint, tmp_path, capsys):
    written = call(checkpoint, '--smoke', '--out', tmp_path / 'store')
    std, channels = normalized_std(written.index)
    assert (
        f'{std:.3f} in generator units, {min(channels):.3f} to {max(channels):.3f} by channel'
        in capsys.readouterr().out
    )
    assert not 0.8 <= std <= 1.25  # scale 0.18215 of a network that has not learnt anything
    call(checkpoint, '--smoke', '--out', tmp_path / 'store')
    assert f'python tools/latent_stats.py {LEAF} {checkpoint}' in capsys.readouterr().out
    latent_stats(LEAF, str(checkpoint), overrides=[], smoke=True)
    again = call(checkpoint, '--smoke', '--out', tmp_path / 'store')
    printed = capsys.readouterr().out
    assert (again.outcome, again.num_encoded) == ('renormalized', 0)
    assert "already complete; updated to the autoencoder's current normalisation" in printed
    assert 'Generators expect' not in printed
    assert normalized_std(again.index)[0] == pytest.approx(1, abs=1e-4)


def config_of(tmp_path, text):
    path = tmp_path / 'leaf.py'
    path.write_text(
        "model = dict(autoencoder=dict(type='TinyAutoencoder', width=8, num_blocks=(1, 1)))\n"
        f"train_cfg = dict(max_iters=1)\ntrain_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='LatentStore', root='{tmp_path}/store'))\n"
        + text
    )
    return str(path)


def test_images_and_folder_come_from_a_generators_config(tmp_path, capsys):
    text = "cache_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='Shapes', num_images=6, size=32))\n"
    written = run(cache_latents, [config_of(tmp_path, text), '--smoke'])
    assert written.num_encoded == 6
    assert LatentStore(tmp_path / 'store').plan.images['size'] == 32
    run(cache_latents, [config_of(tmp_path, text), '--verify'])
    assert '6 images in 1 shard, every row as it was written' in capsys.readouterr().out


def test_a_store_in_the_home_folder_is_locked_and_written_there(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    store = "train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type='LatentStore', root='~/latents'))"
    images = "cache_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='Shapes', num_images=2, size=64))"
    model = "model = dict(autoencoder=dict(type='TinyAutoencoder', weights=None))"
    (tmp_path / 'home').mkdir()
    torch.save(build(dict(type='TinyAutoencoder')).state_dict(), tmp_path / 'home/tiny.pth')
    (tmp_path / 'mine.py').write_text('\n'.join([store, images, model]))
    run(cache_latents, [str(tmp_path / 'mine.py'), 'model.autoencoder.weights=~/tiny.pth'])
    assert len(LatentStore(tmp_path / 'home/latents')) == 2
    assert list((tmp_path / 'here').iterdir()) == []


def test_verify_names_damaged_rows(tmp_path):
    text = "cache_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='Shapes', num_images=6, size=32))\n"
    config = config_of(tmp_path, text)
    run(cache_latents, [config, '--smoke', '--shard-images', '2'])
    shard = tmp_path / 'store' / 'shard-00001.safetensors'
    content = bytearray(shard.read_bytes())
    content[-1] ^= 64
    shard.write_bytes(content)
    with pytest.raises(
        SystemExit, match=r'1 damaged rows:\n.*shard-00001.safetensors, row 1 \(image 3\)\nDelete these'
    ):
        run(cache_latents, [config, '--verify'])
    shard.unlink()
    assert run(cache_latents, [config, '--smoke']).num_encoded == 2
    run(cache_latents, [config, '--verify'])


def test_what_a_config_lacks_is_said(tmp_path):
    with pytest.raises(SystemExit, match='train_dataloader.dataset is no LatentStore .*--out FOLDER'):
        call('--smoke')
    with pytest.raises(
        SystemExit, match='no images to encode: it has no cache_dataloader, and train_dataloader is of latents'
    ):
        run(cache_latents, [config_of(tmp_path, '')])
    text = "cache_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='ImageFolder', size=32, root='/nowhere'))\n"
    with pytest.raises(
        SystemExit, match='names no weights, and latents of random ones are of no use; give a CHECKPOINT'
    ):
        run(cache_latents, [config_of(tmp_path, text)])
    with pytest.raises(SystemExit, match=r'(?s)2 missing.*1. weights of TinyAutoencoder .*2. ImageFolder: /nowhere'):
        run(cache_latents, [config_of(tmp_path, text), '/nowhere/a.pth'])


def test_two_processes_write_the_same_bytes(tmp_path):
    text = "cache_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(type='Shapes', num_images=14, size=32))\n"
    config = config_of(tmp_path, text)
    words = ['tools/cache_latents.py', config, '--smoke', '--shard-images', '3', '--out']
    run(cache_latents, [*words[1:], str(tmp_path / 'one')])
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--standalone']
    result = subprocess.run([*torchrun, *words, str(tmp_path / 'two')], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('written, 14 of 14 images by this run') == 1
    for path in (tmp_path / 'one').glob('[!.]*'):
        assert (tmp_path / 'two' / path.name).read_bytes() == path.read_bytes(), path.name


def test_help():
    result = subprocess.run(
        [sys.executable, 'tools/cache_latents.py', '--help'], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0
    assert '--shard-images' in result.stdout


def test_speeds_are_printed_as_ratios(capsys):
    run(
        cache,
        ['configs/zoo/autoencoders/taesd.py', '--size', '16', '--images', '4', '--batch-size', '2', '--rounds', '1'],
    )
    printed = capsys.readouterr().out
    assert all(float(ratio) > 0 for ratio in re.findall(r'ratio .*: ([\d.]+)x', printed))
    assert printed.count('ratio') == 2
    run(store, ['--images', '24', '--batch-size', '8', '--rounds', '1', '--dtype', 'float16'])
    printed = capsys.readouterr().out
    assert re.search(r'latents.npy \+ labels.npy +[\d,]+ +[\d.]+x', printed)
    assert re.search(r'store +[\d,]+ +1.0x', printed)
    assert 'store of mean and std in float16' in printed
    run(store, ['--images', '24', '--batch-size', '8', '--rounds', '1', '--mean-only'])
    assert 'store of mean in float32' in capsys.readouterr().out


def test_the_layouts_compared_hold_the_same_latents(tmp_path):
    compare_reading(tmp_path, num_images=8, batch_size=4, num_workers=0, dtype='float32', posterior=True, rounds=1)
    from eqzoo.benchmarks.latents import _Files

    item = LatentStore(str(tmp_path / 'store-float32'))[5]
    moments, label = _Files(tmp_path / 'files', 'moments.npy', list(range(8)))[5, 0]
    assert torch.equal(moments, torch.cat([item['mean'], item['std']]))
    latent, stored = _Files(tmp_path / 'files', 'latents.npy + labels.npy', [])[5, 0]
    assert torch.equal(latent, item['mean'])
    assert (label, stored.tolist()) == (5, [item['label']])


def test_a_config_that_flips_its_latents_gets_the_mirrored_copy(tmp_path):
    leaf = 'configs/dit/dit_b2_sd.py'
    words = [leaf, '--smoke', '--out', str(tmp_path / 'store'), f'work_dir={tmp_path / "run"}']
    run(cache_latents, words)
    assert LatentStore(tmp_path / 'store', flip=True).plan.flip
    run(cache_latents, [*words, 'train_dataloader.dataset.flip=false', f'--out={tmp_path / "other"}'])
    assert not LatentStore(tmp_path / 'other').plan.flip
