"""Objectives: which pair they compare, and how often; and the KL penalty."""

from collections import Counter

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import nn
from torch.nn import functional as F

from eqzoo.autoencoders import Bottleneck
from eqzoo.regularizers import ExplicitEquivariance, ImplicitEquivariance, KLDivergence, Plain
from eqzoo.transforms import AnisotropicScale, Compose, IsotropicScale, Rotate

GRID = (8, 8)


class Posterior:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std * torch.ones_like(mean)


class Pooling(nn.Module):
    """Encode by average pooling, decode by nearest upsampling: equivariant to quarter turns."""

    def __init__(self, std=0.0):
        super().__init__()
        self.std, self.encoded, self.decoded = std, [], []

    def encode(self, images):
        self.encoded.append(images)
        return Posterior(F.avg_pool2d(images, 4), self.std)

    def bottleneck(self, latents):
        return Bottleneck(latents)

    def decode_latents(self, latents):
        self.decoded.append(latents)
        return F.interpolate(latents, scale_factor=4.0)


class Skewed(Pooling):
    """Adds a ramp, so that nothing commutes with turning."""

    def encode(self, images):
        posterior = super().encode(images)
        posterior.mean = posterior.mean + torch.arange(posterior.mean.shape[-1])
        return posterior


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def draws(objective, count):
    return [objective.sample(torch.Generator().manual_seed(seed), GRID) for seed in range(count)]


def draw_of(objective, branch):
    return next(draw for draw in draws(objective, 200) if draw.branch == branch)


def ones(like):
    return torch.ones_like(like)


def test_plain_reconstructs_the_images_with_noise_scaled_by_the_posterior(images):
    autoencoder = Pooling(std=0.5)
    pair = Plain()(autoencoder, images, Plain().sample(torch.Generator(), GRID), ones)
    assert pair.target is images
    torch.testing.assert_close(autoencoder.decoded[0], F.avg_pool2d(images, 4) + 0.5, rtol=0, atol=0)
    torch.testing.assert_close(pair.reconstruction, F.interpolate(F.avg_pool2d(images, 4) + 0.5, scale_factor=4.0))


def test_implicit_transforms_latents_and_encodes_only_original_images(images):
    objective = ImplicitEquivariance(Rotate(turns=(1,)), 1.0)
    autoencoder = Pooling()
    pair = objective(autoencoder, images, draw_of(objective, 'equivariance'), ones)
    assert len(autoencoder.encoded) == 1
    assert autoencoder.encoded[0] is images
    torch.testing.assert_close(pair.target, images.rot90(1, (2, 3)), rtol=0, atol=0)
    torch.testing.assert_close(autoencoder.decoded[0], F.avg_pool2d(images, 4).rot90(1, (2, 3)), rtol=0, atol=0)


def test_implicit_transforms_the_noise_with_the_latents(images):
    """As released: τ acts on the drawn latent."""
    objective = ImplicitEquivariance(Rotate(turns=(2,)), 1.0)
    autoencoder = Pooling(std=1.0)
    noise = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    objective(autoencoder, images, draw_of(objective, 'equivariance'), lambda like: noise)
    wanted = (F.avg_pool2d(images, 4) + noise).rot90(2, (2, 3))
    torch.testing.assert_close(autoencoder.decoded[0], wanted, rtol=0, atol=0)


def test_low_resolution_reconstructs_the_scaled_image(images):
    objective = ImplicitEquivariance(Rotate(), 0.0, p_low_resolution=1.0)
    draw = draw_of(objective, 'low_resolution')
    autoencoder = Pooling()
    pair = objective(autoencoder, images, draw, ones)
    assert pair.target.shape[-1] < 32
    torch.testing.assert_close(pair.target, IsotropicScale()(images, draw.params), rtol=0, atol=0)
    assert autoencoder.encoded[0] is pair.target


def test_the_released_mix_is_half_an_eighth_and_three_eighths():
    """2,000 draws: the standard deviation of a share is below 0.0112, three of it 0.034."""
    objective = ImplicitEquivariance(Compose([IsotropicScale(), Rotate()]))
    share = Counter(draw.branch for draw in draws(objective, 2000))
    assert share['equivariance'] / 2000 == pytest.approx(0.5, abs=0.034)
    assert share['low_resolution'] / 2000 == pytest.approx(0.125, abs=0.034)
    assert share['plain'] / 2000 == pytest.approx(0.375, abs=0.034)


