"""Samples against a reference: names, values, what a reference has to have."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from averages import Averages, Pinned

from eqzoo.evaluators import GenerationMetric, GenerationSlicedWasserstein, SampleView
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance
from eqzoo.evaluators.inception_score import InceptionScoreSums
from eqzoo.evaluators.kernel import kernel_distance
from eqzoo.evaluators.neighbours import manifold_scores
from eqzoo.evaluators.reference import ReferenceMoments, image_features, label_scheme, write_reference
from eqzoo.images import to_uint8
from eqzoo.randomness import seeded
from eqzoo.vision import EfficientNetLite0, FIDInception


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.randn(count, 3, 4, 4, generator=generator) * 0.5, 32, mode='bilinear').clamp(-1, 1)


REAL, SAMPLES = images(50, 0), images(40, 1) * 0.8


@pytest.fixture
def reference(tmp_path):
    def make(extractor, *, num_stored=30):
        moments = ReferenceMoments(extractor)
        for numbers in torch.arange(50).split(8):
            moments.process({}, [SampleView(REAL[numbers], numbers)])
        assert moments.evaluate(50) == {}
        path = tmp_path / f'{extractor.key}-{num_stored}.npz'
        stored = [to_uint8(REAL[:num_stored])] if num_stored else []
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
        given = {} if labels is None else {'labels': labels[numbers]}
        metric.process(given, [SampleView(samples[numbers], numbers)])
    return metric.evaluate(len(samples))


def moments(features):
    each = FeatureMoments(features.shape[1])
    each.add(features)
    return each


def test_all_metrics_are_the_functions_of_all_features(reference):
    extractor = Pinned()
    metric = GenerationMetric(extractor, reference(extractor), splits=4, kid_subset_size=20)
    given = measure(metric)
    real, samples = extractor(to_uint8(REAL)), extractor(to_uint8(SAMPLES))
    classes = InceptionScoreSums(40, 4, splits=4)
    classes.add(samples.logits, torch.arange(40))
    stored = real.pooled[:30]
    wanted = {
        'fid': frechet_distance(moments(samples.pooled), moments(real.pooled)),
        'sfid': frechet_distance(moments(samples.spatial), moments(real.spatial)),
        'is': classes.score().mean,
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


def test_what_the_reference_lacks_is_left_out_or_said(reference):
    extractor = Pinned()
    path = reference(extractor, num_stored=0)
    assert GenerationMetric(extractor, path).metrics == ('fd', 'sfd', 'is')
    with pytest.raises(ValueError, match=r"'pr': .* has no images \(arr_0\); accepted here are fd, sfd, is"):
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
        ValueError, match='kid: 40 samples and 30 images in the reference; subsets of 1000 need as many'
    ):
        GenerationMetric(extractor, path).check(40)


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
    pixels = to_uint8(REAL[:5]).permute(0, 2, 3, 1).contiguous().numpy()
    wanted = Averages()(to_uint8(REAL[:5])).pooled
    assert torch.allclose(image_features(Averages(), np.asarray(pixels)), wanted)


def test_kept_features_are_those_that_count(tmp_path, reference):
    """Precision on features kept in the file is precision on the images', and nothing extracts these again."""
    extractor = Averages()
    path, pixels = tmp_path / 'kept.npz', to_uint8(REAL)
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


def test_nan_pixels_are_named():
    broken = SAMPLES.clone()
    broken[3, 0, 0, 0] = float('nan')
    with pytest.raises(ValueError, match='NaN or infinite values in the pixels of image 13'):
        SampleView(broken[:7], torch.arange(10, 17))
