"""Penalties: values against independent computations, gradients, and what they refuse."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from scipy.fft import dctn
from torch import nn
from torch.nn import functional as F

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder, VQAutoencoder
from eqzoo.normalization import LatentNormalization
from eqzoo.regularizers import (
    ExplicitEquivariance,
    KLDivergence,
    LatentStep,
    LocalCorrelation,
    SpectrumMatching,
    VarianceExpansion,
)
from eqzoo.transforms import Rotate

GRID = (8, 8)


class Posterior:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std * torch.ones_like(mean)


class Pooling(nn.Module):
    def encode(self, images):
        return Posterior(F.avg_pool2d(images, 4), 0.0)


class Skewed(Pooling):
    """Adds a ramp, so that nothing commutes with turning."""

    def encode(self, images):
        posterior = super().encode(images)
        posterior.mean = posterior.mean + torch.arange(posterior.mean.shape[-1])
        return posterior


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def after(autoencoder, images):
    """The step after the objective has encoded."""
    step = LatentStep(autoencoder, torch.zeros_like)
    step.encode(images)
    return step


def of_latents(mean, std=0.0, images=None, scale=1.0):
    autoencoder = SimpleNamespace(normalization=LatentNormalization(mean.shape[1], scale=scale))
    step = LatentStep(autoencoder, torch.zeros_like)
    step.posterior, step.latents, step.images = Posterior(mean, std), mean, images
    return step


def test_kl_is_the_closed_form_summed_over_the_latent():
    generator = torch.Generator().manual_seed(3)
    mean, log_variance = torch.randn(2, 2, 4, 3, 3, generator=generator)
    step = LatentStep(None, torch.zeros_like)
    step.posterior = DiagonalGaussianDistribution(torch.cat([mean, log_variance], dim=1))
    formula = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
    torch.testing.assert_close(KLDivergence(1e-3)(step)['kl'], 1e-3 * formula.flatten(1).sum(1).mean())


@pytest.mark.parametrize('penalty', [KLDivergence(), VarianceExpansion()])
def test_a_posterior_is_needed(penalty):
    penalty.prepare(KLAutoencoder(4, (8, 8), norm_num_groups=4))
    for other in (VQAutoencoder(4, 32, (8, 8), attention_levels=(), norm_num_groups=4), TinyAutoencoder(width=8)):
        with pytest.raises(
            ValueError, match=f'{type(penalty).__name__}: {type(other).__name__} has no posterior; leave'
        ):
            penalty.prepare(other)


def test_variance_expansion_is_the_closed_form():
    generator = torch.Generator().manual_seed(4)
    mean, std = torch.randn(2, 2, 4, 3, 3, generator=generator)
    step = of_latents(mean, std.abs(), scale=0.25)
    found = VarianceExpansion(0.1, delta=0.5, magnitude_weight=0.01)(step)
    z, sigma = mean.numpy().astype(float), std.abs().numpy().astype(float)
    assert found['variance'].item() == pytest.approx(0.1 * (1 / (sigma**2 + 0.5)).sum() / 2, rel=1e-5)
    assert found['magnitude'].item() == pytest.approx(0.01 * np.exp(np.abs(0.25 * z) - 1).sum() / 2, rel=1e-5)
    assert step.log['posterior_std'].item() == pytest.approx(sigma.mean(), rel=1e-5)


def test_variance_expansion_widens_and_shrinks():
    mean = torch.tensor([[[[2.0]], [[-3.0]]]], requires_grad=True)
    std = torch.tensor(0.5, requires_grad=True)
    sum(VarianceExpansion(1.0, delta=1.0, magnitude_weight=1.0)(of_latents(mean, std)).values()).backward()
    assert std.grad.item() == pytest.approx(-2 * 2 * 0.5 / 1.25**2)  # of two values
    assert mean.grad.flatten().tolist() == pytest.approx([math.exp(1), -math.exp(2)])


def test_variance_expands_to_the_balance_with_the_reconstruction():
    """From 1e-8, as collapsed as the paper's: the loss T σ² of a decoder of sensitivity T, and the penalty."""
    sensitivity, log_variance = 30.0, torch.tensor(1e-8).log().requires_grad_()
    optimizer = torch.optim.Adam([log_variance], 0.2)
    for _ in range(400):
        variance = log_variance.exp()
        penalty = VarianceExpansion()(of_latents(torch.zeros(1, 1, 1, 1), variance.sqrt()))['variance']
        optimizer.zero_grad()
        (sensitivity * variance + penalty).backward()
        optimizer.step()
    assert log_variance.exp().item() == pytest.approx((0.1 / sensitivity) ** 0.5 - 1e-4, rel=1e-2)


