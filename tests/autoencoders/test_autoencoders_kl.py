"""The KL autoencoder: published parameter counts, parity with diffusers' AutoencoderKL, its interface."""

from pathlib import Path

import pytest
import torch
from diffusers.models import AutoencoderKL

from eqzoo.autoencoders import KLAutoencoder
from eqzoo.loading import autoencoder_config
from eqzoo.registry import AUTOENCODERS, Requirement, build

CONFIGS = Path(__file__).parents[2] / 'configs'
NAMES = ('sd_vae', 'sdxl_vae', 'sd3_vae', 'sd_vae_16')
TINY = dict(block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4)


def read_config(name):
    return autoencoder_config(next(CONFIGS.glob(f'*/autoencoders/{name}.py')))


def tiny_from(name):
    """The structure of a base config at a width of 8, with weights unlike any initialisation."""
    arguments = read_config(name)
    arguments.pop('type')
    torch.manual_seed(0)
    autoencoder = KLAutoencoder(**KLAutoencoder.smoke(arguments))
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return autoencoder.eval()


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


# Counts of the published models: reference instantiations of LDM's and diffusers' classes.
@pytest.mark.parametrize(
    ('name', 'total', 'encoder', 'decoder', 'factor', 'channels'),
    [
        ('sd_vae', 83_653_863, 34_163_592, 49_490_179, 8, 4),
        ('sdxl_vae', 83_653_863, 34_163_592, 49_490_179, 8, 4),
        ('sd3_vae', 83_819_683, 34_274_208, 49_545_475, 8, 16),
        ('sd_vae_16', 69_610_963, 28_265_760, 41_343_875, 16, 16),
    ],
)
def test_base_configs_build_the_published_networks(name, total, encoder, decoder, factor, channels):
    with torch.device('meta'):
        autoencoder = build({**read_config(name), 'weights': None})
    counts = [
        sum(each.numel() for each in module.parameters())
        for module in (autoencoder, autoencoder.encoder, autoencoder.decoder)
    ]
    assert counts == [total, encoder, decoder]
    assert (autoencoder.downsample_factor, autoencoder.latent_channels) == (factor, channels)


@pytest.mark.parametrize(
    ('name', 'scale', 'shift'),
    [('sd_vae', 0.18215, 0.0), ('sdxl_vae', 0.13025, 0.0), ('sd3_vae', 1.5305, 0.0609), ('sd_vae_16', 1.0, 0.0)],
)
def test_latents_are_the_scaled_posterior_mean(name, scale, shift):
    autoencoder = tiny_from(name)
    x = images(1, 3, 32, 16)
    assert torch.equal(autoencoder.latents(x), (autoencoder.encode(x).mean - shift) * scale)


@pytest.mark.parametrize('name', NAMES)
def test_equals_diffusers_autoencoder_kl(name):
    autoencoder = tiny_from(name)
    levels = 5 if name == 'sd_vae_16' else 4
    plain = levels - (name == 'sd_vae_16')
    reference = AutoencoderKL(
        down_block_types=['DownEncoderBlock2D'] * plain + ['AttnDownEncoderBlock2D'] * (levels - plain),
        up_block_types=['AttnUpDecoderBlock2D'] * (levels - plain) + ['UpDecoderBlock2D'] * plain,
        block_out_channels=[8] * levels,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=autoencoder.latent_channels,
        use_quant_conv=name != 'sd3_vae',
        use_post_quant_conv=name != 'sd3_vae',
    )
    state = {key: value for key, value in autoencoder.state_dict().items() if not key.startswith('normalization.')}
    reference.load_state_dict(state, strict=True)
    x = images(2, 3, 32, 48)
    posterior, expected = autoencoder.encode(x), reference.encode(x).latent_dist
    # The same operations in the same order: equal to the bit.
    assert torch.equal(posterior.mean, expected.mean)
    assert torch.equal(posterior.std, expected.std)
    assert torch.equal(posterior.kl(), expected.kl())
    assert torch.equal(autoencoder.decode(expected.mean), reference.decode(expected.mean).sample)
    assert posterior.mean.shape == (2, autoencoder.latent_channels, *autoencoder.grid(32, 48))


@pytest.mark.parametrize(
    ('argument', 'value'),
    [
        ('latent_channels', 5),
        ('block_out_channels', (8, 8, 16)),
        ('layers_per_block', 2),
        ('attention_levels', (0,)),
        ('norm_num_groups', 2),
        ('quant_conv', False),
        ('scale', 0.5),
        ('shift', 0.5),
        ('mean', 0.5),
        ('std', 0.5),
    ],
)
def test_every_argument_changes_the_latents(argument, value):
    x = images(1, 3, 16, 16)
    torch.manual_seed(0)
    before = KLAutoencoder(**TINY).latents(x)
    torch.manual_seed(0)
    after = KLAutoencoder(**{**TINY, argument: value}).latents(x)
    assert before.shape != after.shape or not torch.allclose(before, after)


