"""Padding modes: reflected edges, with the names and weights of zero-padded ones."""

import pytest
import torch
import torch.nn.functional as F

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder, VQAutoencoder

MODES = ('zeros', 'reflect', 'reflect_conv2d')


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize('cls', [VQAutoencoder, KLAutoencoder])
def test_reflected_edges_leave_no_rim(cls):
    """A constant image stays constant through convolutions that reflect; zeros darken its rim."""
    arguments = dict(block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4)
    spread = {}
    for mode in MODES:
        torch.manual_seed(0)
        autoencoder = cls(**arguments, padding_mode=mode, attention_levels=())
        with torch.no_grad():
            latents = autoencoder.encode(torch.full((1, 3, 32, 32), 0.5)).mean
            decoded = autoencoder.decode_latents(torch.ones(1, 4, 8, 8))
        spread[mode] = [each.std(dim=(2, 3)).max().item() for each in (latents, decoded)]
    assert max(spread['reflect']) < 1e-5
    assert min(spread['zeros']) > 1e-2
    # of the other mode, the decoder reflects everywhere, and the encoder's strided convolutions see zeros
    assert spread['reflect_conv2d'][1] < 1e-5
    assert spread['reflect_conv2d'][0] > 1e-3


def test_reflection_equals_explicit_padding():
    """Against explicit padding, for the strided convolution and a plain one."""
    autoencoder = KLAutoencoder(4, (8, 8), layers_per_block=1, norm_num_groups=4, padding_mode='reflect')
    x = images(1, 3, 8, 8)
    conv = autoencoder.encoder.conv_in
    assert torch.equal(conv(x), F.conv2d(F.pad(x, (1, 1, 1, 1), mode='reflect'), conv.weight, conv.bias))
    down = autoencoder.encoder.down_blocks[0].downsamplers[0]
    y = torch.randn(1, 8, 8, 8)
    assert torch.equal(down(y), F.conv2d(F.pad(y, (0, 1, 0, 1), mode='reflect'), down.conv.weight, down.conv.bias, 2))


def test_padding_modes_have_the_same_names():
    states = [set(KLAutoencoder(4, (8, 8), norm_num_groups=4, padding_mode=mode).state_dict()) for mode in MODES]
    assert states[0] == states[1] == states[2]
    with pytest.raises(ValueError, match=r"padding_mode must be 'zeros', 'reflect' or 'reflect_conv2d', got 'wrap'"):
        KLAutoencoder(4, (8, 8), norm_num_groups=4, padding_mode='wrap')


def test_tiny_autoencoders_reflect_too():
    spread = {}
    for mode in MODES:
        torch.manual_seed(0)
        autoencoder = TinyAutoencoder(width=8, padding_mode=mode)
        with torch.no_grad():
            spread[mode] = autoencoder.encode(torch.full((1, 3, 32, 32), 0.5)).mean.std(dim=(2, 3)).max().item()
    assert spread['reflect'] == spread['reflect_conv2d'] < 1e-5
    assert spread['zeros'] > 1e-3


def test_reflect_conv2d_is_what_fine_tuners_of_sdxl_do():
    """Their patch (kohya-ss/sd-scripts#2189) sets one attribute of each `Conv2d` that pads, on a network with zeros."""
    arguments = dict(block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4)
    made = {}
    for mode in MODES:
        torch.manual_seed(0)
        made[mode] = KLAutoencoder(4, **arguments, padding_mode=mode).eval()
    patched = made['zeros']
    for module in patched.modules():
        height, width = module.padding if isinstance(module, torch.nn.Conv2d) else (0, 0)
        if height > 0 or width > 0:
            module.padding_mode = 'reflect'
    x, z = images(2, 3, 16, 24), images(2, 4, 4, 6)
    assert torch.equal(made['reflect_conv2d'].encode(x).mean, patched.encode(x).mean)
    assert torch.equal(made['reflect_conv2d'].decode(z), patched.decode(z))
    # ours also reflects in the strided convolutions, which are the encoder's
    assert torch.equal(made['reflect'].decode(z), patched.decode(z))
    assert (made['reflect'].encode(x).mean - patched.encode(x).mean).abs().max() > 1e-3


def test_copies_keep_their_padding():
    """The moving average is a deep copy."""
    import copy

    autoencoder = KLAutoencoder(4, (8, 8), norm_num_groups=4, padding_mode='reflect').eval()
    x = images(1, 3, 8, 8)
    assert torch.equal(copy.deepcopy(autoencoder).encode(x).mean, autoencoder.encode(x).mean)
