"""Nearest neighbours against all distances, and the intrinsic dimension of manifolds of known dimension."""

import math

import pytest
import torch

from eqzoo.evaluators.dimension import intrinsic_dimension
from eqzoo.evaluators.neighbours import nearest


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize('block', [7, 100, 4096])
def test_neighbours_are_those_of_all_distances(block):
    points = randn(200, 9)
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(math.inf)
    wanted = distances.topk(3, largest=False)
    given = nearest(points, 3, block=block)
    assert torch.equal(given[1], wanted.indices)
    assert torch.allclose(given[0], wanted.values, rtol=1e-12)


def test_distances_are_exact_far_from_the_origin():
    """In single precision these differences would be 0 or 0.0625."""
    points = 1e6 + torch.tensor([[0.0], [0.01], [0.03]], dtype=torch.float64)
    distances, places = nearest(points, 1)
    assert places.flatten().tolist() == [1, 0, 1]
    assert distances.flatten().tolist() == pytest.approx([0.01, 0.01, 0.02], rel=1e-6)


def test_impossible_neighbours_are_refused():
    with pytest.raises(ValueError, match='nearest: 3 neighbours of 3 points; accepted are 1 to N - 1'):
        nearest(torch.rand(3, 2), 3)
    with pytest.raises(ValueError, match='nearest: a point is NaN or infinite'):
        nearest(torch.tensor([[0.0], [1.0], [math.nan]]), 1)


def sphere(count, dimension):
    points = randn(count, dimension + 1, seed=dimension)
    return points / points.norm(dim=1, keepdim=True)


# TwoNN falls short in many dimensions: the values that scikit-dimension itself is known for
@pytest.mark.parametrize(('dimension', 'expected', 'tolerance'), [(2, 2, 0.15), (5, 5, 0.35), (10, 9.3, 0.8)])
def test_spheres_have_their_dimension_wherever_they_lie(dimension, expected, tolerance):
    turned = sphere(1500, dimension) @ torch.linalg.qr(randn(40, dimension + 1)).Q.T
    found = intrinsic_dimension(turned + 5, generator=torch.Generator().manual_seed(0))
    assert found.dimension == pytest.approx(expected, abs=tolerance)
    assert found.likelihood == pytest.approx(found.dimension, rel=0.15)
    assert 0 < found.std < 0.1 * dimension
    scaled = intrinsic_dimension(7 * turned, generator=torch.Generator().manual_seed(0))
    assert scaled.dimension == pytest.approx(found.dimension, rel=1e-4)


def test_it_is_scikit_dimensions_estimate():
    from skdim.id import TwoNN

    points = randn(400, 6)
    found = intrinsic_dimension(points, generator=torch.Generator().manual_seed(0))
    wanted = TwoNN(discard_fraction=0.1).fit(points.numpy()).dimension_
    assert found.dimension == pytest.approx(wanted, rel=1e-6)
    likelihood = TwoNN(discard_fraction=0.1, method='mle').fit(points.numpy()).dimension_
    assert found.likelihood == pytest.approx(likelihood, rel=1e-6)
    assert abs(likelihood - wanted) > 1e-3


def test_duplicates_count_once_and_few_points_have_no_dimension():
    points = randn(300, 3)
    alone = intrinsic_dimension(points, generator=torch.Generator().manual_seed(0))
    twice = intrinsic_dimension(torch.cat([points, points[:100]]), generator=torch.Generator().manual_seed(0))
    assert (alone.num_points, twice.num_points) == (300, 300)
    assert twice.dimension == pytest.approx(alone.dimension, rel=1e-9)
    assert math.isnan(intrinsic_dimension(points[:9], generator=torch.Generator()).dimension)
