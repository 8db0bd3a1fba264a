"""DiffusersAutoencoder: parity with diffusers' classes to the bit, their normalisations, and transforms on deep grids."""

import copy
from typing import get_args

import pytest
import torch
from diffusers.models import autoencoders as classes

from eqzoo.autoencoders import DiffusersAutoencoder
from eqzoo.autoencoders.diffusers import ClassName
from eqzoo.checkpoints.diffusers_classes import WRAPPED_CLASSES, complete_fields
from eqzoo.loading import autoencoder_config
from eqzoo.transforms import IsotropicScale, Rotate

WAN22 = dict(base_dim=160, z_dim=48, is_residual=True, in_channels=12, out_channels=12, patch_size=2)
HUNYUAN = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=64,
    block_out_channels=(128, 256, 512, 512, 1024, 1024),
    layers_per_block=2,
    spatial_compression_ratio=32,
    sample_size=384,
)
# without attention in the middle, which `KLAutoencoder` always has
KL = dict(
    block_out_channels=(64,) * 3,
    down_block_types=('DownEncoderBlock2D',) * 3,
    up_block_types=('UpDecoderBlock2D',) * 3,
    mid_block_add_attention=False,
)
F64 = autoencoder_config('configs/_base_/autoencoders/dcae_f64.py')['fields']
# name, fields, channels of a latent, pixels per cell after shrinking, has a posterior
CASES = {
    'KL': ('AutoencoderKL', KL, 4, 4, True),
    'FLUX.2': ('AutoencoderKLFlux2', {}, 32, 8, True),
    'DC-AE f32': (
        'AutoencoderDC',
        autoencoder_config('configs/_base_/autoencoders/dcae_f32.py')['fields'],
        32,
        16,
        False,
    ),
    'DC-AE f64': ('AutoencoderDC', F64, 128, 16, False),
    'Qwen-Image': ('AutoencoderKLQwenImage', {}, 16, 8, True),
    'Wan 2.1': ('AutoencoderKLWan', {}, 16, 8, True),
    'Wan 2.2': ('AutoencoderKLWan', WAN22, 48, 16, True),
    'HunyuanImage': ('AutoencoderKLHunyuanImage', HUNYUAN, 64, 16, True),
}
VIDEO = ('Qwen-Image', 'Wan 2.1', 'Wan 2.2')


def small(case, **more):
    name, fields, *_ = CASES[case]
    return DiffusersAutoencoder.smoke(dict(class_name=name, fields=fields, **more))


