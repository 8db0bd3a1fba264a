"""Samples against a reference: names and values of metrics, the Inception Score, KID, and unfit references."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from averages import Averages, Pinned
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from eqzoo.evaluators import GenerationMetric, GenerationSlicedWasserstein, SampleView
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance
from eqzoo.evaluators.generation import (
    ClassSums,
    InceptionScoreSums,
    inception_score,
    kernel_distance,
    label_scheme,
    squared_discrepancy,
)
from eqzoo.evaluators.neighbours import manifold_scores
from eqzoo.evaluators.reference import ReferenceMoments, image_features, write_reference
from eqzoo.images import to_uint8
from eqzoo.randomness import seeded
from eqzoo.vision import EfficientNetLite0, FIDInception


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.randn(count, 3, 4, 4, generator=generator) * 0.5, 32, mode='bilinear').clamp(-1, 1)


REAL, SAMPLES = to_uint8(images(50, 0)), to_uint8(images(40, 1) * 0.8)


@pytest.fixture
def reference(tmp_path):
    def make(extractor, *, num_stored=30):
        moments = ReferenceMoments(extractor)
        for numbers in torch.arange(50).split(8):
            moments.process(SampleView(REAL[numbers], numbers))
        assert moments.evaluate(50) == {}
        path = tmp_path / f'{extractor.key}-{num_stored}.npz'
        stored = [REAL[:num_stored]] if num_stored else []
        write_reference(
            path,
            extractor,
            moments.pooled,
            spatial=moments.spatial,
            data={'kind': 'test'},
            images=stored,
            num_stored=num_stored,
        )
        return str(path)

    return make


def measure(metric, samples=SAMPLES, batch=7, labels=None):
    metric.check(len(samples))
    for numbers in torch.arange(len(samples)).split(batch):
        metric.process(SampleView(samples[numbers], numbers, None if labels is None else labels[numbers]))
    return metric.evaluate(len(samples))


def moments(features):
    each = FeatureMoments(features.shape[1])
    each.add(features)
    return each


def test_all_metrics_are_the_functions_of_all_features(reference):
    extractor = Pinned()
    metric = GenerationMetric(extractor, reference(extractor), splits=4, kid_subset_size=20)
    given = measure(metric)
    real, samples = extractor(REAL), extractor(SAMPLES)
    classes = InceptionScoreSums(40, 4, splits=4)
    classes.add(samples.logits, torch.arange(40))
    stored = real.pooled[:30]
    wanted = {
        'fid': frechet_distance(moments(samples.pooled), moments(real.pooled)),
        'sfid': frechet_distance(moments(samples.spatial), moments(real.spatial)),
        'is': inception_score(classes.sums).mean,
        **manifold_scores(stored, samples.pooled)._asdict(),
        'kid': kernel_distance(samples.pooled, stored, generator=seeded(0), subset_size=20).mean,
    }
    assert given == {name: pytest.approx(value, rel=1e-6) for name, value in wanted.items()}
    assert given['fid'] > 1
    assert measure(GenerationMetric(extractor, reference(extractor), splits=4, kid_subset_size=20), batch=40) == {
        name: pytest.approx(value, rel=1e-9) for name, value in given.items()
    }


def test_another_extractor_is_in_every_name_and_has_no_inception_score(reference):
    extractor = Averages()
    given = measure(GenerationMetric(extractor, reference(extractor), kid_subset_size=20))
    assert list(given) == [
        'fd_averages',
        'sfd_averages',
        'precision_averages',
        'recall_averages',
        'density_averages',
        'coverage_averages',
        'kid_averages',
    ]


def test_no_extractor_without_the_pinned_weights_gives_a_key_with_fid(reference):
    for extractor in (Averages(), FIDInception('random'), EfficientNetLite0()):
        keys = [extractor.frechet_key, f's{extractor.frechet_key}', f'kid{extractor.suffix}', f'is{extractor.suffix}']
        assert not [key for key in keys if 'fid' in key.lower()]
        assert extractor.suffix


def test_metrics_that_the_reference_does_not_allow_are_left_out_or_refused(reference):
    extractor = Pinned()
    path = reference(extractor, num_stored=0)
    assert GenerationMetric(extractor, path).metrics == ('fd', 'sfd', 'is')
    with pytest.raises(ValueError, match=r"'pr': .* has no images \(arr_0\); expected any of fd, sfd, is"):
        GenerationMetric(extractor, path, ['fd', 'pr'])
    with pytest.raises(ValueError, match="'fad': there is no such metric; there are fd, sfd, is, pr, kid"):
        GenerationMetric(extractor, path, ['fad'])
    extractor = Averages()
    with pytest.raises(ValueError, match="'is': averages is not FID's Inception"):
        GenerationMetric(extractor, reference(extractor), ['is'])


def test_a_reference_of_another_extractor_is_refused(reference):
    class Other(Averages):
        key = 'others'

    with pytest.raises(ValueError, match="made with another extractor: its key is 'averages', here it is 'others'"):
        GenerationMetric(Other(), reference(Averages()))


def test_too_few_samples_are_refused_before_the_first(reference):
    extractor = Averages()
    path = reference(extractor)
    with pytest.raises(ValueError, match='fd_averages: 12 images, but it needs 13 or more'):
        GenerationMetric(extractor, path).check(12)
    with pytest.raises(
        ValueError, match='kid: 40 samples and 30 images in the reference; subsets of 1000 need at least'
    ):
        GenerationMetric(extractor, path).check(40)
    with pytest.raises(ValueError, match='pr: 5 samples and 30 images in the reference; .* need 6 of each'):
        GenerationMetric(extractor, path, ('pr',), min_images=2).check(5)
    GenerationMetric(extractor, path, ('pr',), min_images=2).check(6)


def test_too_few_images_of_the_reference_are_refused(reference):
    path = reference(Averages())
    GenerationMetric(Averages(), path, ('fd',), min_images=50).check(60)
    with pytest.raises(ValueError, match='fd_averages, reference: 50 images, but it needs 51 or more'):
        GenerationMetric(Averages(), path, ('fd',), min_images=51).check(60)


def test_a_missing_or_truncated_reference_is_a_requirement(tmp_path, reference):
    path = reference(Averages())
    assert GenerationMetric.requirements({'reference': path}) == []
    (lack,) = GenerationMetric.requirements({'reference': str(tmp_path / 'none.npz')})
    assert 'no such npz file' in lack.what
    data = (tmp_path / path).read_bytes()
    (tmp_path / 'cut.npz').write_bytes(data[: len(data) // 2])
    (lack,) = GenerationMetric.requirements({'reference': str(tmp_path / 'cut.npz')})
    assert 'damaged or incomplete npz' in lack.what
    assert 'tools/reference.py' in lack.remedy


def test_labels_are_noted_in_the_card(reference):
    extractor = Averages()
    metric = GenerationMetric(extractor, reference(extractor), ['fd'])
    measure(metric, labels=torch.arange(40) % 4)
    assert metric.card()['labels'] == 'balanced, mixed'
    assert label_scheme(torch.tensor([0, 0, 0, 2])) == '1 to 3 a class, grouped by class'
    assert label_scheme(torch.zeros(4)) == label_scheme(None) == 'not given'


def test_features_of_a_references_images(reference):
    pixels = REAL[:5].permute(0, 2, 3, 1).contiguous().numpy()
    wanted = Averages()(REAL[:5]).pooled
    assert torch.allclose(image_features(Averages(), np.asarray(pixels)), wanted)


def test_kept_features_are_those_that_count(tmp_path, reference):
    """Precision on features kept in the file is precision on the images', and nothing extracts these again."""
    extractor = Averages()
    path, pixels = tmp_path / 'kept.npz', REAL
    given = dict(data={'kind': 'test'}, images=[pixels], num_stored=50)
    write_reference(path, extractor, moments(extractor(pixels).pooled), **given, features=extractor(pixels).pooled)
    without = measure(GenerationMetric(extractor, reference(extractor, num_stored=50), ['pr']))
    assert measure(GenerationMetric(extractor, str(path), ['pr'])) == pytest.approx(without, abs=1e-9)
    far = extractor(pixels).pooled + 1000
    write_reference(path, extractor, moments(extractor(pixels).pooled), **given, features=far)
    assert measure(GenerationMetric(extractor, str(path), ['pr']))[f'precision{extractor.suffix}'] == 0


