"""Single files for ComfyUI and A1111, opened as these programs do: their rules of recognition, their names, strictly."""

import json
import re

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors import safe_open
from safetensors.torch import load_file

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder
from eqzoo.checkpoints.autoencoder import AutoencoderFile, read_autoencoder
from eqzoo.checkpoints.comfyui import LATENT_FORMATS, to_comfyui
from eqzoo.checkpoints.config import plain_config
from eqzoo.checkpoints.write import export, write_normalization
from eqzoo.loading import load_autoencoder

F4 = dict(block_out_channels=(128, 256, 512))  # the smallest KL autoencoder that ComfyUI builds


def autoencoder_file(cls, arguments, *, real=True):
    """An autoencoder and its file; on the meta device where only names and shapes count."""
    with torch.device('cpu' if real else 'meta'):
        model = cls(**arguments)
    return model, AutoencoderFile(model.state_dict(), config=plain_config(dict(type=cls.__name__, **arguments)))


def comfyui_kind(state):
    """The branch of ComfyUI's VAE for a state dict (comfy/sd.py), as far as images of KL and tiny autoencoders go."""
    if 'decoder.up_blocks.0.resnets.0.norm1.weight' in state:
        return 'diffusers'
    if 'taesd_decoder.1.weight' in state:
        return 'taesd'
    if 'decoder.conv_in.weight' in state:
        return 'f8' if 'encoder.down.2.downsample.conv.weight' in state else 'f4'
    return None


def test_a_kl_autoencoder_has_the_names_of_a_published_single_file(tmp_path):
    """The reference is diffusers' own reading of single files, from LDM's names."""
    model, file = autoencoder_file(KLAutoencoder, dict(F4, scale=0.13))
    assert export(file, tmp_path / 'a.safetensors', to='comfyui') == []
    state = load_file(tmp_path / 'a.safetensors')
    assert comfyui_kind(state) == 'f4'
    assert not [name for name in state if name.startswith(('first_stage_model.', 'normalization.', 'loss.', 'eqzoo.'))]
    # A1111 and ComfyUI have 1x1 convolutions in attention
    assert state['encoder.mid.attn_1.q.weight'].shape == (512, 512, 1, 1)
    config = {key: value for key, value in AutoencoderKL().config.items() if not key.startswith('_')}
    blocks = dict(down_block_types=('DownEncoderBlock2D',) * 3, up_block_types=('UpDecoderBlock2D',) * 3)
    config |= dict(block_out_channels=(128, 256, 512), layers_per_block=2, **blocks)
    AutoencoderKL(**config).save_config(tmp_path / 'config')
    theirs = AutoencoderKL.from_single_file(str(tmp_path / 'a.safetensors'), config=str(tmp_path / 'config'))
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = model.encode(images).mean
        assert torch.equal(theirs.encode(images).latent_dist.mean, latents)
        assert torch.equal(theirs.decode(latents).sample, model.decode(latents))
    ours = load_autoencoder(tmp_path / 'a.safetensors')
    assert torch.equal(ours.latents(images), model.latents(images))


def test_metadata_says_what_it_is(tmp_path):
    _, file = autoencoder_file(KLAutoencoder, dict(F4, scale=0.1275))
    export(file, tmp_path / 'my-vae.safetensors', to='comfyui')
    with safe_open(tmp_path / 'my-vae.safetensors', framework='pt') as opened:
        metadata = opened.metadata()
    assert metadata.pop('format') == 'pt'
    assert json.loads(metadata.pop('eqzoo'))['config']['block_out_channels'] == [128, 256, 512]
    assert metadata == {
        'modelspec.sai_model_spec': '1.0.0',
        'modelspec.architecture': 'stable-diffusion-xl-v1-base/vae',
        'modelspec.implementation': 'https://github.com/Stability-AI/generative-models',
        'modelspec.title': 'my-vae',
    }
    # its normalisation is not theirs: it cannot be measured into it
    with pytest.raises(ValueError, match=r'my-vae\.safetensors.* has no place for them'):
        write_normalization(tmp_path / 'my-vae.safetensors', torch.zeros(4), torch.ones(4))


@pytest.mark.parametrize(
    ('arguments', 'latents', 'architecture', 'notes'),
    [
        (dict(scale=0.18215), None, 'stable-diffusion-v1/vae', []),
        (dict(scale=0.3), 'sdxl', 'stable-diffusion-xl-v1-base/vae', [r"sdxl's diffusion model does, .*\* 0\.13025"]),
        (dict(latent_channels=16, quant_conv=False, scale=1.5305, shift=0.0609), None, 'stable-diffusion-v3/vae', []),
        (dict(latent_channels=16, quant_conv=False, scale=0.3611, shift=0.1159), None, 'flux.1/vae', []),
        (dict(latent_channels=16, quant_conv=False, scale=0.3611), None, 'flux.1/vae', [r'\(z - 0\.1159\) \* 0\.3611']),
        (dict(latent_channels=8), None, None, ['A1111 takes VAEs of 4 channels with']),
        (dict(quant_conv=False, scale=0.18215), None, 'stable-diffusion-v1/vae', ['A1111 takes VAEs of 4 channels']),
    ],
)
def test_latents_of_other_diffusion_models(arguments, latents, architecture, notes):
    model, file = autoencoder_file(KLAutoencoder, arguments, real=False)
    normalization = KLAutoencoder(**{**arguments, 'block_out_channels': (32,)}).normalization.state_dict()
    state, metadata, said = to_comfyui(file.config, file.network, normalization, latents)
    assert comfyui_kind(state) == 'f8'
    assert len(state) == len(model.state_dict()) - 2
    assert metadata.get('modelspec.architecture') == architecture
    assert len(said) == len(notes)
    for sentence, pattern in zip(said, notes, strict=True):
        assert re.search(pattern, sentence)


