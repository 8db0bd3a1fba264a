"""`tools/latent_stats.py`: the numbers are those of the latents, and they arrive in every file."""

import pytest
import torch
from diffusers import AutoencoderKL

from eqzoo.commands.cli import run
from eqzoo.commands.convert import convert
from eqzoo.commands.latent_stats import latent_stats
from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.engine import latest_checkpoint, read_checkpoint, shrink
from eqzoo.engine.work_dir import own_file
from eqzoo.images import to_float
from eqzoo.loading import load_autoencoder
from eqzoo.registry import build

LEAF = 'configs/eqvae/sdxl_rot_scale.py'
EMA = "custom_hooks={'ema': {'type': 'EMAHook', 'decay': 0.5}}"


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    train(LEAF, overrides=[f'work_dir={folder}', EMA], smoke=True)
    return folder


@pytest.fixture
def checkpoint(trained, tmp_path):
    copy = tmp_path / 'iter_4.pth'
    copy.write_bytes(latest_checkpoint(trained).read_bytes())
    return copy


def measure(checkpoint, *words):
    return run(latent_stats, [LEAF, str(checkpoint), '--smoke', *words])


def normalised(autoencoder, count):
    """Latents of the smoke run's training images, in generator units."""
    dataset = build(shrink(load_config(LEAF)).train_dataloader.dataset)
    images = torch.stack([dataset[index * len(dataset) // count]['image'] for index in range(count)])
    posterior = autoencoder.encode(to_float(images))
    return autoencoder.normalization.normalize(posterior.mean), posterior.std * autoencoder.normalization.scale[0]


def test_the_scale_written_brings_draws_to_unit_spread(checkpoint, capsys):
    before = read_checkpoint(checkpoint)
    measure(checkpoint)
    assert f'Written: {checkpoint}' in capsys.readouterr().out
    z, spread = normalised(load_autoencoder(checkpoint), 16)
    assert (z.var(correction=0) + spread.square().mean()).sqrt().item() == pytest.approx(1, abs=1e-4)
    after = read_checkpoint(checkpoint)
    assert after.keys() == before.keys()
    changed = {
        name for name, value in before['state_dict'].items() if not torch.equal(value, after['state_dict'][name])
    }
    assert changed == {'autoencoder.normalization.scale'}
    assert torch.equal(
        after['state_dict']['autoencoder.normalization.scale'], after['ema_state_dict']['normalization.scale']
    )
    assert after['optimizer'].keys() == before['optimizer'].keys()


def test_fewer_images_give_other_numbers(checkpoint):
    few, all_ = measure(checkpoint, '--num-images', '3', '--measure-only'), measure(checkpoint, '--measure-only')
    assert (few.num_images, all_.num_images) == (3, 16)
    assert few.overall_std != all_.overall_std


def test_exports_get_the_same_numbers(checkpoint, tmp_path):
    exports = {
        'folder': ('diffusers', tmp_path / 'folder'),
        'flat': ('eqzoo', tmp_path / 'vae.safetensors'),
        'plain': ('ldm', tmp_path / 'vae.ckpt'),
    }
    for to, path in exports.values():
        convert(str(checkpoint), str(path), to=to)
    measure(
        checkpoint, '--normalization', 'per_channel', '--exports', ','.join(str(path) for _, path in exports.values())
    )
    wanted = load_autoencoder(checkpoint).normalization
    assert len(set(wanted.scale.tolist())) == 4
    for _, path in exports.values():
        found = load_autoencoder(path).normalization
        assert torch.equal(found.scale, wanted.scale)
        assert torch.equal(found.shift, wanted.shift)
    config = AutoencoderKL.from_pretrained(tmp_path / 'folder').config
    torch.testing.assert_close(torch.tensor(config.latents_mean), wanted.mean)
    torch.testing.assert_close(torch.tensor(config.latents_std), wanted.std)


def test_measuring_only_writes_nothing(checkpoint):
    before = checkpoint.read_bytes()
    measure(checkpoint, '--measure-only')
    assert checkpoint.read_bytes() == before


def test_a_file_that_another_command_writes_is_refused_before_measuring(checkpoint, tmp_path):
    export, before = tmp_path / 'vae.safetensors', checkpoint.read_bytes()
    convert(str(checkpoint), str(export), to='eqzoo')
    with own_file(checkpoint, 'OUT'), pytest.raises(SystemExit, match=r'CHECKPOINT: .*iter_4.pth is in use by another'):
        measure(tmp_path)  # the newest checkpoint in it
    with own_file(export, 'OUT'), pytest.raises(SystemExit, match='--exports: .*vae.safetensors is in use by another'):
        measure(checkpoint, '--exports', str(export))
    assert checkpoint.read_bytes() == before
    with own_file(checkpoint, 'OUT'):
        measure(checkpoint, '--measure-only')
    measure(checkpoint, '--exports', f'{tmp_path},{export}')  # three names of two files
    assert checkpoint.read_bytes() != before
    assert set(tmp_path.iterdir()) == {checkpoint, export}


def test_files_without_a_place_for_them_are_refused_before_measuring(checkpoint, tmp_path):
    state = load_autoencoder(checkpoint).state_dict()
    bare = {key: value for key, value in state.items() if not key.startswith('normalization.')}
    torch.save(bare, tmp_path / 'bare.pth')
    with pytest.raises(SystemExit, match=r'bare.pth. has no place for them; .* convert it first'):
        measure(tmp_path / 'bare.pth')
    with pytest.raises(SystemExit, match=r'bare.pth. has no place for them'):
        measure(checkpoint, '--exports', str(tmp_path / 'bare.pth'))
    with pytest.raises(SystemExit, match=r'there is no file .*nowhere.pth'):
        measure(tmp_path / 'nowhere.pth')