def test_swd_of_samples(reference):
    path = reference(Averages(), num_stored=40)
    same = measure(GenerationSlicedWasserstein(path), REAL[:40])['swd']
    other = measure(GenerationSlicedWasserstein(path), SAMPLES)['swd']
    assert same == pytest.approx(0, abs=1e-6)
    assert other > 10
    with pytest.raises(ValueError, match='arr_0'):
        GenerationSlicedWasserstein(reference(Averages(), num_stored=0)).check(40)


def logits_of(count, classes=20, seed=0):
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) * 3


def sums_of(logits, batch=16, order=None, **arguments):
    sums = InceptionScoreSums(len(logits), logits.shape[1], **arguments)
    order = torch.arange(len(logits)) if order is None else order
    for numbers in order.split(batch):
        sums.add(logits[numbers], numbers)
    return sums.sums


def score_of(logits, **arguments):
    return inception_score(sums_of(logits, **arguments))


@pytest.mark.parametrize(('count', 'splits'), [(200, 10), (203, 10), (97, 7), (10, 10), (50, 1)])
def test_fidelitys_inception_score_agrees_also_where_splits_are_uneven(count, splits):
    logits = logits_of(count)
    theirs = isc_features_to_metric(logits, splits=splits, shuffle=False)
    ours = score_of(logits, splits=splits)
    assert ours.mean == pytest.approx(theirs['inception_score_mean'], rel=1e-10)
    assert ours.std == pytest.approx(theirs['inception_score_std'], rel=1e-8, abs=1e-10)


