"""Intrinsic dimension: manifolds of known dimension, scikit-dimension's values, and which latents count."""

import math

import numpy as np
import pytest
import torch
from pixels import Pixels, faces, measure

from eqzoo.evaluators import IntrinsicDimension
from eqzoo.evaluators.dimension import dimension_by_likelihood, dimension_by_line, intrinsic_dimension
from eqzoo.randomness import seeded


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sphere(count, dimension):
    points = randn(count, dimension + 1, seed=dimension)
    return points / points.norm(dim=1, keepdim=True)


# TwoNN falls short in many dimensions
@pytest.mark.parametrize(('dimension', 'expected', 'tolerance'), [(2, 2, 0.15), (5, 5, 0.35), (10, 9.3, 0.8)])
def test_spheres_have_their_dimension_wherever_they_lie(dimension, expected, tolerance):
    turned = sphere(1500, dimension) @ torch.linalg.qr(randn(40, dimension + 1)).Q.T
    found = intrinsic_dimension(turned + 5, generator=torch.Generator().manual_seed(0))
    assert found.dimension == pytest.approx(expected, abs=tolerance)
    assert found.likelihood == pytest.approx(found.dimension, rel=0.15)
    assert 0 < found.std < 0.1 * dimension
    scaled = intrinsic_dimension(7 * turned, generator=torch.Generator().manual_seed(0))
    assert scaled.dimension == pytest.approx(found.dimension, rel=1e-4)


def test_the_estimates_are_scikit_dimensions():
    """Recorded from its version 0.5.0, `TwoNN(discard_fraction=0.1, dist=True, method=…)`, on these ratios."""
    numbers = np.arange(1, 51)
    nearest_distance = 1 + np.sin(numbers) ** 2
    ratios = nearest_distance * (1 + (0.37 * numbers % 1) + 0.01) / nearest_distance
    assert dimension_by_line(ratios) == pytest.approx(2.349254288679811, rel=1e-12)
    assert dimension_by_likelihood(ratios) == pytest.approx(2.274080419864431, rel=1e-12)


def test_points_have_scikit_dimensions_estimate():
    """Recorded from its version 0.5.0 on the same points; the spread is that of its fits to 100 resamples."""
    found = intrinsic_dimension(randn(400, 6), generator=torch.Generator().manual_seed(0))
    recorded = (6.081974468140346, 0.29820165633452506, 6.1257000080393915, 400)
    assert found == pytest.approx(recorded, rel=1e-12)


def test_the_line_goes_through_the_origin_and_the_largest_tenth_is_left_out():
    """Ratios with exactly the distribution of d = 3 give 3, whatever the largest ones are."""
    count = 200
    ratios = (1 - np.arange(1, count + 1) / count + 1e-300) ** (-1 / 3)
    ratios[-20:] = 1e6
    assert dimension_by_line(ratios) == pytest.approx(3, rel=1e-12)
    assert dimension_by_line(ratios[::-1].copy()) == pytest.approx(3, rel=1e-12)


def test_duplicates_count_once_and_few_points_have_no_dimension():
    points = randn(300, 3)
    alone = intrinsic_dimension(points, generator=torch.Generator().manual_seed(0))
    twice = intrinsic_dimension(torch.cat([points, points[:100]]), generator=torch.Generator().manual_seed(0))
    assert (alone.num_points, twice.num_points) == (300, 300)
    assert twice.dimension == pytest.approx(alone.dimension, rel=1e-9)
    assert math.isnan(intrinsic_dimension(points[:9], generator=torch.Generator()).dimension)


def test_dimension_of_latents_that_lie_on_a_surface():
    images = faces(400)
    given = measure(IntrinsicDimension(), Pixels(), images)
    wanted = intrinsic_dimension(images.flatten(1), generator=seeded(1))
    assert given['intrinsic_dimension'] == pytest.approx(2, abs=0.25)
    assert given['intrinsic_dimension'] == pytest.approx(wanted.dimension, rel=1e-9)
    mixed = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    assert measure(IntrinsicDimension(), Pixels(), images, batch=33, numbers=mixed) == given


def test_only_so_many_latents_are_kept():
    metric = IntrinsicDimension(max_images=120)
    measure(metric, Pixels(), faces(300))
    assert metric.card()['points'] == 120


def test_too_few_images_are_refused_before_the_first():
    with pytest.raises(ValueError, match='intrinsic_dimension: 99 images, but it needs 100 or more'):
        IntrinsicDimension().check(99)
