"""Fréchet distance of latents: values of an independent computation, closed forms, and sets that have none."""

import json

import numpy as np
import pytest
import scipy.linalg
import torch

from eqzoo.evaluators import GenerationLatentFrechet, SampleView
from eqzoo.evaluators.latent_frechet import LatentReference, LatentReferenceMoments

SHAPE = (2, 2, 3)
CARD = {'autoencoder': 'ab' * 32, 'shift': [0.0, 0.0], 'scale': [1.0, 1.0]}


def latents(count, seed, shape=SHAPE):
    """Normal latents whose values depend on each other, and whose mean depends on the place."""
    values = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return values + 0.5 * values.flip(1) + torch.arange(shape[2]) * 0.3


REAL, DRAWN = latents(60, 0), latents(40, 1) * 0.7 + 0.2


def process(metric, values, batch=7):
    for numbers in torch.arange(len(values)).split(batch):
        images = torch.zeros(len(numbers), 3, 4, 4, dtype=torch.uint8)
        metric.process(SampleView(images, numbers, latents=values[numbers]))
    return metric.evaluate(len(values))


def reference(values=REAL, features=('full', 'cells')):
    moments = LatentReferenceMoments(tuple(values.shape[1:]), features)
    assert process(moments, values, batch=11) == {}
    return LatentReference(moments.shape, moments.num_images, moments.gaussians, {'kind': 'test'}, CARD)


def measure(metric, values, batch=7):
    metric.check(len(values))
    return process(metric, values, batch)


def distance(first, second):
    """By numpy's moments and scipy's square root of a matrix."""
    means = [rows.mean(axis=0) for rows in (first, second)]
    covariances = [np.cov(rows, rowvar=False) for rows in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


def rows_of_cells(values):
    return np.stack([image[:, y, x] for image in values.double().numpy() for y in range(2) for x in range(3)])


def test_values_are_those_of_numpy_and_scipy():
    given = measure(GenerationLatentFrechet(reference()), DRAWN)
    first, second = (values.double().numpy().reshape(len(values), -1) for values in (DRAWN, REAL))
    assert given == {
        'latent_fd': pytest.approx(distance(first, second), rel=1e-9),
        'latent_fd/cells': pytest.approx(distance(rows_of_cells(DRAWN), rows_of_cells(REAL)), rel=1e-9),
    }
    assert given['latent_fd'] > given['latent_fd/cells'] > 0.1
    assert measure(GenerationLatentFrechet(reference()), DRAWN, batch=40) == pytest.approx(given, rel=1e-9)


def test_equal_sets_are_at_zero():
    given = measure(GenerationLatentFrechet(reference()), REAL, batch=13)
    assert given == {'latent_fd': pytest.approx(0, abs=1e-9), 'latent_fd/cells': pytest.approx(0, abs=1e-9)}


def test_a_shift_counts_once_for_each_value():
    given = measure(GenerationLatentFrechet(reference()), REAL + 0.5)
    assert given['latent_fd'] == pytest.approx(12 * 0.25, rel=1e-6)
    assert given['latent_fd/cells'] == pytest.approx(2 * 0.25, rel=1e-6)


def test_cells_see_no_structure_in_the_plane():
    """Cells in another order: the same cells, other latents."""
    turned = REAL.flatten(2)[:, :, torch.tensor([4, 2, 0, 5, 1, 3])].view_as(REAL)
    given = measure(GenerationLatentFrechet(reference()), turned)
    assert given['latent_fd/cells'] == pytest.approx(0, abs=1e-9)
    assert given['latent_fd'] > 0.5


def test_one_kind_of_features_is_measured_and_named():
    metric = GenerationLatentFrechet(reference(features=['cells']), ['cells'])
    assert list(measure(metric, DRAWN)) == list(metric.card()['features']) == ['latent_fd/cells']
    assert list(measure(GenerationLatentFrechet(reference(), ['full']), DRAWN)) == ['latent_fd']


def test_the_card_says_whose_latents_and_which_features():
    card = GenerationLatentFrechet(reference()).card()
    assert json.loads(json.dumps(card)) == card
    assert card['autoencoder'] == CARD
    assert card['reference'] == {'num_images': 60, 'data': {'kind': 'test'}}
    assert card['shape'] == [2, 2, 3]
    assert 'C x h x w' in card['features']['latent_fd']


def test_too_few_samples_and_too_small_references_are_refused():
    with pytest.raises(ValueError, match='^latent_fd: 12 images, but it needs 13 or more'):
        GenerationLatentFrechet(reference()).check(12)
    with pytest.raises(ValueError, match='^latent_fd/cells: 2 images, but it needs 3 or more'):
        GenerationLatentFrechet(reference(), ['cells']).check(2)
    with pytest.raises(ValueError, match='^reference of latent_fd: 12 images, but it needs 13 or more'):
        GenerationLatentFrechet(reference(REAL[:12]))
    GenerationLatentFrechet(reference(REAL[:12]), ['cells']).check(3)
    GenerationLatentFrechet(reference(REAL[:12]), min_images=2).check(2)


@pytest.mark.parametrize('features', [(), ('full', 'mean'), 'cells'])
def test_other_features_are_refused(features):
    with pytest.raises(ValueError, match=r"GenerationLatentFrechet.features.* must be .*'full' or 'cells', got "):
        GenerationLatentFrechet(reference(), features)
    with pytest.raises(ValueError, match=r'features must be a non-empty subset'):
        LatentReferenceMoments(SHAPE, features)


def test_features_that_the_reference_lacks_are_refused():
    with pytest.raises(ValueError, match="'full' is not in the reference, which has cells"):
        GenerationLatentFrechet(reference(features=['cells']))


def test_a_file_is_no_reference():
    for refused in (GenerationLatentFrechet, lambda path: GenerationLatentFrechet.requirements({'reference': path})):
        with pytest.raises(ValueError, match=r"reference: got 'a.npz'; expected a data set, .* its latents"):
            refused('a.npz')
    assert GenerationLatentFrechet.requirements({'reference': dict(type='Shapes')}) == []


def test_images_without_latents_and_latents_of_another_size_are_refused():
    metric = GenerationLatentFrechet(reference())
    images, numbers = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.arange(2)
    with pytest.raises(ValueError, match='got images without latents'):
        metric.process(SampleView(images, numbers))
    with pytest.raises(ValueError, match=r'got latents of 2 x 3 x 3; expected 2 x 2 x 3'):
        metric.process(SampleView(images, numbers, latents=torch.zeros(2, 2, 3, 3)))
