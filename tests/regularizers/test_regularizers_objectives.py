"""Objectives: which pairs they compare, and how often."""

from collections import Counter

import pytest
import torch
from scipy.fft import dctn, idctn
from torch import nn
from torch.nn import functional as F

from eqzoo.autoencoders import Bottleneck
from eqzoo.regularizers import DownsampledReconstruction, ImplicitEquivariance, LatentStep, Plain, SpectralMask
from eqzoo.transforms import AnisotropicScale, Compose, IsotropicScale, Rotate

GRID = (8, 8)


class Posterior:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std * torch.ones_like(mean)


class Pooling(nn.Module):
    """Encode by average pooling, decode by nearest upsampling: equivariant to quarter turns."""

    has_codebook = False

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


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def draws(objective, count):
    return [objective.sample(torch.Generator().manual_seed(seed), GRID) for seed in range(count)]


def draw_of(objective, branch):
    return next(draw for draw in draws(objective, 200) if draw.branch == branch)


def ones(like):
    return torch.ones_like(like)


def compare(objective, autoencoder, images, draw, noise=ones):
    """The only pair of a step."""
    (pair,) = objective(LatentStep(autoencoder, noise), images, draw)
    assert (pair.weight, pair.name) == (1.0, '')
    return pair


def test_plain_reconstructs_the_images_with_noise_scaled_by_the_posterior(images):
    autoencoder = Pooling(std=0.5)
    pair = compare(Plain(), autoencoder, images, Plain().sample(torch.Generator(), GRID))
    assert pair.target is images
    torch.testing.assert_close(autoencoder.decoded[0], F.avg_pool2d(images, 4) + 0.5, rtol=0, atol=0)
    torch.testing.assert_close(pair.reconstruction, F.interpolate(F.avg_pool2d(images, 4) + 0.5, scale_factor=4.0))


def test_implicit_transforms_latents_and_encodes_only_original_images(images):
    objective = ImplicitEquivariance(Rotate(turns=(1,)), 1.0)
    autoencoder = Pooling()
    pair = compare(objective, autoencoder, images, draw_of(objective, 'equivariance'))
    assert len(autoencoder.encoded) == 1
    assert autoencoder.encoded[0] is images
    torch.testing.assert_close(pair.target, images.rot90(1, (2, 3)), rtol=0, atol=0)
    torch.testing.assert_close(autoencoder.decoded[0], F.avg_pool2d(images, 4).rot90(1, (2, 3)), rtol=0, atol=0)


def test_implicit_transforms_the_noise_with_the_latents(images):
    """As released: τ acts on the drawn latent."""
    objective = ImplicitEquivariance(Rotate(turns=(2,)), 1.0)
    autoencoder = Pooling(std=1.0)
    noise = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    compare(objective, autoencoder, images, draw_of(objective, 'equivariance'), lambda like: noise)
    wanted = (F.avg_pool2d(images, 4) + noise).rot90(2, (2, 3))
    torch.testing.assert_close(autoencoder.decoded[0], wanted, rtol=0, atol=0)


def test_low_resolution_reconstructs_the_scaled_image(images):
    objective = ImplicitEquivariance(Rotate(), 0.0, p_low_resolution=1.0)
    draw = draw_of(objective, 'low_resolution')
    autoencoder = Pooling()
    pair = compare(objective, autoencoder, images, draw)
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
    with pytest.raises(ValueError, match=rf'ImplicitEquivariance\.{name} must be in \[0, 1\], got 1.5'):
        ImplicitEquivariance(Rotate(), **{name: 1.5})


def test_codes_need_a_codebook():
    objective = ImplicitEquivariance(Rotate(), act_on='codes')
    with pytest.raises(ValueError, match=r"act_on: got 'codes', but Pooling has no codebook; use 'features'"):
        objective.prepare(Pooling())


def test_a_grid_without_scales_is_refused_before_the_first_step():
    with pytest.raises(ValueError, match=r'latent grid of 1 x 1 has no scale'):
        ImplicitEquivariance(Compose([IsotropicScale(), Rotate()]), p_low_resolution=0.0).check_grid((1, 1))
    with pytest.raises(ValueError, match=r'latent grid of 1 x 1 has no scale'):
        ImplicitEquivariance(Rotate(), p_low_resolution=0.1).check_grid((1, 1))


