"""A trained discriminator goes on where it was: GANs are fine-tuned again."""

import pytest
import torch

from eqzoo.checkpoints.autoencoder import AutoencoderFile
from eqzoo.checkpoints.write import export
from eqzoo.losses.adversarial import PatchGAN
from eqzoo.registry import Requirement


@pytest.fixture
def trained():
    model = PatchGAN(1, 4)
    model(torch.rand(4, 3, 8, 8))  # moves the batch statistics
    return model


def assert_same(left, right):
    for key, value in left.state_dict().items():
        assert torch.equal(value, right.state_dict()[key]), key


def test_from_ldms_and_tamings_files(tmp_path, trained):
    state = {f'loss.discriminator.{key}': value for key, value in trained.network.state_dict().items()}
    torch.save(dict(state_dict={'encoder.conv_in.bias': torch.zeros(4), **state}), tmp_path / 'model.ckpt')
    assert_same(trained, PatchGAN(1, 4, weights=tmp_path / 'model.ckpt'))


@pytest.mark.parametrize(('to', 'name'), [('diffusers', 'a'), ('ldm', 'a.safetensors'), ('eqzoo', 'a.pth')])
def test_from_exports(tmp_path, trained, to, name):
    config = dict(
        type='TinyAutoencoder', latent_channels=4, num_blocks=[1], width=8, pooled=False, padding_mode='zeros'
    )
    stored = AutoencoderFile(
        {'encoder.layers.0.weight': torch.zeros(8, 3, 3, 3)}, config, discriminator=trained.state_dict()
    )
    export(stored, tmp_path / name, to=to)
    assert_same(trained, PatchGAN(1, 4, weights=tmp_path / name))


def test_files_without_one_or_with_another_are_refused(tmp_path, trained):
    torch.save({'encoder.conv_in.bias': torch.zeros(4)}, tmp_path / 'bare.pth')
    with pytest.raises(ValueError, match=r"PatchGAN\.weights: the discriminator of '.*bare\.pth' .* 10 missing"):
        PatchGAN(1, 4, weights=tmp_path / 'bare.pth')
    state = {f'loss.discriminator.{key}': value for key, value in trained.network.state_dict().items()}
    torch.save({'encoder.conv_in.bias': torch.zeros(4), **state}, tmp_path / 'narrow.pth')
    with pytest.raises(ValueError, match=r'does not fit the network: .* of another shape: network\.main\.0\.weight'):
        PatchGAN(1, 8, weights=tmp_path / 'narrow.pth')


def test_a_missing_file_is_a_requirement():
    assert PatchGAN.requirements(dict(width=8)) == []
    lacks = PatchGAN.requirements(dict(weights='nowhere.pth'))
    assert lacks == [Requirement('weights of PatchGAN', 'nowhere.pth', 'correct weights=PATH')]
    assert PatchGAN.smoke(dict(weights='nowhere.pth'))['weights'] is None