@pytest.mark.parametrize('name', LATENT_FORMATS)
def test_tiny_autoencoders_decode_the_diffusion_models_latents(name, tmp_path):
    """ComfyUI decodes `taesd_decoder((x - vae_shift) * vae_scale)`, with x as the diffusion model's VAE has latents."""
    form = LATENT_FORMATS[name]
    arguments = dict(latent_channels=form.channels, scale=2.0, shift=0.25)
    model, file = autoencoder_file(TinyAutoencoder, arguments)
    assert export(file, tmp_path / 'a.safetensors', to='comfyui', latents=name) == []
    state = load_file(tmp_path / 'a.safetensors')
    assert comfyui_kind(state) == 'taesd'
    scale, shift = state.pop('vae_scale'), state.pop('vae_shift')
    assert (scale.shape, shift.shape) == ((), ())
    # taesd's numbers count a clamp that diffusers' network has not: the reference is diffusers' own
    theirs = AutoencoderTiny(latent_channels=form.channels)
    renamed = {}
    for key, value in state.items():
        half, number, rest = key.removeprefix('taesd_').split('.', 2)
        renamed[f'{half}.layers.{int(number) - (half == "decoder")}.{rest}'] = value
    theirs.load_state_dict(renamed)
    x = torch.randn(1, form.channels, 2, 3)
    generated = (x - form.shift) * form.scale  # what a diffusion model on these latents works with
    with torch.no_grad():
        expected = model.decode(model.normalization.denormalize(generated))
        torch.testing.assert_close(theirs.decode((x - shift) * scale).sample, expected, rtol=1e-4, atol=1e-5)
    # eqzoo reads it back, with its normalisation
    back = load_autoencoder(tmp_path / 'a.safetensors')
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(back.latents(images), model.latents(images))


@pytest.mark.parametrize(
    ('cls', 'arguments', 'latents', 'message'),
    [
        (KLAutoencoder, dict(block_out_channels=(64, 128)), None, r'block_out_channels \[128, .*it has \[64, 128\]'),
        (KLAutoencoder, dict(attention_levels=[3]), None, r'attention_levels \[\], whatever the file has; it has \[3'),
        (KLAutoencoder, dict(padding_mode='reflect'), None, 'padding_mode zeros, .*it has reflect'),
        (KLAutoencoder, dict(latent_channels=64), None, 'another network for 64 channels'),
        (KLAutoencoder, dict(latent_channels=16), 'sdxl', 'have 4 channels, the autoencoder 16; expected sd3 or flux'),
        (KLAutoencoder, dict(latent_channels=8), 'sd', 'expected nothing, since none has as many'),
        (TinyAutoencoder, dict(), None, r'give --latents \{sd,sdxl,sd3,flux\}'),
        (TinyAutoencoder, dict(width=32), 'sd', 'width 64, whatever'),
        (TinyAutoencoder, dict(latent_channels=32, pooled=True), 'sd', 'pooled False'),
    ],
)
def test_other_networks_are_refused(cls, arguments, latents, message, tmp_path):
    _, file = autoencoder_file(cls, arguments, real=False)
    with pytest.raises(ValueError, match=message):
        export(file, tmp_path / 'a.safetensors', to='comfyui', latents=latents)
    assert list(tmp_path.iterdir()) == []


def test_a_tiny_autoencoder_with_a_scale_for_each_channel_is_refused(tmp_path):
    _, file = autoencoder_file(TinyAutoencoder, dict(mean=(0.0, 1.0, 2.0, 3.0), std=1.0))
    with pytest.raises(ValueError, match=r'one scale and one shift for all channels.*--normalization shift_scale'):
        export(file, tmp_path / 'a.safetensors', to='comfyui', latents='sd')


def test_only_weights_are_written(tmp_path):
    _, file = autoencoder_file(TinyAutoencoder, dict(scale=1.0))
    file.trained = dict(file.state)
    file.discriminator = {'network.main.0.weight': torch.ones(1)}
    file.log_variance = torch.zeros(())
    export(file, tmp_path / 'a.safetensors', to='comfyui', latents='sd')
    assert {name.partition('.')[0] for name in load_file(tmp_path / 'a.safetensors')} == {
        *('taesd_encoder', 'taesd_decoder', 'vae_scale', 'vae_shift')
    }
    back = read_autoencoder(tmp_path / 'a.safetensors')
    assert back.left_out == ('vae_scale', 'vae_shift')
    assert back.trained is None