def test_adms_inception_score_agrees():
    """Its splits are of 5,000 images; here 10 of 50."""
    logits = logits_of(500)
    predictions = logits.softmax(dim=1).numpy()
    scores = []
    for start in range(0, 500, 50):
        part = predictions[start : start + 50]
        divergence = part * (np.log(part) - np.log(np.expand_dims(np.mean(part, 0), 0)))
        scores.append(np.exp(np.mean(np.sum(divergence, 1))))
    assert score_of(logits).mean == pytest.approx(float(np.mean(scores)), rel=1e-5)  # theirs is in float32


def test_the_order_of_arrival_does_not_change_the_inception_score():
    logits = logits_of(203)
    order = torch.randperm(203, generator=torch.Generator().manual_seed(3))
    expected = score_of(logits)
    assert score_of(logits, batch=50, order=order) == pytest.approx(expected, rel=1e-12)
    parts = [sums_of(logits, order=order[part::2]) for part in (0, 1)]  # two processes
    added = ClassSums(*(first + second for first, second in zip(*parts, strict=True)))
    assert inception_score(added) == pytest.approx(expected, rel=1e-12)


def test_sure_and_evenly_spread_images_score_the_number_of_classes():
    logits = 1000.0 * torch.eye(20)[torch.arange(400) % 20]  # beyond what float32's softmax resolves
    assert score_of(logits) == pytest.approx((20, 0), abs=1e-9)
    assert score_of(torch.zeros(400, 20)) == pytest.approx((1, 0), abs=1e-9)


