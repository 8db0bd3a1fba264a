"""Gaussians and the Fréchet distance: moments from sums, closed forms, other implementations, low ranks."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.linalg import lapack
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from eqzoo.evaluators import gaussian
from eqzoo.evaluators.gaussian import FeatureMoments, Gaussian, frechet_distance


def features(count=300, size=12, seed=0, offset=0.0):
    """Positive and correlated, as after a ReLU and pooling."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator)
    return (torch.randn(count, size, generator=generator) @ mixing).relu() + offset


def moments_of(x, batch=32):
    moments = FeatureMoments(x.shape[1])
    for each in x.split(batch):
        moments.add(each)
    return moments


@pytest.mark.parametrize('batch', [1, 7, 300])
def test_moments_are_numpys_over_all_features(batch):
    x = features()
    moments = moments_of(x, batch)
    assert moments.count == 300
    np.testing.assert_allclose(moments.mean.numpy(), x.double().numpy().mean(axis=0), rtol=1e-13)
    expected = np.cov(x.double().numpy(), rowvar=False)
    np.testing.assert_allclose(moments.covariance.numpy(), expected, rtol=1e-11, atol=1e-13)


def test_sums_of_processes_add_up():
    x = features()
    whole, parts = moments_of(x), [moments_of(part) for part in x.split([200, 100])]
    added = {f'x {name}': sum(getattr(part.sums, name) for part in parts) for name in ('count', 'value', 'outer')}
    together = gaussian.moments_of(added, 'x')
    assert together.count == 300
    torch.testing.assert_close(together.mean, whole.mean, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(together.covariance, whole.covariance, rtol=1e-12, atol=1e-12)
    again = FeatureMoments.from_sums(whole.sums)
    assert torch.equal(again.covariance, whole.covariance)


def test_half_precision_features_are_summed_in_double():
    x = features().half()
    np.testing.assert_allclose(
        moments_of(x).covariance.numpy(), np.cov(x.double().numpy(), rowvar=False), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize(('count', 'rank'), [(300, 12), (5, 4)])
def test_the_factor_is_a_root_of_the_covariance_with_its_rank(count, rank):
    found = moments_of(features(count)).gaussian()
    assert found.factor.shape == (12, rank)
    torch.testing.assert_close(found.factor @ found.factor.T, found.covariance, rtol=1e-9, atol=1e-9)
    assert found.factor is found.factor  # computed once


def test_identical_images_have_no_factor():
    assert moments_of(torch.ones(4, 3)).gaussian().factor.shape == (3, 0)


def test_too_few_images():
    moments = FeatureMoments(3)
    with pytest.raises(ValueError, match=r'0 image\(s\); a mean needs at least 1'):
        _ = moments.mean
    moments.add(torch.ones(1, 3))
    assert moments.mean.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r'1 image\(s\); a covariance needs at least 2; evaluate more images'):
        _ = moments.covariance


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_features_that_are_not_finite_are_refused(value):
    x = features()
    x[17, 3] = value
    with pytest.raises(ValueError, match='NaN or infinite; .* look for NaN in the images'):
        moments_of(x).gaussian()


def test_wrong_sizes():
    with pytest.raises(ValueError, match=r'features \(4, 5\); expected \(B, 3\)'):
        FeatureMoments(3).add(torch.ones(4, 5))
    with pytest.raises(ValueError, match=r'num_features must be at least 1, got 0'):
        FeatureMoments(0)
    with pytest.raises(ValueError, match=r'mean \(2,\) and covariance \(3, 3\); expected \(D,\) and \(D, D\)'):
        Gaussian(torch.zeros(2), torch.eye(3))


def wide_features(count, size=48, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(7)) / size**0.5
    return (torch.randn(count, size, generator=generator) @ mixing).relu() + shift


@pytest.fixture
def pair():
    return wide_features(600), wide_features(500, seed=1, shift=0.1) * 1.2


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
    moments = moments_of(wide_features(count))
    scale = moments.covariance.trace().item()
    assert 0 <= frechet_distance(moments, moments) < 1e-8 * scale
    assert frechet_distance(moments, moments_of(wide_features(count) + 0.5)) == pytest.approx(48 * 0.25, rel=1e-6)


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
        frechet_distance(moments_of(wide_features(60)), moments_of(wide_features(60, size=12)))
    damaged = wide_features(60)
    damaged[3] = float('nan')
    with pytest.raises(ValueError, match='NaN or infinite'):
        frechet_distance(moments_of(damaged), moments_of(wide_features(60)))
