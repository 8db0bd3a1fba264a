"""The contract of autoencoders, checked for each registered one."""

import copy

import pytest
import torch

from eqzoo.autoencoders import Autoencoder
from eqzoo.registry import AUTOENCODERS, build, find_component

find_component('KLAutoencoder')  # the registry imports its components on first use
NAMES = sorted(AUTOENCODERS.module_dict)


@pytest.fixture(params=NAMES)
def autoencoder(request):
    torch.manual_seed(0)
    arguments = find_component(request.param).smoke(dict(scale=0.5, shift=0.25))
    return build(dict(type=request.param, **arguments)).eval()


@pytest.fixture
def images(autoencoder):
    side = 4 * autoencoder.downsample_factor
    return torch.rand(2, 3, side, 2 * side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_latents_live_on_the_grid_and_decode_to_images(autoencoder, images):
    assert isinstance(autoencoder, Autoencoder)
    posterior = autoencoder.encode(images)
    assert (
        posterior.mean.shape
        == (2, autoencoder.latent_channels, *autoencoder.grid(*images.shape[2:]))
        == (
            2,
            autoencoder.latent_channels,
            4,
            8,
        )
    )
    assert (posterior.std is not None) == autoencoder.has_posterior
    decoded = autoencoder.decode(posterior.mean)
    assert decoded.shape == images.shape
    assert torch.isfinite(decoded).all()


def test_latents_are_normalised(autoencoder, images):
    assert torch.equal(autoencoder.latents(images), (autoencoder.encode(images).mean - 0.25) * 0.5)


def test_decoding_is_bottleneck_and_decoder(autoencoder, images):
    z = autoencoder.encode(images).mean
    passed = autoencoder.bottleneck(z)
    assert torch.equal(autoencoder.decode(z), autoencoder.decode_latents(passed.latents))
    assert bool(passed.penalties) == (passed.indices is not None) == autoencoder.has_codebook
    if not autoencoder.has_codebook:
        assert passed.latents is z


def test_samples_do_not_see_each_other(autoencoder, images):
    together = autoencoder.decode(autoencoder.encode(images).mean)
    alone = autoencoder.decode(autoencoder.encode(images[1:]).mean)
    torch.testing.assert_close(together[1:], alone, atol=5e-5, rtol=1e-5)  # convolutions of another batch size


def test_gradients_reach_every_weight(autoencoder, images):
    autoencoder.train()
    passed = autoencoder.bottleneck(autoencoder.encode(images).mean)
    loss = (autoencoder.decode_latents(passed.latents) - images).square().mean() + sum(passed.penalties.values())
    if autoencoder.has_posterior:
        loss = loss + autoencoder.encode(images).kl().mean()
    loss.backward()
    assert [name for name, parameter in autoencoder.named_parameters() if parameter.grad is None] == []
    assert any(autoencoder.last_layer is parameter for parameter in autoencoder.parameters())


def test_blocks_are_everything_but_the_last_convolution(autoencoder):
    inside = {id(parameter) for block in autoencoder.blocks() for parameter in block.parameters()}
    assert id(autoencoder.last_layer) not in inside
    outside = sum(p.numel() for p in autoencoder.parameters() if id(p) not in inside)
    assert outside < sum(p.numel() for p in autoencoder.parameters()) / 2


def test_a_copy_and_a_state_dict_give_the_same_images(autoencoder, images):
    decoded = autoencoder.decode(autoencoder.encode(images).mean)
    twin = copy.deepcopy(autoencoder)
    assert torch.equal(twin.decode(twin.encode(images).mean), decoded)
    other = build(dict(type=type(autoencoder).__name__, **type(autoencoder).smoke({}))).eval()
    other.load_state_dict(autoencoder.state_dict())
    assert torch.equal(other.decode(other.encode(images).mean), decoded)
    assert torch.equal(other.latents(images), autoencoder.latents(images))


def test_bfloat16_autocast_returns_the_weights_precision(autoencoder, images):
    with torch.autocast('cpu', torch.bfloat16):
        z = autoencoder.encode(images).mean
        decoded = autoencoder.decode(z)
    assert (z.dtype, decoded.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize('size', [(8, 8, 3), (1, 3, 8), (1, 4, 32, 32)])
def test_other_shapes_are_refused(autoencoder, size):
    with pytest.raises(ValueError, match=rf'{type(autoencoder).__name__}.encode: got images of shape'):
        autoencoder.encode(torch.zeros(size))
    with pytest.raises(ValueError, match=f'positive multiples of {autoencoder.downsample_factor} '):
        autoencoder.encode(torch.zeros(1, 3, autoencoder.downsample_factor + 1, autoencoder.downsample_factor))
    with pytest.raises(ValueError, match=rf'{type(autoencoder).__name__}.decode: got latents of shape'):
        autoencoder.decode(torch.zeros(1, autoencoder.latent_channels + 1, 4, 4))


@pytest.mark.parametrize('name', NAMES)
def test_missing_weights_are_reported_before_building(name):
    (missing,) = find_component(name).requirements(dict(weights='nowhere.pth'))
    assert (missing.what, missing.where) == (f'weights of {name}', 'nowhere.pth')
    assert find_component(name).requirements({}) == []


@pytest.mark.parametrize('name', NAMES)
def test_every_padding_changes_the_images(name):
    decoded = []
    for mode in ('zeros', 'reflect'):
        torch.manual_seed(0)
        autoencoder = build(dict(type=name, **find_component(name).smoke(dict(padding_mode=mode)))).eval()
        decoded.append(autoencoder.decode_latents(torch.ones(1, autoencoder.latent_channels, 4, 4)))
    assert not torch.allclose(*decoded, atol=1e-4)
