"""The terms of the loss: formulas, reductions, and what they leave alone."""

import math

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn

from eqzoo.losses import L1, L2, LPIPS, AdversarialLoss, PatchGAN, ReconstructionLoss
from eqzoo.regularizers import KLDivergence


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pair():
    return randn(2, 3, 8, 8, seed=1), randn(2, 3, 8, 8, seed=2)


def test_pixel_losses_are_element_by_element(pair):
    a, b = pair
    assert torch.equal(L1()(a, b), (a - b).abs())
    assert torch.equal(L2()(a, b), (a - b) ** 2)


def test_sum_reduction_is_over_pixels_and_mean_over_the_batch(pair):
    a, b = pair
    loss, parts = ReconstructionLoss(L1())(a, b)
    torch.testing.assert_close(loss, (a - b).abs().flatten(1).sum(1).mean())
    torch.testing.assert_close(parts['pixel'], (a - b).abs().mean())


def test_mean_reduction_is_the_sum_over_the_number_of_values(pair):
    total, _ = ReconstructionLoss(L2())(*pair)
    mean, _ = ReconstructionLoss(L2(), reduction='mean')(*pair)
    torch.testing.assert_close(mean, total / (3 * 8 * 8))


def test_perceptual_loss_is_added_to_every_pixel(pair):
    a, b = pair
    loss, parts = ReconstructionLoss(L1(), lambda r, t: torch.tensor([1.0, 3.0]), perceptual_weight=0.5)(a, b)
    plain, _ = ReconstructionLoss(L1())(a, b)
    torch.testing.assert_close(loss - plain, torch.tensor(0.5 * 2.0 * 192))
    assert parts['perceptual'] == 2


def test_log_variance_divides_and_is_added(pair):
    plain, _ = ReconstructionLoss(L1())(*pair)
    loss, _ = ReconstructionLoss(L1(), log_variance=0.7)(*pair)
    torch.testing.assert_close(loss, plain / math.exp(0.7) + 0.7 * 192)


def test_log_variance_is_learned_only_when_told(pair):
    for learned in (False, True):
        loss = ReconstructionLoss(L1(), learn_log_variance=learned)
        assert [p.requires_grad for p in loss.parameters()] == [learned]
    loss(*pair)[0].backward()
    expected = -(pair[0] - pair[1]).abs().flatten(1).sum(1).mean() + 192  # d/ds of e·exp(-s) + s at 0
    torch.testing.assert_close(loss.log_variance.grad, expected)


def test_unknown_reduction():
    with pytest.raises(ValueError, match="ReconstructionLoss.reduction must be 'sum' or 'mean', got 'none'"):
        ReconstructionLoss(L1(), reduction='none')


def test_kl_is_the_closed_form_summed_over_the_latent():
    mean, log_variance = randn(2, 4, 3, 3, seed=3), randn(2, 4, 3, 3, seed=4)
    posterior = DiagonalGaussianDistribution(torch.cat([mean, log_variance], dim=1))
    formula = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    torch.testing.assert_close(KLDivergence(1e-3)(posterior), 1e-3 * formula.flatten(1).sum(1).mean())


def test_lpips_is_zero_for_equal_images_and_positive_otherwise():
    torch.manual_seed(0)
    loss = LPIPS('alex', 'random')
    a, b = randn(2, 3, 64, 64, seed=5), randn(2, 3, 64, 64, seed=6)
    assert torch.equal(loss(a, a), torch.zeros(2))
    assert (loss(a, b) > 0).all()
    assert loss(a, b).shape == (2,)


def test_lpips_stays_out_of_the_module_tree():
    """In it, train() would wake its dropout, and optimizers and checkpoints would carry it."""
    loss = ReconstructionLoss(L1(), LPIPS('alex', 'random'))
    loss.train()
    assert [name for name, _ in loss.named_parameters()] == ['log_variance']
    assert not loss.perceptual._network.training
    assert not any(p.requires_grad for p in loss.perceptual._network.parameters())


def test_lpips_loads_torchvisions_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    source = LPIPS('alex', 'random')
    state = {}
    for index in range(1, 6):
        for name, value in getattr(source._network.net, f'slice{index}').state_dict().items():
            state[f'features.{name}'] = value
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(tmp_path))
    torch.save(state | {'classifier.1.weight': torch.zeros(1)}, tmp_path / 'alexnet-owt-7be5be79.pth')
    assert LPIPS.requirements({'net': 'alex'}) == []
    a, b = randn(1, 3, 64, 64, seed=7), randn(1, 3, 64, 64, seed=8)
    torch.testing.assert_close(LPIPS('alex')(a, b), source(a, b), rtol=0, atol=0)


def test_lpips_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.chdir(tmp_path)
    (requirement,) = LPIPS.requirements({})
    assert 'vgg16-397923af.pth' in requirement.what
    assert str(tmp_path) in requirement.where
    assert requirement.remedy == 'python tools/download.py lpips-vgg16'
    with pytest.raises(FileNotFoundError, match='vgg16-397923af.pth.*; fetch it: python tools/download.py lpips-vgg16'):
        LPIPS()
    with pytest.raises(ValueError, match=r"LPIPS.net must be one of vgg, alex, got 'squeeze'"):
        LPIPS('squeeze')


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


def test_patchgan_gives_one_logit_at_its_smallest_size_and_refuses_less():
    discriminator = PatchGAN(num_layers=3, width=4)
    assert discriminator.min_size == 24
    assert discriminator(randn(1, 3, 24, 24)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match=r'PatchGAN with 3 layers needs images of at least 24 pixels, got \(16, 24\)'):
        discriminator(randn(1, 3, 16, 24))


def test_patchgan_has_ldms_size():
    """11.1 MB of the LDM checkpoint: five convolutions and three batch norms."""
    assert sum(p.numel() for p in PatchGAN().parameters()) == 2_765_633
