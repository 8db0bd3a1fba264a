"""Nearest neighbours, and the precision, recall, density and coverage built on them."""

from typing import NamedTuple

import torch
from torch import Tensor

from eqzoo.evaluators.kernel import check_features
from eqzoo.precision import full_precision

_NEAREST_BLOCK = 2048  # rows of distances at a time
_MARGIN = 4  # candidates more than asked for: single precision may confuse the order of close ones


def nearest(points: Tensor, count: int, *, block: int = _NEAREST_BLOCK) -> tuple[Tensor, Tensor]:
    """Return the distances (N, count) and places (N, count) of each point's nearest others, nearest first.

    Candidates are found in single precision about the mean of all points; their distances are then
    computed in double precision, and ordered by that.

    Args:
        points: (N, D), finite.
        count: At most N - 1.
        block: Distances are computed for this many points at a time; it changes the memory only.

    Raises:
        ValueError: If there are no `count` others, or a point is not finite.

    Example:
        >>> distances, places = nearest(torch.tensor([[0.0], [1.0], [3.0], [3.5]]), 2)
        >>> places.tolist(), distances[0].tolist()
        ([[1, 2], [0, 2], [3, 1], [2, 1]], [1.0, 3.0])
    """
    if not 1 <= count < len(points):
        raise ValueError(f'nearest: {count} neighbours of {len(points)} points; accepted are 1 to N - 1 neighbours.')
    if not points.isfinite().all():
        raise ValueError('nearest: a point is NaN or infinite; accepted are finite points.')
    centred = (points - points.mean(dim=0)).float()
    squares = centred.square().sum(dim=1)
    candidates = min(count + _MARGIN, len(points) - 1)
    distances, places = [], []
    for start in range(0, len(points), block):
        rows = slice(start, start + block)
        with full_precision():  # TF32 would lose neighbours
            found = torch.addmm(squares, centred[rows], centred.T, alpha=-2)  # less the row's own square
        own = torch.arange(len(found), device=found.device)
        found[own, own + start] = torch.inf
        near = found.topk(candidates, dim=1, largest=False).indices
        exact = _distances(points[rows], points, near)
        order = exact.argsort(dim=1, stable=True)[:, :count]
        distances.append(exact.gather(1, order))
        places.append(near.gather(1, order))
    return torch.cat(distances), torch.cat(places)


def _distances(rows: Tensor, points: Tensor, places: Tensor) -> Tensor:
    """Return the distances (M, K), float64, from `rows` (M, D) to `points` at `places` (M, K), one column at a time."""
    columns = [(rows.double() - points[column].double()).square().sum(dim=1).sqrt() for column in places.T]
    return torch.stack(columns, dim=1)


_MANIFOLD_BLOCK = 4096  # rows and columns of distances at a time: 64 MiB


class ManifoldScores(NamedTuple):
    """Shares of images within balls around others.

    Args:
        precision: Of the generated images, those in the ball of any real one (Kynkäänniemi et al. 2019, Eq. 2).
        recall: Of the real images, those in the ball of any generated one.
        density: How many real balls a generated image is in, over k; may be above 1 (Naeem et al. 2020, Eq. 4).
        coverage: Of the real images, those whose ball has a generated image in it.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(
    real: Tensor,
    generated: Tensor,
    *,
    neighbors: int = 3,
    density_neighbors: int = 5,
    block: int = _MANIFOLD_BLOCK,
) -> ManifoldScores:
    """Return all four, in one pass over the distances between the sets.

    An image's ball reaches to its k-th nearest other image of its own set. The values depend on
    the numbers of images: published ones after ADM's evaluator are of 10,000 real and 50,000
    generated. Precision and recall are ADM's definition; differs from it: distances are in
    float32, its are in half precision (5e-4 of precision), and about the mean of the real features,
    which costs nothing and keeps digits. Density and coverage are those of the package `prdc`.

    Args:
        real: Features (N, D).
        generated: Features (M, D).
        neighbors: k of precision and recall; 3 in ADM's evaluator.
        density_neighbors: k of density and coverage; 5 in its authors' code.
        block: Distances are computed for this many images squared at a time; it changes the memory only.

    Raises:
        ValueError: If a set has no k-th neighbour, the sizes of the features differ, or a value
            is not finite.
    """
    check_features('precision and recall', real, generated)
    needed = max(neighbors, density_neighbors) + 1
    if min(neighbors, density_neighbors) < 1:
        raise ValueError(f'precision and recall: {neighbors} and {density_neighbors} neighbours; at least 1 each.')
    for name, features in (('real', real), ('generated', generated)):
        if len(features) < needed:
            raise ValueError(
                f'precision and recall: {len(features)} {name} images; {needed - 1} neighbours need at least '
                f'{needed}; evaluate more images.'
            )
    center = real.mean(dim=0, dtype=torch.float64).to(real.dtype)
    real, generated = (real - center).float(), (generated - center).float()
    with full_precision():
        real_radii = _radii(real, (neighbors, density_neighbors), block)
        (generated_radii,) = _radii(generated, (neighbors,), block)
        return _compare(real, generated, real_radii, generated_radii, density_neighbors, block)


def _radii(features: Tensor, neighbors: tuple[int, ...], block: int) -> list[Tensor]:
    """Return the squared distances (N,) to each of the `neighbors`, not counting the image itself."""
    count = max(neighbors) + 1
    nearest = []
    for rows in features.split(block):
        best = features.new_full((len(rows), count), torch.inf)
        for columns in features.split(block):
            distances = _squared_distances(rows, columns)
            found = distances.topk(min(count, len(columns)), dim=1, largest=False).values
            best = torch.cat([best, found], dim=1).topk(count, dim=1, largest=False).values
        nearest.append(best)
    ordered = torch.cat(nearest)
    return [ordered[:, k] for k in neighbors]


def _compare(
    real: Tensor,
    generated: Tensor,
    real_radii: list[Tensor],
    generated_radii: Tensor,
    density_neighbors: int,
    block: int,
) -> ManifoldScores:
    is_recalled = real.new_zeros(len(real), dtype=torch.bool)
    is_covered = is_recalled.clone()
    num_precise, num_balls = 0, 0
    starts = range(0, len(real), block)
    for rows, own_radii in zip(generated.split(block), generated_radii.split(block), strict=True):
        is_precise = rows.new_zeros(len(rows), dtype=torch.bool)
        for start in starts:
            part = slice(start, start + block)
            distances = _squared_distances(rows, real[part])
            is_precise |= (distances <= real_radii[0][part]).any(dim=1)
            is_recalled[part] |= (distances <= own_radii[:, None]).any(dim=0)
            in_ball = distances < real_radii[1][part]  # strictly, as prdc
            is_covered[part] |= in_ball.any(dim=0)
            num_balls += int(in_ball.sum())
        num_precise += int(is_precise.sum())
    return ManifoldScores(
        precision=num_precise / len(generated),
        recall=int(is_recalled.sum()) / len(real),
        density=num_balls / (density_neighbors * len(generated)),
        coverage=int(is_covered.sum()) / len(real),
    )


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    norms = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    return torch.addmm(norms, x, y.T, alpha=-2).clamp_min_(0)
