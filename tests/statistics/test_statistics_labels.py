"""Labels of samples: their balance, their order, their seed."""

import pytest
import torch

from eqzoo.statistics.labels import class_labels


@pytest.mark.parametrize(('count', 'classes'), [(1000, 10), (1003, 10), (7, 10)])
def test_balanced_classes_are_equally_many_to_within_one(count, classes):
    counts = class_labels(count, classes).bincount(minlength=classes)
    assert counts.sum() == count
    assert counts.max() - counts.min() == (1 if count % classes else 0)


def test_random_ones_are_not():
    counts = class_labels(10_000, 10, 'random').bincount(minlength=10)
    assert counts.float().std() > 10
    assert (counts - 1000).abs().max() < 150  # 5 standard deviations


@pytest.mark.parametrize('scheme', ['balanced', 'random'])
def test_every_split_has_all_classes_mixed(scheme):
    labels = class_labels(5000, 10, scheme)
    for split in labels.split(500):
        counts = split.bincount(minlength=10)
        assert counts.min() > 20
        assert not torch.equal(split.sort().values, split)


@pytest.mark.parametrize('scheme', ['balanced', 'random'])
def test_the_seed_decides(scheme):
    first, again, other = (class_labels(100, 10, scheme, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.int64


def test_mistakes_are_told():
    with pytest.raises(ValueError, match=r"scheme 'even'; accepted are 'balanced' and 'random'"):
        class_labels(10, 10, 'even')
    with pytest.raises(ValueError, match='0 samples of 10 classes; at least 1 of each'):
        class_labels(0, 10)
    with pytest.raises(ValueError, match='5 samples of 0 classes'):
        class_labels(5, 0)
