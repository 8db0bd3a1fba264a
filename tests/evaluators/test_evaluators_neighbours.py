"""Nearest neighbours, and precision, recall, density and coverage: by hand, by other implementations, in blocks."""

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from eqzoo.evaluators.neighbours import manifold_scores, nearest_neighbors


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize('block', [7, 100, 4096])
def test_neighbours_are_those_of_all_distances(block):
    points = randn(200, 9)
    distances = torch.cdist(points, points)
    distances.fill_diagonal_(math.inf)
    wanted = distances.topk(3, largest=False)
    given = nearest_neighbors(points, 3, block=block)
    assert torch.equal(given[1], wanted.indices)
    assert torch.allclose(given[0], wanted.values, rtol=1e-12)


def test_distances_are_exact_far_from_the_origin():
    """In single precision these differences would be 0 or 0.0625."""
    points = 1e6 + torch.tensor([[0.0], [0.01], [0.03]], dtype=torch.float64)
    distances, places = nearest_neighbors(points, 1)
    assert places.flatten().tolist() == [1, 0, 1]
    assert distances.flatten().tolist() == pytest.approx([0.01, 0.01, 0.02], rel=1e-6)


@pytest.mark.parametrize('block', [7, 2048])
def test_neighbours_among_another_set(block):
    points, others = torch.rand(40, 5) + 3, torch.rand(30, 5) + 3
    found, places = nearest_neighbors(points, 4, among=others, block=block)
    wanted = torch.cdist(points.double(), others.double()).sort(dim=1)
    assert torch.equal(places, wanted.indices[:, :4])
    assert torch.allclose(found, wanted.values[:, :4], rtol=1e-12)
    assert nearest_neighbors(points, 30, among=others)[1].sort(dim=1).values.unique(dim=0).tolist() == [[*range(30)]]
    # a point of both sets is its own neighbour
    assert nearest_neighbors(others, 1, among=others)[1][:, 0].tolist() == [*range(30)]


def test_impossible_neighbours_are_refused():
    with pytest.raises(ValueError, match='4 neighbours of 3 points; expected 1 to 3 neighbours'):
        nearest_neighbors(torch.rand(9, 2), 4, among=torch.rand(3, 2))
    with pytest.raises(ValueError, match='nearest_neighbors: 3 neighbours of 3 points; expected 1 to 2 neighbours'):
        nearest_neighbors(torch.rand(3, 2), 3)
    with pytest.raises(ValueError, match='nearest_neighbors: a point is NaN or infinite'):
        nearest_neighbors(torch.tensor([[0.0], [1.0], [math.nan]]), 1)


def features(count, size=16, seed=0, scale=1.0, shift=0.0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) * scale + shift


@pytest.fixture
def pair():
    return features(150, shift=2.0), features(220, seed=1, scale=0.8, shift=2.2)


@pytest.mark.parametrize('neighbors', [1, 3, 5])
def test_fidelity_agrees(pair, neighbors):
    real, generated = pair
    theirs = prc_features_to_metric(
        generated.double(), real.double(), prc_neighborhood=neighbors, save_cpu_ram=False, verbose=False
    )
    ours = manifold_scores(real, generated, neighbors=neighbors)
    assert (ours.precision, ours.recall) == pytest.approx((theirs['precision'], theirs['recall']), abs=1e-6)
    assert 0.1 < ours.recall < ours.precision < 1


def distances(x, y):
    return np.linalg.norm(x.double().numpy()[:, None] - y.double().numpy()[None], axis=2)


def test_adms_formula_agrees(pair):
    """Radii are the fourth smallest distances, counting the image's own 0; a border belongs to its ball."""
    real, generated = pair
    radii = [np.partition(distances(each, each), 3, axis=1)[:, 3] for each in pair]
    cross = distances(real, generated)
    ours = manifold_scores(real, generated)
    assert ours.precision == pytest.approx(np.mean(np.any(cross <= radii[0][:, None], axis=0)))
    assert ours.recall == pytest.approx(np.mean(np.any(cross <= radii[1][None, :], axis=1)))


def test_density_and_coverage_are_prdcs(pair):
    real, generated = pair
    radii = np.sort(distances(real, real), axis=1)[:, 5]
    cross = distances(real, generated)
    ours = manifold_scores(real, generated)
    assert ours.density == pytest.approx((cross < radii[:, None]).sum(axis=0).mean() / 5)
    assert ours.coverage == pytest.approx((cross.min(axis=1) < radii).mean())
    assert manifold_scores(real, generated, density_neighbors=3).density != ours.density


@pytest.mark.parametrize('block', [7, 150, 1000])
def test_blocks_change_nothing(pair, block):
    assert manifold_scores(*pair, block=block) == manifold_scores(*pair)


def test_on_a_line_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii 1, 1, 2, 7
    generated = torch.tensor([[0.5], [0.7], [30.0]])  # radii 0.2, 0.2, 29.3
    ours = manifold_scores(real, generated, neighbors=1, density_neighbors=1)
    assert ours.precision == pytest.approx(2 / 3)
    assert ours.recall == pytest.approx(3 / 4)  # 1, 3 and 10 are within 29.3 of 30
    assert ours.density == pytest.approx(4 / 3)  # 0.5 and 0.7 are in the balls of 0 and 1; 3 - 0.7 > 2
    assert ours.coverage == pytest.approx(2 / 4)


def test_a_border_belongs_to_the_ball_for_precision_and_not_for_density():
    real = torch.tensor([[0.0], [1.0], [2.0], [5.0]])  # radii 1, 1, 1, 3
    generated = torch.tensor([[-1.0], [-1.0], [-1.0]])
    ours = manifold_scores(real, generated, neighbors=1, density_neighbors=1)
    assert (ours.precision, ours.density, ours.coverage) == (1, 0, 0)


def test_a_far_mean_costs_no_digits(pair):
    """Float32 of |a|² + |b|² - 2ab would be off by more than the distances at 1,000."""
    real, generated = pair
    assert manifold_scores(real + 1000, generated + 1000) == pytest.approx(manifold_scores(real, generated), abs=0.01)


def test_extremes():
    real = features(60)
    same = manifold_scores(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    far = manifold_scores(real, real + 100)
    assert far == (0, 0, 0, 0)
    collapsed = manifold_scores(real, real[:1].repeat(60, 1))
    assert collapsed.precision == 1
    assert collapsed.recall < 0.1
    assert collapsed.coverage < 0.5


def test_too_few_images_and_other_mistakes():
    with pytest.raises(ValueError, match='5 real images; 5 neighbours need at least 6; evaluate more images'):
        manifold_scores(features(5), features(9))
    with pytest.raises(ValueError, match='3 generated images; 3 neighbours need at least 4'):
        manifold_scores(features(9), features(3), density_neighbors=2)
    with pytest.raises(ValueError, match='3 and 0 neighbours'):
        manifold_scores(features(9), features(9), density_neighbors=0)
    with pytest.raises(ValueError, match=r'features \(9, 16\) and \(9, 4\)'):
        manifold_scores(features(9), features(9, 4))
    damaged = features(9)
    damaged[0, 0] = float('inf')
    with pytest.raises(ValueError, match='1 of 9 images have NaN or infinite features, the first is 0'):
        manifold_scores(features(9), damaged)
