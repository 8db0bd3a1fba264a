"""Inception Score from sums: torch-fidelity's and ADM's values, for any order of arrival."""

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric

from eqzoo.evaluators.inception_score import ClassSums, InceptionScoreSums, inception_score


def logits_of(count, classes=20, seed=0):
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) * 3


def sums_of(logits, batch=16, order=None, **arguments):
    sums = InceptionScoreSums(len(logits), logits.shape[1], **arguments)
    order = torch.arange(len(logits)) if order is None else order
    for numbers in order.split(batch):
        sums.add(logits[numbers], numbers)
    return sums


@pytest.mark.parametrize(('count', 'splits'), [(200, 10), (203, 10), (97, 7), (10, 10), (50, 1)])
def test_fidelity_agrees_also_where_splits_are_uneven(count, splits):
    logits = logits_of(count)
    theirs = isc_features_to_metric(logits, splits=splits, shuffle=False)
    ours = sums_of(logits, splits=splits).score()
    assert ours.mean == pytest.approx(theirs['inception_score_mean'], rel=1e-10)
    assert ours.std == pytest.approx(theirs['inception_score_std'], rel=1e-8, abs=1e-10)


def test_adms_formula_agrees():
    """Its splits are of 5,000 images; here 10 of 50."""
    logits = logits_of(500)
    predictions = logits.softmax(dim=1).numpy()
    scores = []
    for start in range(0, 500, 50):
        part = predictions[start : start + 50]
        divergence = part * (np.log(part) - np.log(np.expand_dims(np.mean(part, 0), 0)))
        scores.append(np.exp(np.mean(np.sum(divergence, 1))))
    assert sums_of(logits).score().mean == pytest.approx(float(np.mean(scores)), rel=1e-5)  # theirs is in float32


def test_the_order_of_arrival_does_not_count():
    logits = logits_of(203)
    order = torch.randperm(203, generator=torch.Generator().manual_seed(3))
    expected = sums_of(logits).score()
    assert sums_of(logits, batch=50, order=order).score() == pytest.approx(expected, rel=1e-12)
    parts = [sums_of(logits, order=order[part::2]).sums for part in (0, 1)]  # two processes
    added = {name: sum(getattr(part, name) for part in parts) for name in ClassSums._fields}
    assert inception_score(added) == pytest.approx(expected, rel=1e-12)


def test_sure_and_evenly_spread_images_score_the_number_of_classes():
    logits = 1000.0 * torch.eye(20)[torch.arange(400) % 20]  # beyond what float32's softmax resolves
    assert sums_of(logits).score() == pytest.approx((20, 0), abs=1e-9)
    assert sums_of(torch.zeros(400, 20)).score() == pytest.approx((1, 0), abs=1e-9)


def test_sorted_classes_need_the_shuffle():
    logits = 20 * torch.eye(20)[torch.arange(400) // 20]
    assert sums_of(logits).score().mean == pytest.approx(2, rel=1e-3)  # two classes in each split
    mixed = sums_of(logits, shuffle=True).score().mean
    assert mixed > 12
    assert sums_of(logits, shuffle=True, seed=1).score().mean != mixed
    permutation = sums_of(logits, shuffle=True)._split_of
    assert permutation.bincount().tolist() == [40] * 10


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r'9 image\(s\) in 10 splits; .* 10 image\(s\) or more; evaluate more images'):
        InceptionScoreSums(9, 5)
    with pytest.raises(ValueError, match='accepted are 1 split or more'):
        InceptionScoreSums(9, 5, splits=0)
    sums = InceptionScoreSums(20, 5)
    with pytest.raises(ValueError, match=r'logits \(2, 4\) for numbers \(2,\); accepted are \(B, 5\) and \(B,\)'):
        sums.add(torch.zeros(2, 4), torch.arange(2))
    with pytest.raises(ValueError, match='images 19 to 20; accepted are 0 to 19'):
        sums.add(torch.zeros(2, 5), torch.tensor([19, 20]))
    with pytest.raises(ValueError, match='a logit is NaN'):
        sums.add(torch.full((2, 5), math.nan), torch.arange(2))
    sums.add(torch.zeros(2, 5), torch.arange(2))
    with pytest.raises(ValueError, match=r'images in the splits: \[2, 0, 0, .* each needs at least 1'):
        sums.score()
