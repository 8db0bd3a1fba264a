"""Tiny autoencoders: published counts, parity with diffusers' AutoencoderTiny, TAEF2's branch, taesd's files."""

from pathlib import Path

import pytest
import torch
from diffusers.models import AutoencoderTiny
from safetensors.torch import save_file
from torch import nn

from eqzoo.autoencoders import TinyAutoencoder
from eqzoo.loading import autoencoder_config
from eqzoo.registry import build

CONFIGS = Path(__file__).parents[2] / 'configs'


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def make(**arguments):
    torch.manual_seed(0)
    autoencoder = TinyAutoencoder(width=8, **arguments).eval()
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return autoencoder


def network_state(model, network):
    return {key.partition('.')[2]: value for key, value in model.state_dict().items() if key.startswith(network)}


# taesd's classes and files; of TAEF2 the two files hold so many numbers.
@pytest.mark.parametrize(
    ('name', 'encoder', 'decoder'),
    [('taesd', 1_222_532, 1_222_531), ('taesd3', 1_229_456, 1_229_443), ('taef2', 1_338_528, 1_338_499)],
)
def test_base_configs_build_the_published_networks(name, encoder, decoder):
    config = autoencoder_config(next(CONFIGS.glob(f'*/autoencoders/{name}.py')))
    with torch.device('meta'):
        autoencoder = build({**config, 'weights': None})
    counts = [sum(p.numel() for p in module.parameters()) for module in (autoencoder.encoder, autoencoder.decoder)]
    assert counts == [encoder, decoder]
    assert autoencoder.grid(64, 32) == (8, 4)


def test_outputs_are_those_of_diffusers():
    ours = make()
    theirs = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).eval()
    state = {key: value for key, value in ours.state_dict().items() if not key.startswith('normalization.')}
    theirs.load_state_dict(state)
    x = images(2, 3, 32, 16)
    with torch.no_grad():
        z = ours.encode(x).mean
        assert torch.equal(z, theirs.encode(x).latents)
        assert torch.equal(ours.latents(x), z)
        assert torch.equal(ours.decode(z), theirs.decode(z).sample)


def numbered(autoencoder):
    """Taesd's own layout: two sequences, the decoder's beginning with a clamp."""
    encoder, decoder = list(autoencoder.encoder.layers), [nn.Identity(), *autoencoder.decoder.layers]
    return nn.Sequential(*encoder).state_dict(), nn.Sequential(*decoder).state_dict()


@pytest.mark.parametrize('pooled', [False, True])
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_pairs_of_files_load(tmp_path, pooled, suffix):
    autoencoder = make(pooled=pooled)
    paths = [tmp_path / f'{name}.{suffix}' for name in ('encoder', 'decoder')]
    for path, state in zip(paths, numbered(autoencoder), strict=True):
        half = {key: value.half() for key, value in state.items()}
        torch.save(half, path) if suffix == 'pth' else save_file(half, path)
    loaded = TinyAutoencoder(width=8, pooled=pooled, weights=paths)
    for key, value in autoencoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float()), key


def test_exchanged_files_are_refused(tmp_path):
    paths = [tmp_path / 'encoder.pth', tmp_path / 'decoder.pth']
    for path, state in zip(paths, numbered(make()), strict=True):
        torch.save(state, path)
    with pytest.raises(ValueError, match=r"TinyAutoencoder.weights: '.*decoder.pth' and '.*encoder.pth' does not fit"):
        TinyAutoencoder(width=8, weights=paths[::-1])
    with pytest.raises(ValueError, match=r'got 1 files; .*\(encoder, decoder\)'):
        TinyAutoencoder(width=8, weights=paths[:1])


def test_missing_files_are_named_one_by_one():
    config = autoencoder_config(CONFIGS / '_base_/autoencoders/taef2.py')
    lacks = TinyAutoencoder.requirements({key: value for key, value in config.items() if key != 'type'})
    assert [each.where for each in lacks] == config['weights']


def test_pooled_blocks_see_the_whole_image():
    """Without the branch a far corner is out of reach; with it everything depends on everything."""
    x = images(1, 3, 256, 256)
    changed = x.clone()
    changed[..., -8:, -8:] *= -1
    for pooled, expected in ((False, True), (True, False)):
        autoencoder = make(pooled=pooled, num_blocks=(1, 1))
        with torch.no_grad():
            corner, other = (autoencoder.encode(each).mean[..., 0, 0] for each in (x, changed))
        assert torch.equal(corner, other) is expected


def test_pooled_block_is_its_formula():
    block = make(pooled=True).encoder.layers[-2]
    x = torch.randn(1, 8, 4, 4)
    wide = torch.einsum('dc,bchw->bdhw', block.pool[0].weight[:, :, 0, 0], x)
    groups = wide.view(1, 4, -1)
    normalised = (groups - groups.mean(-1, keepdim=True)) / (groups.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    scaled = normalised.view_as(wide) * block.pool[1].weight[:, None, None] + block.pool[1].bias[:, None, None]
    y = x + torch.einsum('dc,bchw->bdhw', block.pool[3].weight[:, :, 0, 0], scaled.relu())
    torch.testing.assert_close(block(x), (block.conv(y) + y).relu())


def test_smoke_keeps_the_structure_of_a_config():
    arguments = TinyAutoencoder.smoke(dict(latent_channels=32, pooled=True, weights='x.pth'))
    assert arguments == dict(latent_channels=32, pooled=True, width=8, weights=None)