def test_attention_sits_at_the_named_level_of_both_networks():
    autoencoder = KLAutoencoder(**TINY, attention_levels=(1,))
    assert [hasattr(block, 'attentions') for block in autoencoder.encoder.down_blocks] == [False, True, False]
    # The decoder runs from the coarsest level to the finest: level 1 of 3 is in the middle again.
    assert [hasattr(block, 'attentions') for block in autoencoder.decoder.up_blocks] == [False, True, False]
    autoencoder = KLAutoencoder(**TINY, attention_levels=(2,))
    assert [hasattr(block, 'attentions') for block in autoencoder.decoder.up_blocks] == [True, False, False]


@pytest.mark.parametrize(
    ('level', 'message'),
    [(-1, r'attention_levels\[0\] must be at least 0, got -1'), (3, r'attention_levels: got \(3,\); .* 0 to 2')],
)
def test_refuses_attention_at_an_unknown_level(level, message):
    with pytest.raises(ValueError, match=message):
        KLAutoencoder(**TINY, attention_levels=(level,))


def test_grid():
    autoencoder = KLAutoencoder(**TINY)
    assert autoencoder.grid(64, 32) == (16, 8)
    for height, width in [(64, 30), (30, 64), (0, 64), (2, 64)]:
        with pytest.raises(ValueError, match=f'got images of {height} x {width} pixels; .* multiples of 4 '):
            autoencoder.grid(height, width)


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        (torch.zeros(3, 16, 16), r'got images of shape \(3, 16, 16\)'),
        (torch.zeros(1, 1, 16, 16), r'got images of shape \(1, 1, 16, 16\)'),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), 'torch.uint8; .* floating point'),
        (torch.zeros(1, 3, 18, 16), 'got images of 18 x 16 pixels'),
    ],
)
def test_encode_refuses(bad, message):
    with pytest.raises(ValueError, match=message):
        KLAutoencoder(**TINY).encode(bad)


def test_decode_refuses_latents_of_another_autoencoder():
    with pytest.raises(ValueError, match=r'\(1, 16, 4, 4\); .* \(B, 4, h, w\)'):
        KLAutoencoder(**TINY).decode(torch.zeros(1, 16, 4, 4))


def test_last_layer_is_the_decoders_last_convolution():
    autoencoder = KLAutoencoder(**TINY)
    assert autoencoder.last_layer is autoencoder.decoder.conv_out.weight
    # Doubling it doubles the images up to the bias: nothing comes after it.
    z = torch.ones(1, 4, 2, 2)
    bias = autoencoder.decoder.conv_out.bias[:, None, None]
    before = autoencoder.decode(z) - bias
    with torch.no_grad():
        autoencoder.last_layer.mul_(2)
    torch.testing.assert_close(autoencoder.decode(z) - bias, 2 * before)


def test_bfloat16_autocast_returns_full_precision_near_the_float32_results():
    autoencoder = tiny_from('sd_vae_16')
    x = images(1, 3, 32, 32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        posterior = autoencoder.encode(x)
        reconstruction = autoencoder.decode(posterior.mean)
        loss = posterior.kl().mean() + (reconstruction - x).abs().mean()
    loss.backward()
    assert posterior.mean.dtype == reconstruction.dtype == posterior.kl().dtype == torch.float32
    with torch.no_grad():
        expected = autoencoder.encode(x)
        difference = (posterior.mean - expected.mean).abs().max() / expected.mean.abs().max()
        assert 0 < difference < 0.05  # bfloat16 keeps 8 bits; 0.4 % a layer, some ten layers
        assert (reconstruction - autoencoder.decode(expected.mean)).abs().max() < 0.1
    assert all(parameter.grad.isfinite().all() for parameter in autoencoder.parameters())
    assert autoencoder.last_layer.grad.abs().max() > 0


def test_smoke_keeps_the_structure_of_a_config():
    arguments = read_config('sd_vae_16')
    arguments.pop('type')
    small = KLAutoencoder.smoke(arguments)
    assert small == dict(
        latent_channels=16,
        block_out_channels=(8,) * 5,
        attention_levels=(4,),
        layers_per_block=1,
        norm_num_groups=4,
        weights=None,
    )
    assert KLAutoencoder(**small).downsample_factor == 16
    assert KLAutoencoder.smoke({})['block_out_channels'] == (8,) * 4


def test_requirements_name_the_missing_file_and_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert KLAutoencoder.requirements({}) == []
    assert KLAutoencoder.requirements(dict(weights=None)) == []
    (missing,) = KLAutoencoder.requirements(dict(weights='eqzoo://sdxl-vae'))
    assert missing.where == 'eqzoo://sdxl-vae'
    assert missing.what == 'weights of KLAutoencoder'
    assert missing.remedy == 'python tools/download.py sdxl-vae'
    assert KLAutoencoder.requirements(dict(weights='mine.pth')) == [
        Requirement('weights of KLAutoencoder', 'mine.pth', 'correct weights=PATH')
    ]
    (tmp_path / 'mine.pth').touch()
    assert KLAutoencoder.requirements(dict(weights='mine.pth')) == []


@pytest.mark.parametrize('name', NAMES)
def test_base_configs_say_how_to_fetch_their_weights(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (missing,) = KLAutoencoder.requirements(read_config(name))
    assert missing.remedy == f'python tools/download.py {name.replace("_", "-")}'


def test_is_registered():
    assert AUTOENCODERS.get('KLAutoencoder') is KLAutoencoder
