"""Moments from sums: those of all features at once, whatever the batches and processes."""

import numpy as np
import pytest
import torch

from eqzoo.evaluators.gaussian import FeatureMoments, Gaussian


def features(count=300, size=12, seed=0, offset=0.0):
    """Positive and correlated, as after a ReLU and pooling."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator)
    return (torch.randn(count, size, generator=generator) @ mixing).relu() + offset


def moments_of(x, batch=32, **arguments):
    moments = FeatureMoments(x.shape[1], **arguments)
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
    added = {name: sum(getattr(part.sums, name) for part in parts) for name in ('count', 'value', 'outer')}
    together = FeatureMoments.from_sums(added)
    assert together.count == 300
    torch.testing.assert_close(together.mean, whole.mean, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(together.covariance, whole.covariance, rtol=1e-12, atol=1e-12)
    again = FeatureMoments.from_sums(whole.sums)
    assert torch.equal(again.covariance, whole.covariance)


def test_a_shift_keeps_the_digits_of_a_small_spread_about_a_large_mean():
    x = features(offset=0.0).double() * 1e-4 + 1e5
    expected = np.cov((x - 1e5).numpy(), rowvar=False)

    def error(moments):
        return np.abs(moments.covariance.numpy() - expected).max() / np.abs(expected).max()

    shift = torch.full((12,), 1e5)
    shifted = moments_of(x, shift=shift)
    assert error(shifted) < 1e-6
    assert error(moments_of(x)) > 1e-2  # what the shift is for
    np.testing.assert_allclose(shifted.mean.numpy(), x.numpy().mean(axis=0), rtol=1e-15)
    restored = FeatureMoments.from_sums(shifted.sums, shift=shift)
    assert torch.equal(restored.covariance, shifted.covariance)


def test_half_precision_features_are_summed_in_double():
    x = features().half()
    np.testing.assert_allclose(
        moments_of(x).covariance.numpy(), np.cov(x.double().numpy(), rowvar=False), rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize(('count', 'rank'), [(300, 12), (5, 4)])
def test_the_factor_is_a_root_of_the_covariance_with_its_rank(count, rank):
    gaussian = moments_of(features(count)).gaussian()
    assert gaussian.factor.shape == (12, rank)
    torch.testing.assert_close(gaussian.factor @ gaussian.factor.T, gaussian.covariance, rtol=1e-9, atol=1e-9)
    assert gaussian.factor is gaussian.factor  # computed once


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
def test_features_that_are_not_finite_are_told(value):
    x = features()
    x[17, 3] = value
    with pytest.raises(ValueError, match='NaN or infinite; accepted are finite features; look for NaN in the images'):
        moments_of(x).gaussian()


def test_wrong_sizes():
    with pytest.raises(ValueError, match=r'features \(4, 5\); accepted are \(B, 3\)'):
        FeatureMoments(3).add(torch.ones(4, 5))
    with pytest.raises(ValueError, match=r'num_features must be at least 1, got 0'):
        FeatureMoments(0)
    with pytest.raises(ValueError, match=r'shift must have 3 values, got \(2,\)'):
        FeatureMoments(3, shift=torch.zeros(2))
    with pytest.raises(ValueError, match=r'mean \(2,\) and covariance \(3, 3\); accepted are \(D,\) and \(D, D\)'):
        Gaussian(torch.zeros(2), torch.eye(3))