def test_delta_is_positive():
    with pytest.raises(ValueError, match=r'VarianceExpansion.delta must be above 0, got 0'):
        VarianceExpansion(delta=0)


def test_explicit_penalty_is_zero_for_an_equivariant_encoder(images):
    penalty = ExplicitEquivariance(Rotate())
    images = images.mul(8).round()  # whole numbers: their means are exact in any order
    assert penalty(after(Pooling(), images), penalty.sample(torch.Generator().manual_seed(1), GRID))['explicit'] == 0


def test_explicit_penalty_is_the_weighted_squared_distance(images):
    penalty = ExplicitEquivariance(Rotate(turns=(2,)), 0.1)
    found = penalty(after(Skewed(), images), penalty.sample(torch.Generator(), GRID))
    ramp = torch.arange(8.0)
    wanted = (ramp.flip(0) - ramp).square().sum() * 8 * 3  # rows of 8 cells, 3 channels; the same for each image
    torch.testing.assert_close(found['explicit'], 0.1 * wanted)


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
        penalty = ExplicitEquivariance(Rotate(turns=(2,)), 1.0, stop_gradient=stop)
        penalty(after(autoencoder, images), penalty.sample(torch.Generator(), GRID))['explicit'].backward()
        gradients[stop] = autoencoder.weight.grad.item()
    turned = ramp.flip(0)
    assert gradients[False] == pytest.approx(24 * 2 * 2 * (turned - ramp).square().sum().item())
    assert gradients[True] == pytest.approx(24 * 2 * 2 * ((turned - ramp) * turned).sum().item())


def spectrum_with_numpy(x, bins):
    """Mean power of rings, one image after another."""
    found = np.zeros((len(x), bins))
    for number, image in enumerate(x.double().numpy()):
        power = (dctn(image - image.mean(axis=(1, 2), keepdims=True), axes=(1, 2), norm='ortho') ** 2).mean(axis=0)
        rows, columns = np.mgrid[: power.shape[0], : power.shape[1]]
        distance = np.hypot(rows, columns)
        ring = np.minimum((distance / distance.max() * bins).astype(int), bins - 1)
        for each in range(bins):
            if (ring == each).any():
                found[number, each] = power[ring == each].mean()
    return found


@pytest.mark.parametrize(('delta', 'bins'), [(0.0, 16), (1.0, 16), (0.4, 5)])
def test_spectrum_matching_is_the_divergence_of_both_spectra(images, delta, bins):
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    found = SpectrumMatching(0.5, delta=delta, bins=bins)(of_latents(latents, images=images))['spectrum']
    cells = images.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).mean(dim=(3, 5))
    wanted = np.log1p(spectrum_with_numpy(cells, bins) * np.arange(1, bins + 1) ** delta)
    ours = np.log1p(spectrum_with_numpy(latents, bins))
    wanted, ours = (each / each.sum(axis=1, keepdims=True) for each in (wanted, ours))
    divergence = (wanted * (np.log(wanted + 1e-8) - np.log(ours + 1e-8))).sum(axis=1).mean()
    assert found.item() == pytest.approx(0.5 * divergence, rel=1e-4, abs=1e-7)


def test_spectrum_matching_is_zero_for_the_image_itself_and_has_gradients(images):
    cells = F.avg_pool2d(images, 4)
    penalty = SpectrumMatching(1.0, delta=0.0)
    assert penalty(of_latents(cells, images=images))['spectrum'].item() == pytest.approx(0, abs=1e-6)
    latents = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    # the penalty computes in float32: finite differences need wide steps
    assert torch.autograd.gradcheck(
        lambda z: penalty(of_latents(z, images=images[:1]))['spectrum'].double(),
        latents,
        eps=1e-2,
        atol=2e-3,
        rtol=5e-2,
    )


