"""Reflect padding in folders of diffusers: the printed lines, and those of the model card, give eqzoo's outputs."""

import json
import re

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel

from eqzoo.autoencoders import KLAutoencoder
from eqzoo.checkpoints.autoencoder import read_autoencoder
from eqzoo.commands.cli import run
from eqzoo.commands.convert import convert
from eqzoo.loading import load_autoencoder
from eqzoo.registry import build

LEVELS = dict(block_out_channels=(8, 8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4)
CONFIGS = {
    'KL': (AutoencoderKL, dict(type='KLAutoencoder', **LEVELS, scale=0.18215)),
    'VQ': (VQModel, dict(type='VQAutoencoder', **LEVELS, num_codes=16, attention_levels=(2,))),
    'tiny': (AutoencoderTiny, dict(type='TinyAutoencoder', num_blocks=(1, 1, 2), width=8)),
}
IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.fixture
def converted(tmp_path, capsys):
    """A function: convert a file of `name` with a padding to a folder of diffusers, and return it and the output."""

    def convert_to_diffusers(name, mode):
        torch.manual_seed(0)
        config = dict(CONFIGS[name][1], padding_mode=mode)
        torch.save(build(config).state_dict(), tmp_path / 'file.pt')
        (tmp_path / 'config.py').write_text(f'autoencoder = {config!r}')
        folder = tmp_path / mode
        words = [tmp_path / 'file.pt', folder, '--to', 'diffusers', '--config', tmp_path / 'config.py']
        run(convert, list(map(str, words)))
        return folder, capsys.readouterr().out

    return convert_to_diffusers


def outputs(opened, ours):
    """Encode and decode by diffusers' own class, and by eqzoo."""
    encoded, expected = opened.encode(IMAGES), ours.encode(IMAGES).mean
    latents = encoded.latent_dist.mean if hasattr(encoded, 'latent_dist') else encoded.latents
    return latents, expected, opened.decode(expected).sample, ours.decode(expected)


@pytest.mark.parametrize('mode', ['reflect', 'reflect_conv2d'])
@pytest.mark.parametrize('name', CONFIGS)
@torch.no_grad()
def test_the_lines_that_are_printed_give_the_same_outputs(converted, name, mode):
    folder, printed = converted(name, mode)
    ours = load_autoencoder(folder)
    assert ours.padding_mode == mode
    card = re.search(r'```python\n(.*?)```', (folder / 'README.md').read_text(), re.S)[1]
    for lines in (printed.split('\n\n', 1)[1], card.replace('path/of/this/folder', str(folder))):
        names = {}
        exec(lines, names)
        assert type(names['autoencoder']) is CONFIGS[name][0]
        latents, expected, images, ours_images = outputs(names['autoencoder'], ours)
        assert torch.equal(latents, expected)
        assert torch.equal(images, ours_images)
    # without the lines, the class pads with zeros
    latents, expected, images, ours_images = outputs(CONFIGS[name][0].from_pretrained(folder), ours)
    assert not torch.allclose(latents, expected, atol=1e-4)
    assert not torch.allclose(images, ours_images, atol=1e-4)


def test_the_padding_is_in_config_json_and_needs_no_file_of_eqzoo(converted):
    folder, printed = converted('KL', 'reflect_conv2d')
    assert "note 1         diffusers ignores padding_mode 'reflect_conv2d' in config.json" in printed
    assert json.loads((folder / 'config.json').read_text())['padding_mode'] == 'reflect_conv2d'
    (folder / 'eqzoo.safetensors').unlink()
    assert read_autoencoder(folder).config['padding_mode'] == 'reflect_conv2d'
    assert load_autoencoder(folder).padding_mode == 'reflect_conv2d'
    with pytest.raises(ValueError, match="got 'zeros', but .* was trained with 'reflect_conv2d'"):
        KLAutoencoder(**LEVELS, weights=folder)


def test_zeros_leave_no_trace(converted):
    folder, printed = converted('KL', 'zeros')
    assert 'padding' not in printed
    assert 'padding' not in (folder / 'README.md').read_text()
    assert sorted(path.name for path in folder.iterdir()) == [
        'README.md',
        'config.json',
        'diffusion_pytorch_model.safetensors',
        'eqzoo.safetensors',
    ]
    assert 'padding_mode' not in json.loads((folder / 'config.json').read_text())


@pytest.mark.parametrize('mode', ['circular', ['reflect']])
def test_another_padding_in_a_folder_is_refused(converted, mode):
    folder, _ = converted('KL', 'reflect')
    (folder / 'eqzoo.safetensors').unlink()
    fields = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**fields, 'padding_mode': mode}))
    with pytest.raises(ValueError, match=r'config\.json: got padding_mode .*; expected zeros, reflect_conv2d, reflect'):
        read_autoencoder(folder)