@pytest.mark.parametrize(
    ('p_equivariance', 'p_low_resolution', 'branches'),
    [
        (1.0, 0.25, {'equivariance'}),
        (0.0, 0.0, {'plain'}),
        (0.0, 1.0, {'low_resolution'}),
    ],
)
def test_each_probability_is_of_its_named_event(p_equivariance, p_low_resolution, branches):
    objective = ImplicitEquivariance(Rotate(), p_equivariance, p_low_resolution=p_low_resolution)
    assert {draw.branch for draw in draws(objective, 100)} == branches


def test_low_resolution_may_be_another_scale():
    objective = ImplicitEquivariance(Rotate(), 0.0, p_low_resolution=1.0, low_resolution=AnisotropicScale())
    params = {draw.params for draw in draws(objective, 20)}
    assert any(vertical != horizontal for vertical, horizontal in params)


def test_the_draw_is_a_function_of_the_generator():
    objective = ImplicitEquivariance(Compose([IsotropicScale(), Rotate()]))
    assert draws(objective, 20) == draws(objective, 20)
    assert len(set(draws(objective, 20))) > 5


@pytest.mark.parametrize('name', ['p_equivariance', 'p_low_resolution'])
def test_a_probability_lies_between_0_and_1(name):
    with pytest.raises(ValueError, match=rf'ImplicitEquivariance\.{name} must be a probability in \[0, 1\], got 1.5'):
        ImplicitEquivariance(Rotate(), **{name: 1.5})


def test_explicit_penalty_is_zero_for_an_equivariant_encoder(images):
    objective = ExplicitEquivariance(Rotate())
    images = images.mul(8).round()  # whole numbers: their means are exact in any order
    pair = objective(Pooling(), images, draw_of(objective, 'explicit'), ones)
    assert pair.penalties['explicit'] == 0
    assert pair.target is images


def test_explicit_penalty_is_the_weighted_squared_distance(images):
    objective = ExplicitEquivariance(Rotate(turns=(2,)), 0.1)
    pair = objective(Skewed(), images, draw_of(objective, 'explicit'), ones)
    ramp = torch.arange(8.0)
    wanted = (ramp.flip(0) - ramp).square().sum() * 8 * 3  # rows of 8 cells, 3 channels; the same for each image
    torch.testing.assert_close(pair.penalties['explicit'], 0.1 * wanted)


def test_stop_gradient_leaves_only_the_transformed_latents_gradient(images):
    """With E linear in a weight w, d/dw of (wa - wb)² is 2w(a-b)², and with b's part constant 2w(a-b)a."""

    class Weighted(Pooling):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0))

        def encode(self, images):
            ramp = torch.arange(8.0).expand(len(images), 3, 8, 8)
            return Posterior(self.weight * ramp, 0.0)

    ramp = torch.arange(8.0)
    gradients = {}
    for stop in (False, True):
        autoencoder = Weighted()
        objective = ExplicitEquivariance(Rotate(turns=(2,)), 1.0, stop_gradient=stop)
        pair = objective(autoencoder, images, draw_of(objective, 'explicit'), ones)
        pair.penalties['explicit'].backward()
        gradients[stop] = autoencoder.weight.grad.item()
    turned = ramp.flip(0)
    assert gradients[False] == pytest.approx(24 * 2 * 2 * (turned - ramp).square().sum().item())
    assert gradients[True] == pytest.approx(24 * 2 * 2 * ((turned - ramp) * turned).sum().item())


def test_kl_is_the_closed_form_summed_over_the_latent():
    generator = torch.Generator().manual_seed(3)
    mean, log_variance = torch.randn(2, 2, 4, 3, 3, generator=generator)
    posterior = DiagonalGaussianDistribution(torch.cat([mean, log_variance], dim=1))
    formula = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    torch.testing.assert_close(KLDivergence(1e-3)(posterior), 1e-3 * formula.flatten(1).sum(1).mean())
