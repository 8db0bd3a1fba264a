"""Agreement of neighbouring latents on their class: NumPy's count, chance, perfect classes, refusals."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from eqzoo.evaluators import AutoencoderView, NeighborConsistency


class Identity(nn.Module):
    """Latents are the images."""

    def latents(self, images):
        return images


def measure(latents, labels, batch=16, **arguments):
    evaluator = NeighborConsistency(**arguments)
    evaluator.check(len(latents))
    evaluator.check_labels(labels.tolist())
    for numbers in torch.arange(len(latents)).split(batch):
        evaluator.process(AutoencoderView(Identity(), latents[numbers], numbers, labels[numbers]))
    return evaluator.evaluate(len(latents)), evaluator


def sample(count=60, num_classes=3, spread=1.0):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (count,), generator=generator)
    centres = torch.randn(num_classes, 4, 1, 1, generator=generator).double()[labels]
    return centres + spread * torch.randn(count, 4, 3, 3, generator=generator).double() + 5, labels


@pytest.mark.parametrize('batch', [16, 7])
def test_shares_are_those_of_numpys_cosines(batch):
    latents, labels = sample(spread=2.0)
    found, evaluator = measure(latents, labels, batch)
    features = latents.numpy().mean(axis=(2, 3))
    features = features - features.mean(axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    cosine = features @ features.T
    np.fill_diagonal(cosine, -2)
    for count in (5, 10):
        nearest = np.argsort(-cosine, axis=1)[:, :count]
        shares = (labels.numpy()[nearest] == labels.numpy()[:, None]).mean(axis=1)
        assert found[f'lnc@{count}'] == pytest.approx(shares.mean(), rel=1e-12)
        assert found[f'lnc@{count}_std'] == pytest.approx(shares.std(ddof=1) / math.sqrt(60), rel=1e-12)
    counts = np.bincount(labels.numpy())
    assert evaluator.card()['chance'] == pytest.approx((counts * (counts - 1)).sum() / (60 * 59), abs=1e-4)
    assert evaluator.card()['classes'] == 3


def test_separate_classes_are_consistent_and_noise_is_chance():
    latents, labels = sample(300, spread=0.05)
    assert measure(latents, labels)[0]['lnc@10'] == 1
    noise = torch.randn(300, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    found, evaluator = measure(noise, labels)
    assert found['lnc@10'] == pytest.approx(evaluator.card()['chance'], abs=4 * found['lnc@10_std'])


def test_what_all_latents_share_does_not_count():
    latents, labels = sample(spread=2.0)
    moved = 3 * latents + torch.tensor([100.0, -20.0, 0.0, 7.0])[:, None, None]
    assert measure(moved, labels)[0] == pytest.approx(measure(latents, labels)[0], rel=1e-9)


def test_numbers_of_neighbours_are_names():
    latents, labels = sample()
    found, _ = measure(latents, labels, neighbors=(1, 5))
    assert list(found) == ['lnc@1', 'lnc@1_std', 'lnc@5', 'lnc@5_std']
    assert found['lnc@5'] == measure(latents, labels)[0]['lnc@5']


def test_sets_without_classes_or_with_too_few_images_are_refused():
    evaluator = NeighborConsistency()
    with pytest.raises(ValueError, match='lnc@10: 10 images, but it needs 11 or more; use more images, or fewer'):
        evaluator.check(10)
    with pytest.raises(
        ValueError, match='has no classes, but it needs two or more; use images in folders of their classes'
    ):
        evaluator.check_labels(None)
    with pytest.raises(ValueError, match='has one class, but it needs two'):
        evaluator.check_labels([4] * 20)
    with pytest.raises(ValueError, match='the images have no labels; use images in folders of their classes'):
        evaluator.process(AutoencoderView(Identity(), torch.zeros(2, 3, 8, 8)))
    with pytest.raises(ValueError, match=r'neighbors\[1\] must be at least 1, got 0'):
        NeighborConsistency((5, 0))
    smoke = NeighborConsistency(**NeighborConsistency.smoke({'neighbors': (500,)}))
    smoke.check(2)
