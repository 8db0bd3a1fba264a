"""Fréchet distance of reconstructions: streamed sums against the formula on all features at once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from averages import Averages, Pinned
from scipy import linalg

from eqzoo.evaluators import AutoencoderView, ReconstructionFrechet, ReconstructionSlicedWasserstein
from eqzoo.evaluators.gaussian import FeatureMoments
from eqzoo.evaluators.reference import write_reference
from eqzoo.images import to_uint8


def images(count, seed, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(count, 3, 4, 4, generator=generator) * spread
    return F.interpolate(base, 32, mode='bilinear').clamp(-1, 1)


def measure(metric, x, y, batch=7, numbers=None, *, checks=True):
    if checks:
        metric.check(len(x))
    numbers = torch.arange(len(x)) if numbers is None else numbers
    for chosen in numbers.split(batch):
        view = AutoencoderView(None, x[chosen], chosen)
        view.reconstruction = y[chosen]
        metric.process(view)
    return metric.evaluate(len(x))


def features(x):
    return F.adaptive_avg_pool2d(to_uint8(x).double(), 2).flatten(1).numpy()


X, Y = images(60, 0), (images(60, 0) + 0.3 * images(60, 1)).clamp(-1, 1)


def test_the_value_is_the_formula_with_sqrtm():
    a, b = features(Y), features(X)
    difference = a.mean(0) - b.mean(0)
    covariances = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    wanted = difference @ difference + np.trace(covariances[0] + covariances[1] - 2 * root)
    # the extractor's means are in float32: 1e-6 relative
    assert measure(ReconstructionFrechet(Averages()), X, Y) == {'fd_averages': pytest.approx(wanted, rel=1e-5)}


def test_batches_and_order_change_nothing():
    whole = measure(ReconstructionFrechet(Averages()), X, Y, batch=60)
    mixed = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    assert measure(ReconstructionFrechet(Averages()), X, Y, batch=4, numbers=mixed) == pytest.approx(whole, rel=1e-9)


def test_only_the_pinned_inception_has_an_rfid():
    assert list(measure(ReconstructionFrechet(Pinned()), X, Y)) == ['rfid']


def test_a_reference_of_the_same_images_gives_the_same_and_another_is_refused(tmp_path):
    extractor = Averages()
    moments = FeatureMoments(12)
    moments.add(extractor(to_uint8(X)).pooled)
    write_reference(tmp_path / 'x.npz', extractor, moments, data={'kind': 'test'})
    whole = measure(ReconstructionFrechet(extractor), X, Y)
    metric = ReconstructionFrechet(extractor, reference=str(tmp_path / 'x.npz'))
    assert measure(metric, X, Y) == pytest.approx(whole, rel=1e-9)
    assert metric.card()['reference']['num_images'] == 60
    with pytest.raises(ValueError, match=r'fd_averages: .*x.npz is of 60 images, the data set has 50'):
        metric.check(50)


def test_images_that_cannot_be_read_count_on_both_sides(tmp_path):
    """The data set lists 61 images, of which one is damaged."""
    extractor = Averages()
    moments = FeatureMoments(12)
    moments.add(extractor(to_uint8(X)).pooled)
    write_reference(tmp_path / 'x.npz', extractor, moments, data={'kind': 'test'}, num_listed=61)
    metric = ReconstructionFrechet(extractor, reference=str(tmp_path / 'x.npz'))
    metric.check(61)
    assert measure(metric, X, Y, checks=False) == pytest.approx(measure(ReconstructionFrechet(extractor), X, Y))
    with pytest.raises(ValueError, match=r'59 images could be read, and 60 when .*x.npz was measured'):
        measure(metric, X[:-1], Y[:-1], checks=False)


def test_a_reference_of_other_crops_is_refused(tmp_path):
    moments = FeatureMoments(12)
    moments.add(Averages()(to_uint8(X)).pooled)
    write_reference(tmp_path / 'x.npz', Averages(), moments, data=dict(kind='test', size=32, crop='center'))
    metric = ReconstructionFrechet(Averages(), reference=str(tmp_path / 'x.npz'))
    metric.check_images(32, 'center')
    with pytest.raises(ValueError, match='x.npz: statistics of images of 32 x 32 pixels; the samples have 64 x 64'):
        metric.check_images(64, 'center')
    with pytest.raises(ValueError, match="x.npz: .* cropped by 'center'; these are cropped by 'resize_pil'"):
        metric.check_images(32, 'resize_pil')


def test_perfect_reconstructions_have_none():
    assert measure(ReconstructionFrechet(Averages()), X, X)['fd_averages'] == pytest.approx(0, abs=1e-6)


def test_too_few_images_are_refused_before_the_first():
    metric = ReconstructionFrechet(Averages())
    with pytest.raises(ValueError, match='fd_averages: 12 images, but it needs 13 or more for a covariance'):
        metric.check(12)
    ReconstructionFrechet(Averages(), min_images=2).check(12)
    with pytest.raises(ValueError, match='min_images must be at least 2, for a covariance, got 1'):
        ReconstructionFrechet(Averages(), min_images=1)


def test_state_does_not_grow_with_images():
    metric = ReconstructionFrechet(Averages())
    sizes = []
    for start in (0, 30):
        view = AutoencoderView(None, X[start : start + 30], torch.arange(start, start + 30))
        view.reconstruction = Y[start : start + 30]
        metric.process(view)
        sizes.append(sum(each.numel() for side in metric._moments.values() for each in side.sums))
    assert sizes == [2 * (1 + 12 + 144)] * 2
    assert not metric._rows


def test_swd_of_reconstructions_counts_changes_only():
    assert measure(ReconstructionSlicedWasserstein(), X, X)['swd'] == 0
    noise = torch.randn(X.shape, generator=torch.Generator().manual_seed(5))
    little, much = ((X + level * noise).clamp(-1, 1) for level in (0.02, 0.2))
    small = measure(ReconstructionSlicedWasserstein(), X, little)['swd']
    assert 0 < small < measure(ReconstructionSlicedWasserstein(), X, much)['swd']
    mixed = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    again = measure(ReconstructionSlicedWasserstein(), X, little, batch=4, numbers=mixed)['swd']
    assert again == pytest.approx(small, rel=1e-6)


def test_swd_needs_to_know_the_number_of_images():
    with pytest.raises(ValueError, match=r'call check\(num_images\) before the first batch'):
        ReconstructionSlicedWasserstein().process(AutoencoderView(None, X[:2]))
