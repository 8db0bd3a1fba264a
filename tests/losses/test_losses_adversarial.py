"""The adversarial loss: hinge losses, the adaptive weight, and the patch discriminator with its files."""

import math

import pytest
import torch
from torch import nn

from eqzoo.checkpoints.autoencoder import AutoencoderFile
from eqzoo.checkpoints.write import export
from eqzoo.losses import AdversarialLoss, PatchGAN
from eqzoo.registry import Requirement


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_hinge_losses_by_hand():
    class Constant(nn.Module):
        def forward(self, images):
            return images.mean(dim=(1, 2, 3), keepdim=True)

    loss = AdversarialLoss(Constant(), 0.5, adaptive=False)
    real, fake = torch.full((1, 3, 4, 4), 0.25), torch.full((1, 3, 4, 4), -3.0)
    value, parts = loss.discriminator_loss(fake, real)
    assert value.item() == pytest.approx(0.5 * ((1 - 0.25) + 0.0))
    assert parts == {'logits_real': torch.tensor(0.25), 'logits_fake': torch.tensor(-3.0)}
    weighted, weight = loss.generator_loss(fake, torch.tensor(1.0), torch.tensor(1.0))
    assert (weighted.item(), weight.item()) == (pytest.approx(0.5 * 3.0), 0.5)


def test_adaptive_weight_is_the_ratio_of_gradient_norms():
    last_layer = nn.Parameter(torch.tensor([3.0, 4.0]))
    reconstruction = last_layer * 1.0

    class Sum(nn.Module):
        def forward(self, images):
            return 2 * images.sum()

    loss = AdversarialLoss(Sum(), 0.5)
    rec = 6 * reconstruction.sum()  # gradient (6, 6); adversarial: (-2, -2)
    weighted, weight = loss.generator_loss(reconstruction, rec, last_layer)
    ratio = 6 * math.sqrt(2) / (2 * math.sqrt(2) + 1e-4)
    assert weight.item() == pytest.approx(0.5 * ratio)
    assert weighted.item() == pytest.approx(0.5 * ratio * -14)
    assert not weight.requires_grad


@pytest.mark.parametrize(
    ('reconstruction_slope', 'adversarial_slope', 'is_clamped'),
    [(0.6, 0.0, False), (0.9, 0.0, True), (6.0, 1e-4, True), (6.0, 2e-3, False), (0.0, 2.0, False)],
)
def test_adaptive_weight_is_bounded_as_tamings(reconstruction_slope, adversarial_slope, is_clamped):
    """taming-transformers' `calculate_adaptive_weight`: clamp(|r| / (|g| + 1e-4), 0, 1e4), then times the weight."""

    class Sloped(nn.Module):
        def forward(self, images):
            return adversarial_slope * images.sum()

    last_layer = nn.Parameter(torch.tensor([3.0, 4.0]))
    reconstruction = last_layer * 1.0
    loss = AdversarialLoss(Sloped(), 0.5)
    _, weight = loss.generator_loss(reconstruction, reconstruction_slope * reconstruction.sum(), last_layer)
    ratio = math.hypot(reconstruction_slope, reconstruction_slope) / (
        math.hypot(adversarial_slope, adversarial_slope) + 1e-4
    )
    assert (ratio > 1e4) == is_clamped
    assert weight.item() == pytest.approx(0.5 * min(ratio, 1e4), rel=1e-5)


def test_patchgan_gives_one_logit_at_its_smallest_size_and_refuses_less():
    discriminator = PatchGAN(num_layers=3, width=4)
    assert discriminator.min_size == 24
    assert discriminator(randn(1, 3, 24, 24)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=r'PatchGAN with 3 layers: got .*\(16, 24\); expected at least 24'):
        discriminator(randn(1, 3, 16, 24))


def test_patchgan_has_ldms_size():
    """11.1 MB of the LDM checkpoint: five convolutions and three batch norms."""
    assert sum(p.numel() for p in PatchGAN().parameters()) == 2_765_633


@pytest.fixture
def trained():
    model = PatchGAN(1, 4)
    model(torch.rand(4, 3, 8, 8))  # moves the batch statistics
    return model


def assert_same(left, right):
    for key, value in left.state_dict().items():
        assert torch.equal(value, right.state_dict()[key]), key


def test_discriminators_load_from_ldms_and_tamings_files(tmp_path, trained):
    state = {f'loss.discriminator.{key}': value for key, value in trained.network.state_dict().items()}
    torch.save(dict(state_dict={'encoder.conv_in.bias': torch.zeros(4), **state}), tmp_path / 'model.ckpt')
    assert_same(trained, PatchGAN(1, 4, weights=tmp_path / 'model.ckpt'))


@pytest.mark.parametrize(('to', 'name'), [('diffusers', 'a'), ('ldm', 'a.safetensors'), ('eqzoo', 'a.pth')])
def test_discriminators_load_from_exports(tmp_path, trained, to, name):
    config = dict(
        type='TinyAutoencoder', latent_channels=4, num_blocks=[1], width=8, pooled=False, padding_mode='zeros'
    )
    stored = AutoencoderFile(
        {'encoder.layers.0.weight': torch.zeros(8, 3, 3, 3)}, config, discriminator=trained.state_dict()
    )
    export(stored, tmp_path / name, to=to)
    assert_same(trained, PatchGAN(1, 4, weights=tmp_path / name))


def test_files_without_a_fitting_discriminator_are_refused(tmp_path, trained):
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