def test_downsampled_pairs_are_means_of_pixels_and_of_cells(images):
    objective, autoencoder = DownsampledReconstruction((2, 4), weight=0.5), Pooling()
    pairs = objective(LatentStep(autoencoder, ones), images, objective.sample(torch.Generator(), GRID))
    assert [(pair.weight, pair.name) for pair in pairs] == [(1.0, ''), (0.25, '2x_smaller'), (0.25, '4x_smaller')]
    assert len(autoencoder.encoded) == 1
    latents = F.avg_pool2d(images, 4)
    for pair, decoded, factor in zip(pairs, autoencoder.decoded, (1, 2, 4), strict=True):
        blocks = images.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
        torch.testing.assert_close(pair.target, blocks.mean(dim=(3, 5)))
        cells = latents.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))
        torch.testing.assert_close(decoded, cells.mean(dim=(3, 5)))
        torch.testing.assert_close(pair.reconstruction, F.interpolate(decoded, scale_factor=4.0), rtol=0, atol=0)


def test_downsampled_features_are_quantised_and_their_penalties_weighted(images):
    class Coded(Pooling):
        def bottleneck(self, latents):
            return Bottleneck(latents.round(), {'codebook': latents.square().mean()})

    objective, step = DownsampledReconstruction((2,), weight=0.5), LatentStep(Coded(), ones)
    objective(step, images, objective.sample(torch.Generator(), GRID))
    latents = F.avg_pool2d(images, 4)
    wanted = latents.square().mean() + 0.5 * F.avg_pool2d(latents, 2).square().mean()
    torch.testing.assert_close(step.penalties['codebook'], wanted)
    assert all(torch.equal(each, each.round()) for each in step.autoencoder.decoded)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(factors=(1,)), r'factors\[0\] must be at least 2, got 1'),
        (dict(factors=()), r'factors must be a list of one or more whole numbers of at least 2, got \(\)'),
        (dict(factors=(1.5,)), r'factors\[0\] must be a whole number of at least 2, got 1.5'),
        (dict(weight=-1.0), r'weight must be at least 0, got -1'),
    ],
)
def test_downsampled_arguments(arguments, message):
    with pytest.raises(ValueError, match=f'DownsampledReconstruction.{message}'):
        DownsampledReconstruction(**arguments)


def test_factors_divide_the_grid():
    with pytest.raises(ValueError, match=r'factors: 4 does not divide latents of 6 x 8 cells'):
        DownsampledReconstruction((2, 4)).check_grid((6, 8))


def low_passed(x, block, kept):
    """Block by block with scipy."""
    result = torch.empty_like(x)
    mask = [[row + column < kept for column in range(block)] for row in range(block)]
    for top in range(0, x.shape[2], block):
        for left in range(0, x.shape[3], block):
            part = x[:, :, top : top + block, left : left + block].double().numpy()
            part = idctn(dctn(part, axes=(2, 3), norm='ortho') * mask, axes=(2, 3), norm='ortho')
            result[:, :, top : top + block, left : left + block] = torch.from_numpy(part)
    return result


@pytest.mark.parametrize('kept', [1, 3, 7])
def test_spectral_mask_low_passes_image_and_latent_alike(images, kept):
    objective, autoencoder = SpectralMask(4, (kept,)), Pooling(std=0.5)
    noise = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    draw = objective.sample(torch.Generator(), GRID)
    pair = compare(objective, autoencoder, images, draw, lambda like: noise)
    assert autoencoder.encoded[0] is images
    torch.testing.assert_close(pair.target, low_passed(images, 4, kept), atol=1e-5, rtol=0)
    wanted = low_passed(F.avg_pool2d(images, 4) + 0.5 * noise, 4, kept)
    torch.testing.assert_close(autoencoder.decoded[0], wanted, atol=1e-5, rtol=0)


def test_spectral_mask_draws_each_cut_and_keeps_everything_to_the_bit(images):
    objective = SpectralMask()
    assert Counter(draw.params for draw in draws(objective, 200)).keys() == {15, 7, 5, 3}
    assert objective.low_pass(images, 15) is images


def test_the_gradient_passes_the_mask(images):
    objective = SpectralMask(4, (3,))
    x = images.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: objective.low_pass(x[:1, :1, :4, :4].float(), 3).double(), x, eps=1e-2, atol=1e-3
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(block=1), r'block must be at least 2, got 1'),
        (
            dict(block=4, kept=(8,)),
            r'kept must be whole numbers from 1 to 7, the diagonals of a block of 4, got \(8,\)',
        ),
        (dict(kept=()), r'kept must be a list of one or more whole numbers'),
    ],
)
def test_spectral_arguments(arguments, message):
    with pytest.raises(ValueError, match=f'SpectralMask.{message}'):
        SpectralMask(**arguments)


def test_blocks_divide_the_grid():
    with pytest.raises(ValueError, match=r'latents of 4 x 4 cells cannot be cut into blocks of 8; use a smaller block'):
        SpectralMask().check_grid((4, 4))
