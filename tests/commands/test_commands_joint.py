"""REPA-E's way through the commands: train, resume, sample, test, convert; all read both models from one file."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import eqzoo
from eqzoo.checkpoints.autoencoder import autoencoder_digest
from eqzoo.checkpoints.write import write_normalization
from eqzoo.commands.cli import run
from eqzoo.commands.convert import convert
from eqzoo.commands.sample import sample
from eqzoo.commands.test import test as evaluate
from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.engine import latest_checkpoint, read_checkpoint
from eqzoo.images import to_uint8
from eqzoo.randomness import SampleStreams
from eqzoo.registry import build

LEAF = 'configs/repae/repae_tiny_shapes.py'


@pytest.fixture(scope='module')
def trained(tmp_path_factory, request):
    """The work directory of a smoke run."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp('repae')
    os.chdir(request.config.rootpath)
    train(LEAF, overrides=[f'work_dir={folder}'], smoke=True)
    os.chdir(before)
    return folder


def test_a_checkpoint_holds_both_models_their_averages_and_whose_latents_they_are(trained):
    checkpoint = read_checkpoint(trained / 'iter_4.pth')
    average = checkpoint['ema_state_dict']
    assert {name.split('.')[0] for name in average} == {'autoencoder', 'generator'}
    assert checkpoint['state_dict'].keys() - average.keys() == {'reconstruction_loss.log_variance'}
    differs = {name for name, value in average.items() if not torch.equal(value, checkpoint['state_dict'][name])}
    for name in ('autoencoder.encoder.conv_in.weight', 'autoencoder.normalization.scale'):
        assert name in differs
    assert 'generator.network.pos_embed' not in differs
    assert set(checkpoint['optimizer']) == {'autoencoder', 'generator'}
    assert (checkpoint['autoencoder']['type'], checkpoint['generator']['type']) == ('KLAutoencoder', 'REPA')
    autoencoder = eqzoo.load(trained / 'iter_4.pth')
    assert torch.equal(autoencoder.normalization.scale, average['autoencoder.normalization.scale'])
    assert torch.equal(autoencoder.encoder.conv_in.weight, average['autoencoder.encoder.conv_in.weight'])
    assert checkpoint['latents']['autoencoder'] == autoencoder_digest(autoencoder)
    assert checkpoint['latents']['scale'] == autoencoder.normalization.scale.tolist()


def test_a_resumed_run_is_the_same_run_to_the_bit(trained, tmp_path, assert_same):
    shutil.copy(trained / 'iter_2.pth', tmp_path)
    train(LEAF, overrides=[f'work_dir={tmp_path}'], smoke=True, resume=True)
    whole, parts = (read_checkpoint(folder / 'iter_4.pth') for folder in (trained, tmp_path))
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'generator', 'latents'):
        assert_same(whole[part], parts[part], part)


def test_samples_are_drawn_by_the_average_and_decoded_by_that_of_the_autoencoder(trained, tmp_path):
    words = [LEAF, '--smoke', f'work_dir={trained}', '--out', str(tmp_path / 'a.npz'), '--num', '5']
    run(sample, words)
    config = load_config(LEAF)
    stored = read_checkpoint(trained / 'iter_4.pth')['generator']
    generator = eqzoo.load(trained / 'iter_4.pth', config=stored)
    autoencoder = eqzoo.load(trained / 'iter_4.pth')
    with torch.no_grad():
        labels, streams = torch.arange(5), SampleStreams(0, torch.arange(5))
        latents = build(config.sampling.sampler)(generator, labels, streams)
        images = autoencoder.decode(
            latents / autoencoder.normalization.scale[:, None, None] + autoencoder.normalization.shift[:, None, None]
        )
    drawn = np.load(tmp_path / 'a.npz')['arr_0'].astype(int)
    assert np.abs(drawn - to_uint8(images).permute(0, 2, 3, 1).numpy()).max() <= 1  # batches round differently


def test_samples_are_measured(trained):
    result = evaluate(LEAF, overrides=[f'work_dir={trained}'], smoke=True)
    assert set(result['metrics']) >= {'fd_effnet_lite0', 'swd'}
    assert result['card']['num_images'] == 8
    assert result['card']['weights']['file'] == str(trained / 'iter_4.pth')


@pytest.mark.parametrize(('to', 'name'), [('diffusers', 'vae'), ('eqzoo', 'vae.safetensors'), ('ldm', 'vae.ckpt')])
def test_the_autoencoder_is_exported_with_its_statistics(to, name, trained, tmp_path, capsys):
    convert(str(trained / 'iter_4.pth'), str(tmp_path / name), to=to)
    assert 'tensors of generator.network' in capsys.readouterr().out
    exported, own = eqzoo.load(tmp_path / name), eqzoo.load(trained / 'iter_4.pth')
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(exported.latents(images), own.latents(images))
    assert not torch.equal(own.normalization.scale, torch.ones(4))


def test_another_normalisation_is_not_written_beside_its_generator(trained, tmp_path):
    shutil.copy(trained / 'iter_4.pth', tmp_path)
    with pytest.raises(ValueError, match=r'iter_4.pth.* is of joint training.*convert.py SRC DST --to eqzoo'):
        write_normalization(tmp_path / 'iter_4.pth', torch.zeros(4), torch.ones(4))


def test_starting_weights_that_change_are_kept_on_resume_and_another_weight_is_applied(trained, tmp_path, capsys):
    shutil.copy(trained / 'iter_2.pth', tmp_path)
    words = [f'work_dir={tmp_path}', 'model.autoencoder.scale=0.3', 'model.alignment_weight=0.5']
    train(LEAF, overrides=words, smoke=True, dry_run=True, resume=True)
    out = capsys.readouterr().out
    assert 'kept     model.autoencoder.scale: ' in out
    assert 'applied  model.alignment_weight: 1.5, now 0.5' in out
    assert 'generator optimizer' in out
    assert latest_checkpoint(tmp_path).name == 'iter_2.pth'
