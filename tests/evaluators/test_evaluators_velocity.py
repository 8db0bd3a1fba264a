"""The velocity's irreducible variance: known Kronecker covariances, NumPy's fit, classes, standard errors."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from eqzoo.evaluators import AutoencoderView, VelocityVariance
from eqzoo.evaluators.velocity import class_velocity, kronecker_eigenvalues


class Identity(nn.Module):
    """Latents are the images."""

    def latents(self, images):
        return images


def measure(latents, labels=None, batch=50, **arguments):
    evaluator = VelocityVariance(**arguments)
    evaluator.check(len(latents))
    evaluator.check_labels(None if labels is None else labels.tolist())
    for numbers in torch.arange(len(latents)).split(batch):
        own = None if labels is None else labels[numbers]
        evaluator.process(AutoencoderView(Identity(), latents[numbers], numbers, own))
    return evaluator.evaluate(len(latents)), evaluator


def normal(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed)).double()


def correlation(size, decay):
    """A correlation matrix (size, size) that falls with the distance by the factor `decay`."""
    places = torch.arange(size).double()
    return decay ** (places[:, None] - places).abs()


def velocity(*covariances):
    """The mean of (π / 2) √λ over the eigenvalues of the Kronecker product."""
    eigenvalues = np.linalg.eigvalsh(np.kron(*(each.numpy() for each in covariances)))
    return np.mean(math.pi / 2 * np.sqrt(eigenvalues))


CHANNELS, CELLS = correlation(3, 0.8), torch.kron(correlation(2, 0.9), correlation(2, 0.6))


def exact_sample(count, seed=0):
    """Latents (count, 3, 2, 2) whose own mean is 0 and whose own covariance is CHANNELS ⊗ CELLS, exactly."""
    noise = normal(count, 12, seed=seed)
    noise = noise - noise.mean(dim=0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / count)).T
    shaped = torch.linalg.cholesky(CHANNELS) @ white.view(count, 3, 4) @ torch.linalg.cholesky(CELLS).T
    return shaped.view(count, 3, 2, 2)


@pytest.mark.parametrize('count', [16, 100])
def test_a_known_covariance_has_its_closed_form(count):
    """Variances of channels are 1, so standardisation changes nothing; only float32 is between both."""
    found, evaluator = measure(exact_sample(count))
    assert found['viv'] == pytest.approx(velocity(CHANNELS, CELLS), rel=1e-6)
    assert found['viv_share'] == pytest.approx(1, rel=1e-6)
    assert evaluator.card()['classes'] == 'none: one Gaussian of all images'


def test_samples_of_a_known_covariance_come_close_to_it():
    roots = torch.linalg.cholesky(correlation(4, 0.7)), torch.linalg.cholesky(correlation(16, 0.8))
    latents = roots[0] @ normal(3000, 4, 16) @ roots[1].T
    found, _ = measure(latents.view(-1, 4, 4, 4), batch=500)
    exact = velocity(correlation(4, 0.7), correlation(16, 0.8))
    assert found['viv'] == pytest.approx(exact, rel=0.01)
    assert abs(found['viv'] - exact) < 4 * found['viv_std']


def test_white_noise_has_half_of_pi():
    found, _ = measure(normal(2000, 4, 4, 4), batch=500)
    assert found['viv'] == pytest.approx(math.pi / 2, rel=0.003)
    # what few images lose, as in docs/metrics.md
    assert measure(normal(50, 4, 4, 4))[0]['viv'] == pytest.approx(1.54, abs=0.02)
    assert measure(normal(8, 4, 4, 4))[0]['viv'] == pytest.approx(1.29, abs=0.06)


def numpy_velocity(x, steps=5):
    """The fit as the public implementation describes it, by singular values of the whitened data; x (N, C, S)."""
    count, num_channels, num_cells = x.shape
    total = x.reshape(count, -1).var(axis=0).sum()
    x = x - x.mean(axis=0)
    cell_root = np.eye(num_cells)
    for _ in range(steps):
        _, values, right = np.linalg.svd((x @ cell_root).transpose(0, 2, 1).reshape(-1, num_channels), False)
        channel = values**2
        white = x.transpose(0, 2, 1) @ (right.T / np.sqrt(channel))
        _, values, right = np.linalg.svd(white.transpose(0, 2, 1).reshape(-1, num_cells), False)
        cell = values**2
        cell_root = right.T / np.sqrt(cell)
    eigenvalues = np.outer(channel, cell)
    return np.mean(math.pi / 2 * np.sqrt(eigenvalues * total / eigenvalues.sum())), total / eigenvalues.size


def test_classes_are_fitted_as_numpy_fits_them_and_averaged():
    labels = torch.tensor([0] * 20 + [7] * 30 + [3] * 3 + [5] * 9)[torch.randperm(62, generator=torch.manual_seed(0))]
    latents = normal(62, 3, 3, 2).cumsum(dim=2).cumsum(dim=1) + labels[:, None, None, None] ** 0.5 + 2
    latents = latents.float()
    found, evaluator = measure(latents, labels)
    x = latents.double().numpy()
    x = (x - x.mean((0, 2, 3), keepdims=True)) / x.std((0, 2, 3), keepdims=True)
    each = [numpy_velocity(x[labels.numpy() == label].reshape(-1, 3, 6)) for label in (0, 5, 7)]
    assert found['viv'] == pytest.approx(np.mean([value for value, _ in each]), rel=1e-9)
    assert found['viv_share'] == pytest.approx(np.mean([share for _, share in each]), rel=1e-9)
    card = evaluator.card()
    assert card['classes'] == 3  # the one of three images is left out
    assert card['images_per_class'] == '9 to 30'
    assert card['undetermined'] == '0 of 3, of fewer than 3 images'


def test_compact_classes_are_easier():
    labels = torch.arange(200) % 4
    noise, centres = normal(200, 2, 3, 3), normal(4, 2, 3, 3, seed=1)[labels]
    values = [measure(noise * spread + centres, labels)[0] for spread in (1.0, 0.5, 0.25)]
    assert values[0]['viv'] > 1.5 * values[1]['viv'] > 2 * values[2]['viv']
    # without classes their distances are variance
    assert measure(noise * 0.25 + centres, labels, by_class=False)[0]['viv_share'] == pytest.approx(0.9, abs=0.1)
    assert values[2]['viv_share'] < 0.1


def test_offsets_and_factors_of_channels_change_nothing():
    latents = normal(40, 3, 3, 3).cumsum(dim=3)
    moved = latents * torch.tensor([1e-3, 20.0, 1.0])[:, None, None] + torch.tensor([0.1, -50.0, 3.0])[:, None, None]
    assert measure(moved)[0] == pytest.approx(measure(latents)[0], rel=1e-4)


def test_one_label_is_no_label():
    latents = normal(30, 2, 3, 3).cumsum(dim=2)
    labels = torch.arange(30) % 3
    one, without = measure(latents, torch.full((30,), 4)), measure(latents)
    assert one[0] == without[0] == measure(latents, labels, by_class=False)[0]
    assert one[1].card() == without[1].card() == measure(latents, labels, by_class=False)[1].card()
    assert measure(latents, labels)[0]['viv'] != without[0]['viv']


def test_batches_change_nothing():
    latents, labels = normal(30, 2, 3, 3), torch.arange(30) % 3
    assert measure(latents, labels, batch=7)[0] == pytest.approx(measure(latents, labels)[0], rel=1e-12)


@pytest.mark.parametrize('count', [4, 6])
def test_few_images_vary_in_few_directions(count):
    """Of 2 channels and 40 cells: the others count as 0, and projecting onto the few changes no eigenvalue."""
    latents = normal(count, 2, 40)
    whole = kronecker_eigenvalues(latents)[0]
    assert (whole.amax(dim=0) > 1e-9).sum() == 2 * (count - 1)
    (value,), share = class_velocity(latents, torch.ones(1, 2).double(), [torch.ones(count, dtype=torch.bool)])
    assert value.item() == pytest.approx(math.pi / 2 * whole.sqrt().sum().item() / 80, rel=1e-6)
    assert share == pytest.approx(latents.var(dim=0, correction=0).mean().item(), rel=1e-12)
    assert measure(latents.view(count, 2, 8, 5))[1].card()['undetermined'] == '1 of 1, of fewer than 21 images'


@pytest.mark.parametrize(('num_classes', 'repeats'), [(1, 30), (3, 15)])
def test_the_standard_error_is_the_spread_of_repeated_samples(num_classes, repeats):
    """With standardisation, which takes away much of the spread of the variance."""
    root, labels = torch.linalg.cholesky(correlation(9, 0.9)), torch.arange(45) % num_classes
    centres = 2 * normal(num_classes, 2, 3, 3, seed=99)[labels]
    samples = [(normal(45, 2, 9, seed=seed) @ root.T).view(45, 2, 3, 3) + centres for seed in range(repeats)]
    found = [measure(sample, labels)[0] for sample in samples]
    spread = np.std([each['viv'] for each in found], ddof=1)
    assert np.mean([each['viv_std'] for each in found]) == pytest.approx(spread, rel=0.3)


def test_channels_that_do_not_vary_count_as_0():
    latents = normal(50, 2, 3, 3)
    dead = torch.cat([latents, torch.full((50, 2, 3, 3), 0.1).double()], dim=1)
    assert measure(dead)[0]['viv'] == pytest.approx(measure(latents)[0]['viv'] / 2, rel=1e-6)
    assert all(math.isnan(value) for value in measure(torch.full((6, 2, 3, 3), 0.1))[0].values())


def test_a_class_of_equal_images_has_none():
    latents, labels = normal(20, 2, 3, 3), torch.arange(20) % 2
    latents[labels == 1] = latents[1].clone()
    found, _ = measure(latents, labels)
    assert found['viv'] == pytest.approx(measure(latents, labels)[0]['viv'])
    assert math.isfinite(found['viv_std'])
    assert kronecker_eigenvalues(latents[labels == 1].flatten(2))[0].max() == pytest.approx(0, abs=1e-12)


def test_only_max_images_count():
    latents = normal(40, 2, 3, 3)
    fewer, evaluator = measure(latents, max_images=20)
    assert evaluator.card()['images_per_class'] == '20 to 20'
    assert fewer['viv'] != measure(latents)[0]['viv']


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match='viv: 3 images, but a covariance needs 4'):
        VelocityVariance().check(3)
    with pytest.raises(ValueError, match='the largest of 10 classes has 2 images.*4 or more; .*by_class=False'):
        measure(normal(16, 2, 3, 3), torch.arange(16) % 10)
    smoke = VelocityVariance(**VelocityVariance.smoke({'max_images': 30}))
    smoke.check(16)
    smoke.check_labels([number % 10 for number in range(16)])
    assert smoke.max_images == 30
