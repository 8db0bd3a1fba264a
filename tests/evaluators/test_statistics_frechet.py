"""The Fréchet distance: closed forms, other implementations, and covariances without full rank."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.linalg import lapack
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from eqzoo.evaluators.gaussian import FeatureMoments, Gaussian, frechet_distance


def features(count, size=48, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(7)) / size**0.5
    return (torch.randn(count, size, generator=generator) @ mixing).relu() + shift


def moments_of(x):
    moments = FeatureMoments(x.shape[1])
    moments.add(x)
    return moments


@pytest.fixture
def pair():
    return features(600), features(500, seed=1, shift=0.1) * 1.2


def test_two_gaussians_whose_covariances_commute():
    """|m1 - m2|² + Σ (√a - √b)², by hand."""
    first = Gaussian(torch.tensor([0.0, 0.0, 3.0]), torch.diag(torch.tensor([1.0, 4.0, 9.0])))
    second = Gaussian(torch.tensor([1.0, 2.0, 3.0]), torch.diag(torch.tensor([4.0, 0.0, 1.0])))
    assert frechet_distance(first, second) == pytest.approx(5 + 1 + 4 + 4, rel=1e-14)


def test_two_by_two_covariances_that_do_not_commute():
    """The trace of √(AB) is √(tr AB + 2 √det AB) for 2 x 2."""
    a, b = torch.tensor([[2.0, 1.0], [1.0, 3.0]]), torch.tensor([[1.0, -0.5], [-0.5, 2.0]])
    product = (a @ b).double()
    root = math.sqrt(product.trace() + 2 * math.sqrt(torch.det(product)))
    expected = 8 - 2 * root
    assert frechet_distance(Gaussian(torch.zeros(2), a), Gaussian(torch.zeros(2), b)) == pytest.approx(expected, 1e-13)


def adm(x, y):
    """ADM's evaluator: mean in the features' type, np.cov, scipy's sqrtm."""
    x, y = x.numpy(), y.numpy()
    difference = np.mean(x, axis=0) - np.mean(y, axis=0)
    sigmas = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(sigmas[0].dot(sigmas[1]))
    return difference.dot(difference) + np.trace(sigmas[0]) + np.trace(sigmas[1]) - 2 * np.trace(root.real)


def fidelity(x, y):
    statistics = [fid_features_to_statistics(each.double()) for each in (x, y)]
    (value,) = fid_statistics_to_metric(*statistics, verbose=False).values()
    return value


def torchmetrics(x, y):
    means = [each.double().mean(dim=0) for each in (x, y)]
    return _compute_fid(means[0], x.double().T.cov(), means[1], y.double().T.cov()).item()


def adm_in_double(x, y):
    return adm(x.double(), y.double())


# ADM's evaluator adds up 600 float32 features for the mean, which costs 7e-6; the rest is the same formula
@pytest.mark.parametrize(
    ('theirs', 'tolerance'), [(adm, 2e-5), (adm_in_double, 1e-10), (fidelity, 1e-10), (torchmetrics, 1e-10)]
)
def test_others_agree(pair, theirs, tolerance):
    assert frechet_distance(*map(moments_of, pair)) == pytest.approx(theirs(*pair), rel=tolerance)


def test_fewer_images_than_features_are_exact(pair):
    """Against the eigenvalues of the small (n x n) problem, where nothing is singular; sqrtm is off there."""
    x, y = (each[:30].double() for each in pair)
    centered = [(each - each.mean(dim=0)) / math.sqrt(29) for each in (x, y)]
    root = torch.linalg.svdvals(centered[0] @ centered[1].T).sum()
    traces = sum(each.square().sum() for each in centered)
    expected = ((x.mean(dim=0) - y.mean(dim=0)).square().sum() + traces - 2 * root).item()
    assert frechet_distance(moments_of(x), moments_of(y)) == pytest.approx(expected, rel=1e-10)


def test_one_set_with_fewer_images_than_features_is_exact(pair):
    x, y = pair[0][:30].double(), pair[1].double()
    a, b = ((each - each.mean(dim=0)) / math.sqrt(len(each) - 1) for each in (x, y))
    root = torch.linalg.svdvals(a @ b.T).sum()
    expected = ((x.mean(dim=0) - y.mean(dim=0)).square().sum() + a.square().sum() + b.square().sum() - 2 * root).item()
    for value in (frechet_distance(*map(moments_of, (x, y))), frechet_distance(*map(moments_of, (y, x)))):
        assert value == pytest.approx(expected, rel=1e-10)


def test_spectra_over_ten_orders_of_magnitude_are_exact():
    """Features of images are nearly singular; commuting covariances have the distance in closed form."""
    rotation = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).double()).Q
    first, second = torch.logspace(2, -8, 40).double(), torch.logspace(1, -9, 40).double()
    gaussians = [Gaussian(torch.zeros(40), rotation * values @ rotation.T) for values in (first, second)]
    expected = (first.sqrt() - second.sqrt()).square().sum().item()
    assert frechet_distance(*gaussians) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('count', [20, 600])
def test_a_set_is_at_no_distance_from_itself(count):
    moments = moments_of(features(count))
    scale = moments.covariance.trace().item()
    assert 0 <= frechet_distance(moments, moments) < 1e-8 * scale
    assert frechet_distance(moments, moments_of(features(count) + 0.5)) == pytest.approx(48 * 0.25, rel=1e-6)


def test_both_orders_agree(pair):
    first, second = map(moments_of, pair)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), rel=1e-10)


def test_the_references_factor_is_kept(pair, monkeypatch):
    first, reference = moments_of(pair[0]), moments_of(pair[1]).gaussian()
    value = frechet_distance(first, reference)
    computed = []
    dpstrf = lapack.dpstrf
    monkeypatch.setattr(lapack, 'dpstrf', lambda *args, **kwargs: computed.append(1) or dpstrf(*args, **kwargs))
    assert frechet_distance(first, reference) == value
    assert len(computed) == 1


def test_sets_without_spread_differ_by_their_means_alone(capfd):
    first, second = moments_of(torch.zeros(4, 3)), moments_of(torch.ones(4, 3))
    assert frechet_distance(first, second) == pytest.approx(3)
    wide = Gaussian(torch.zeros(3), 2 * torch.eye(3))
    assert frechet_distance(second, wide) == frechet_distance(wide, second) == pytest.approx(3 + 6)
    assert capfd.readouterr().err == ''  # BLAS complains there, not by an exception


def test_features_that_cannot_be_compared():
    with pytest.raises(ValueError, match=r'features of 48 and 12 values; .* compare features of one extractor'):
        frechet_distance(moments_of(features(60)), moments_of(features(60, size=12)))
    damaged = features(60)
    damaged[3] = float('nan')
    with pytest.raises(ValueError, match='NaN or infinite'):
        frechet_distance(moments_of(damaged), moments_of(features(60)))