def test_one_cell_has_no_spectrum_to_match():
    step = of_latents(torch.ones(2, 4, 1, 1), images=torch.rand(2, 3, 8, 8))
    assert SpectrumMatching()(step)['spectrum'] == 0


def test_rings_are_at_least_two():
    with pytest.raises(ValueError, match=r'SpectrumMatching.bins must be at least 2, got 1'):
        SpectrumMatching(bins=1)


def test_local_correlation_is_numpys_over_all_pairs_of_each_window():
    latents = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(5))
    latents = latents * torch.tensor([1.0, 5, 1, 0.2, 1])[:, None, None] + torch.arange(5)[:, None, None]
    step = of_latents(latents)
    found = LocalCorrelation(0.5, threshold=0.75, adaptive=False)(step)['local_correlation']
    cells, values = latents.double().numpy(), []
    cells = (cells - cells.mean((0, 2, 3), keepdims=True)) / cells.std((0, 2, 3), ddof=1, keepdims=True)
    for image in cells:
        for top in range(0, 4, 2):
            for left in range(0, 6, 2):
                window = image[:, top : top + 2, left : left + 2].reshape(5, 4).T
                values += np.corrcoef(window)[np.triu_indices(4, 1)].tolist()
    assert step.log['correlation'].item() == pytest.approx(np.mean(values), abs=1e-6)
    assert found.item() == pytest.approx(0.5 * (0.75 - np.mean(values)), rel=1e-5)


def test_enough_correlation_costs_nothing():
    same = torch.randn(2, 5, 1, 1, generator=torch.Generator().manual_seed(5)).expand(2, 5, 4, 4)
    step = of_latents(same)
    assert LocalCorrelation(adaptive=True)(step)['local_correlation'] == 0
    assert step.log['correlation'].item() == pytest.approx(1, abs=1e-6)


def test_local_correlation_raises_the_correlation():
    latents = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(5)).requires_grad_()
    penalty = LocalCorrelation(1.0, threshold=1.0, adaptive=False)
    penalty(of_latents(latents))['local_correlation'].backward()
    before = penalty.correlation(latents)
    assert penalty.correlation(latents - 0.1 * latents.grad) > before


def test_an_adaptive_weight_balances_the_gradients_at_the_encoders_last_layer():
    """With loss aw and penalty bw at the layer's weight w, the factor is abs(a) / (abs(b) + 1e-4)."""

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.latent_layer = nn.Parameter(torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(6)))

    autoencoder = Layer()
    step = of_latents(autoencoder.latent_layer[None])
    step.autoencoder, step.reconstruction_loss = autoencoder, 3 * autoencoder.latent_layer.sum()
    adaptive = LocalCorrelation(0.5, threshold=1.0)(step)['local_correlation']
    plain = LocalCorrelation(1.0, threshold=1.0, adaptive=False)(step)['local_correlation']
    (gradient,) = torch.autograd.grad(plain, autoencoder.latent_layer)
    wanted = 0.5 * 3 * math.sqrt(80) / (gradient.norm().item() + 1e-4)
    assert (adaptive / plain).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(threshold=1.5), r'threshold must be in \(-1, 1\], got 1.5'),
        (dict(window=1), r'window must be at least 2, got 1'),
    ],
)
def test_local_correlation_arguments(arguments, message):
    with pytest.raises(ValueError, match=f'LocalCorrelation.{message}'):
        LocalCorrelation(**arguments)


def test_local_correlation_needs_channels_and_whole_windows():
    with pytest.raises(ValueError, match=r'LocalCorrelation: latents of 2 channels; expected at least 3'):
        LocalCorrelation().prepare(TinyAutoencoder(2, width=8))
    with pytest.raises(ValueError, match=r'window: 3 does not divide latents of 8 x 8 cells'):
        LocalCorrelation(window=3).check_grid((8, 8))


def test_local_correlation_leaves_out_what_is_no_whole_window():
    latents = torch.randn(2, 5, 5, 7, generator=torch.Generator().manual_seed(5))
    penalty = LocalCorrelation(1.0, adaptive=False)
    assert torch.equal(penalty.correlation(latents), penalty.correlation(latents[:, :, :4, :6]))
    assert penalty(of_latents(latents[:, :, :1]))['local_correlation'] == 0