def stirred(autoencoder):
    """Weights unlike any initialisation, since some layers start at zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return autoencoder.eval()


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize('case', CASES)
@torch.no_grad()
def test_equals_diffusers_own_class(case):
    """Its own class, built apart, with our state dict: strict, and the same numbers."""
    name, _, channels, factor, has_posterior = CASES[case]
    arguments = small(case)
    torch.manual_seed(0)
    ours = stirred(DiffusersAutoencoder(**arguments))
    reference = getattr(classes, name)(**complete_fields(name, arguments['fields'])).eval()
    state = {key: value for key, value in ours.state_dict().items() if not key.startswith('normalization.')}
    reference.load_state_dict(state, strict=True)
    assert (ours.latent_channels, ours.downsample_factor, ours.has_posterior) == (channels, factor, has_posterior)
    x = images(2, 3, 64, 32)
    frames = x[:, :, None] if case in VIDEO else x
    encoded = reference.encode(frames)
    expected = encoded.latent_dist.mean if has_posterior else encoded.latent
    posterior = ours.encode(x)
    assert torch.equal(posterior.mean, expected[:, :, 0] if case in VIDEO else expected)
    assert posterior.mean.shape == (2, channels, *ours.grid(64, 32))
    if has_posterior:
        assert torch.equal(posterior.std.flatten(), encoded.latent_dist.std.flatten())
    decoded = reference.decode(expected).sample
    assert torch.equal(ours.decode(posterior.mean), decoded[:, :, 0] if case in VIDEO else decoded)


def test_the_annotation_lists_every_wrapped_class():
    assert get_args(ClassName) == tuple(WRAPPED_CLASSES)
    assert all(hasattr(classes, name) for name in WRAPPED_CLASSES)


@pytest.mark.parametrize('case', CASES)
def test_gradients_reach_all_weights_that_are_trained(case):
    autoencoder = DiffusersAutoencoder(**small(case)).train()
    posterior = autoencoder.encode(images(1, 3, 32, 32))
    loss = autoencoder.decode_latents(posterior.mean).square().mean()
    (loss + posterior.kl().mean() if autoencoder.has_posterior else loss).backward()
    missing = [name for name, each in autoencoder.named_parameters() if each.requires_grad and each.grad is None]
    frozen = [name for name, each in autoencoder.named_parameters() if not each.requires_grad]
    assert missing == []
    assert bool(frozen) == (case in VIDEO)
    assert all('time_conv' in name for name in frozen)


@pytest.mark.parametrize('case', [case for case in CASES if case not in VIDEO])
@torch.no_grad()
def test_the_last_layer_makes_the_images(case):
    """Doubling it doubles the images up to the bias: nothing comes after it. Video classes clamp."""
    autoencoder = stirred(DiffusersAutoencoder(**small(case)))
    bias = autoencoder.decoder.conv_out.bias[:, None, None]
    z = torch.ones(1, autoencoder.latent_channels, 2, 2)
    before = autoencoder.decode(z) - bias
    autoencoder.last_layer.mul_(2)
    torch.testing.assert_close(autoencoder.decode(z) - bias, 2 * before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_flux2s_batch_norm_is_the_normalisation(tmp_path):
    """The pipeline joins 2 x 2 cells before the batch norm: over many latents, both give mean 0 and variance 1."""
    torch.manual_seed(0)
    plain = DiffusersAutoencoder(**small('FLUX.2'))
    state = {key: value for key, value in plain.state_dict().items() if not key.startswith('normalization.')}
    z = (
        torch.randn(64, 32, 8, 8, generator=torch.Generator().manual_seed(3))
        * torch.linspace(0.5, 3, 32)[:, None, None]
    )
    z = z + torch.linspace(-1, 1, 32)[:, None, None]
    joined = z.view(64, 32, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(64, 128, 4, 4)  # as Flux2Pipeline does
    state['bn.running_mean'] = joined.mean((0, 2, 3))
    state['bn.running_var'] = joined.var((0, 2, 3), correction=0)
    torch.save(state, tmp_path / 'flux2.pt')
    loaded = DiffusersAutoencoder(**{**small('FLUX.2'), 'weights': tmp_path / 'flux2.pt'})
    normalized = loaded.normalization.normalize(z)
    torch.testing.assert_close(normalized.mean((0, 2, 3)), torch.zeros(32), rtol=0, atol=1e-5)
    # the pipeline adds 1e-4 to the variance, of 0.25 at least
    torch.testing.assert_close(normalized.var((0, 2, 3), correction=0), torch.ones(32), rtol=5e-4, atol=0)
    theirs = (joined - state['bn.running_mean'][:, None, None]) / (state['bn.running_var'] + 1e-4).sqrt()[:, None, None]
    ours = normalized.view(64, 32, 4, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(64, 128, 4, 4)
    assert (ours - theirs).abs().max() < 0.3  # four statistics a channel there, one here
    assert ((ours - theirs).square().mean() / theirs.square().mean()).sqrt() < 0.06


def test_copies_modes_and_dtypes_reach_the_network():
    autoencoder = stirred(DiffusersAutoencoder(**small('DC-AE f32')))
    x = images(1, 3, 32, 32)
    twin = copy.deepcopy(autoencoder)
    assert torch.equal(twin.encode(x).mean, autoencoder.encode(x).mean)
    with torch.no_grad():
        twin.last_layer.zero_()
    assert autoencoder.last_layer.abs().max() > 0
    assert twin.decode(twin.encode(x).mean).std() < autoencoder.decode(autoencoder.encode(x).mean).std()
    assert autoencoder.double().encode(x.double()).mean.dtype == torch.float64
    assert autoencoder.train()._network.training
    assert not autoencoder.eval()._network.training


@pytest.mark.parametrize('cells', [2, 4])
@torch.no_grad()
def test_scales_and_turns_work_on_the_grids_of_deep_autoencoders(cells):
    """f32 and f64 at small sizes: a quarter turn is exact on latents and images, a scale has whole sides on both."""
    levels = dict(
        encoder_block_out_channels=(16,) * 7,
        decoder_block_out_channels=(16,) * 7,
        encoder_layers_per_block=(1,) * 7,
        decoder_layers_per_block=(1,) * 7,
        encoder_qkv_multiscales=((),) * 7,
        decoder_qkv_multiscales=((),) * 7,
        latent_channels=16,
        attention_head_dim=8,
    )
    autoencoder = DiffusersAutoencoder('AutoencoderDC', levels).eval()
    assert autoencoder.downsample_factor == 64
    x = images(1, 3, 64 * cells, 64 * cells)
    z = autoencoder.encode(x).mean
    for transform in (IsotropicScale(minimum=0.25), Rotate()):
        params = transform.sample(torch.Generator().manual_seed(0), (cells, cells))
        assert autoencoder.decode(transform(z, params)).shape == transform(x, params).shape


def test_a_grid_of_one_cell_has_no_scale():
    with pytest.raises(ValueError, match=r'a latent grid of 1 x 1 has no scale k/1 .* use .* larger'):
        IsotropicScale(minimum=0.25).sample(torch.Generator(), DiffusersAutoencoder(**small('DC-AE f32')).grid(16, 16))


@pytest.mark.parametrize('mode', ['reflect', 'reflect_conv2d'])
def test_padding(mode):
    torch.manual_seed(0)
    assert DiffusersAutoencoder(**small('FLUX.2'), padding_mode=mode).encoder.conv_in.padding_mode == 'reflect'
    with pytest.raises(ValueError, match=f"padding_mode: got '{mode}' for AutoencoderKLWan.*expected 'zeros'"):
        DiffusersAutoencoder(**small('Wan 2.1'), padding_mode=mode)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(class_name='AutoencoderDCC'), "class_name must be .*'AutoencoderDC'.*got 'AutoencoderDCC'"),
        (dict(class_name='AutoencoderOobleck'), "got 'AutoencoderOobleck'"),
        (
            dict(fields=dict(latent_channel=3)),
            "AutoencoderKLFlux2 has no 'latent_channel'. Did you mean 'latent_channels'",
        ),
        (dict(class_name='AutoencoderDC', fields=dict(scaling_factor=1.0)), 'got scaling_factor, .*as scale and shift'),
        (dict(class_name='AutoencoderKLHunyuanImage'), 'also needs in_channels, out_channels'),
        (dict(fields=dict(in_channels=4)), 'got in_channels 4 of .* expected 3, for images of 3 channels'),
        (dict(class_name='AutoencoderKLQwenImage', fields=dict(input_channels=4)), 'got input_channels 4 .*expected 3'),
        (
            dict(class_name='AutoencoderKLWan', fields={**WAN22, 'out_channels': 16}),
            'got out_channels 16 .*expected 12',
        ),
        (dict(fields=dict(block_out_channels=(8, 8))), 'AutoencoderKLFlux2 cannot be built from them'),
    ],
)
def test_mistakes_are_one_message(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiffusersAutoencoder(**arguments)


def test_a_class_that_needs_another_package_says_so():
    from importlib.util import find_spec

    if find_spec('transformers') is None:
        with pytest.raises(ValueError, match='AutoencoderRAE needs transformers, .*pip install transformers'):
            DiffusersAutoencoder('AutoencoderRAE')