def test_samples_sorted_by_class_score_too_low():
    logits = 20 * torch.eye(20)[torch.arange(400) // 20]
    assert score_of(logits).mean == pytest.approx(2, rel=1e-3)  # two classes in each split
    mixed = logits[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    assert score_of(mixed).mean > 12


def test_impossible_splits_and_logits_are_refused():
    with pytest.raises(ValueError, match=r'9 image\(s\) in 10 splits; .* 10 image\(s\); evaluate more'):
        InceptionScoreSums(9, 5)
    with pytest.raises(ValueError, match='9 image.* in 0 splits'):
        InceptionScoreSums(9, 5, splits=0)
    sums = InceptionScoreSums(20, 5)
    with pytest.raises(ValueError, match=r'logits \(2, 4\) for numbers \(2,\); expected \(B, 5\) and \(B,\)'):
        sums.add(torch.zeros(2, 4), torch.arange(2))
    with pytest.raises(ValueError, match='images 19 to 20; expected 0 to 19'):
        sums.add(torch.zeros(2, 5), torch.tensor([19, 20]))
    with pytest.raises(ValueError, match='a logit is NaN'):
        sums.add(torch.full((2, 5), math.nan), torch.arange(2))
    sums.add(torch.zeros(2, 5), torch.arange(2))
    with pytest.raises(ValueError, match=r'images in the splits: \[2, 0, 0, .* each needs at least 1'):
        inception_score(sums.sums)


def random_features(count, size=16, seed=0, shift=0.0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)).double() + shift


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_fidelitys_kid_agrees_where_a_subset_is_the_whole_set():
    x, y = random_features(60), random_features(60, seed=1, shift=0.2)
    theirs = kid_features_to_metric(x, y, kid_subsets=2, kid_subset_size=60, verbose=False)
    ours = kernel_distance(x, y, generator=generator(), subset_size=60)
    assert ours.mean == pytest.approx(theirs['kernel_inception_distance_mean'], rel=1e-10)
    assert ours.std == pytest.approx(0, abs=1e-12)


def test_fidelitys_kid_agrees_on_its_own_subsets():
    x, y = random_features(80), random_features(90, seed=1, shift=0.2)
    theirs = kid_features_to_metric(x, y, kid_subsets=5, kid_subset_size=30, rng_seed=4, verbose=False)
    rng = np.random.RandomState(4)  # theirs
    values = [
        squared_discrepancy(x[rng.choice(80, 30, replace=False)], y[rng.choice(90, 30, replace=False)])
        for _ in range(5)
    ]
    assert torch.stack(values).mean().item() == pytest.approx(theirs['kernel_inception_distance_mean'], rel=1e-10)


def test_kid_in_plain_loops():
    x, y = random_features(4, 3), random_features(4, 3, seed=1)

    def kernel(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(4) for j in range(4)]
    own = sum(kernel(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j) / 12
    cross = sum(kernel(x[i], y[j]) for i, j in pairs) / 16
    assert squared_discrepancy(x, y).item() == pytest.approx(own - 2 * cross, rel=1e-12)


def test_kid_of_one_distribution_is_zero_for_any_number_of_samples():
    """Unbiased: within 4 standard errors, and on both sides; of different ones it is far off."""
    for count in (20, 60):
        values = torch.stack(
            [
                squared_discrepancy(random_features(count, seed=2 * i), random_features(count, seed=2 * i + 1))
                for i in range(100)
            ]
        )
        assert values.mean().abs() < 4 * values.std() / 10
        assert values.min() < 0 < values.max()
    assert (
        kernel_distance(
            random_features(99), random_features(99, seed=1, shift=1), generator=generator(), subset_size=50
        ).mean
        > 1
    )


def test_kid_subsets_follow_the_generator():
    x, y = random_features(80), random_features(80, seed=1)
    first, again, other = (kernel_distance(x, y, generator=generator(seed), subset_size=20) for seed in (0, 0, 1))
    assert first == again != other
    assert first.std > 0


def test_sets_that_have_no_kid_are_refused():
    with pytest.raises(ValueError, match='sets of 80 and 999 images; subsets of 1000 need at least 1000 in both'):
        kernel_distance(random_features(80), random_features(999), generator=generator())
    with pytest.raises(ValueError, match='subsets of 1; expected at least 2'):
        kernel_distance(random_features(9), random_features(9), generator=generator(), subset_size=1)
    with pytest.raises(ValueError, match=r'features \(9, 16\) and \(9, 8\); .* one extractor'):
        kernel_distance(random_features(9), random_features(9, 8), generator=generator(), subset_size=5)
    damaged = random_features(9)
    damaged[[3, 5], 2] = float('nan')
    with pytest.raises(ValueError, match='KID: 2 of 9 images have NaN or infinite features, the first is 3'):
        kernel_distance(random_features(9), damaged, generator=generator(), subset_size=5)
