"""KID: torch-fidelity's definition, unbiased, reproducible."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from eqzoo.evaluators.kernel import kernel_distance, squared_discrepancy


def features(count, size=16, seed=0, shift=0.0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)).double() + shift


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_fidelity_agrees_where_a_subset_is_the_whole_set():
    x, y = features(60), features(60, seed=1, shift=0.2)
    theirs = kid_features_to_metric(x, y, kid_subsets=2, kid_subset_size=60, verbose=False)
    ours = kernel_distance(x, y, generator=generator(), subsets=2, subset_size=60)
    assert ours.mean == pytest.approx(theirs['kernel_inception_distance_mean'], rel=1e-10)
    assert ours.std == pytest.approx(0, abs=1e-12)


def test_fidelity_agrees_on_its_own_subsets():
    x, y = features(80), features(90, seed=1, shift=0.2)
    theirs = kid_features_to_metric(x, y, kid_subsets=5, kid_subset_size=30, rng_seed=4, verbose=False)
    rng = np.random.RandomState(4)  # theirs
    values = [
        squared_discrepancy(x[rng.choice(80, 30, replace=False)], y[rng.choice(90, 30, replace=False)])
        for _ in range(5)
    ]
    assert torch.stack(values).mean().item() == pytest.approx(theirs['kernel_inception_distance_mean'], rel=1e-10)


def test_the_formula_in_plain_loops():
    x, y = features(4, 3), features(4, 3, seed=1)

    def kernel(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(4) for j in range(4)]
    own = sum(kernel(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j) / 12
    cross = sum(kernel(x[i], y[j]) for i, j in pairs) / 16
    assert squared_discrepancy(x, y).item() == pytest.approx(own - 2 * cross, rel=1e-12)


def test_samples_of_one_distribution_are_at_zero_whatever_their_number():
    """Unbiased: within 4 standard errors, and on both sides; of different ones it is far off."""
    for count in (20, 60):
        values = torch.stack(
            [squared_discrepancy(features(count, seed=2 * i), features(count, seed=2 * i + 1)) for i in range(100)]
        )
        assert values.mean().abs() < 4 * values.std() / 10
        assert values.min() < 0 < values.max()
    assert kernel_distance(features(99), features(99, seed=1, shift=1), generator=generator(), subset_size=50).mean > 1


def test_subsets_follow_the_generator():
    x, y = features(80), features(80, seed=1)
    first, again, other = (
        kernel_distance(x, y, generator=generator(seed), subsets=3, subset_size=20) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert first.std > 0


def test_too_few_images_and_other_mistakes():
    with pytest.raises(ValueError, match='sets of 80 and 999 images; subsets of 1000 need at least 1000 in both'):
        kernel_distance(features(80), features(999), generator=generator())
    with pytest.raises(ValueError, match='0 subsets of 5; accepted are 1 or more of 2 or more'):
        kernel_distance(features(9), features(9), generator=generator(), subsets=0, subset_size=5)
    with pytest.raises(ValueError, match='3 subsets of 1; accepted'):
        kernel_distance(features(9), features(9), generator=generator(), subsets=3, subset_size=1)
    with pytest.raises(ValueError, match=r'features \(9, 16\) and \(9, 8\); .* one extractor'):
        kernel_distance(features(9), features(9, 8), generator=generator(), subset_size=5)
    damaged = features(9)
    damaged[[3, 5], 2] = float('nan')
    with pytest.raises(ValueError, match='KID: 2 of 9 images have NaN or infinite features, the first is 3'):
        kernel_distance(features(9), damaged, generator=generator(), subset_size=5)
