"""Nearest neighbours, and the precision, recall, density and coverage of samples built on them.

There are two blocked searches on purpose. `nearest_neighbors` returns positions, and distances in float64. The radii of
`manifold_scores` must come from the same float32 formula as the distances they are compared with, or a point on
the border of its ball would fall out of it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from eqzoo.precision import full_precision

_NEAREST_BLOCK = 2048  # rows of distances at a time
_MARGIN = 4  # extra candidates, because float32 may confuse the order of close ones
NEIGHBORS, DENSITY_NEIGHBORS = 3, 5
_MANIFOLD_BLOCK = 4096  # rows and columns of distances at a time: 64 MiB


def nearest_neighbors(
    points: Tensor, count: int, *, among: Tensor | None = None, block: int = _NEAREST_BLOCK
) -> tuple[Tensor, Tensor]:
    """Return the distances (N, count) and positions (N, count) of each point's nearest other points, nearest first.

    Candidates are found in float32, relative to the mean of all points; their distances are then computed
    and ordered in float64.

    Args:
        points: (N, D), finite.
        count: At most N - 1, or M.
        among: The points (M, D) of another set, finite, to look among. Default: the other ones of `points`.
        block: Distances are computed for this many points at a time; it changes only the memory.

    Raises:
        ValueError: If there are no `count` other points, or a point is not finite.

    Example:
        >>> distances, places = nearest_neighbors(torch.tensor([[0.0], [1.0], [3.0], [3.5]]), 2)
        >>> places.tolist(), distances[0].tolist()
        ([[1, 2], [0, 2], [3, 1], [2, 1]], [1.0, 3.0])
    """
    others = points if among is None else among
    available = len(points) - 1 if among is None else len(among)
    if not 1 <= count <= available:
        raise ValueError(
            f'nearest_neighbors: {count} neighbours of {len(others)} points; expected 1 to {available} neighbours.'
        )
    if not (points.isfinite().all() and others.isfinite().all()):
        raise ValueError('nearest_neighbors: a point is NaN or infinite; expected finite points.')
    center = others.mean(dim=0)
    centred = (others - center).float()
    queries = centred if among is None else (points - center).float()
    squares = centred.square().sum(dim=1)
    candidates = min(count + _MARGIN, available)
    distances, places = [], []
    for start in range(0, len(points), block):
        rows = slice(start, start + block)
        with full_precision():  # TF32 would lose neighbours
            # |b|² - 2 a·b: the row's own |a|² does not change the order
            found = torch.addmm(squares, queries[rows], centred.T, alpha=-2)
        if among is None:
            own = torch.arange(len(found), device=found.device)
            found[own, own + start] = torch.inf
        near = found.topk(candidates, dim=1, largest=False).indices
        exact = _distances(points[rows], others, near)
        order = exact.argsort(dim=1, stable=True)[:, :count]
        distances.append(exact.gather(1, order))
        places.append(near.gather(1, order))
    return torch.cat(distances), torch.cat(places)


def _distances(rows: Tensor, points: Tensor, places: Tensor) -> Tensor:
    """Return the distances (M, K), float64, from `rows` (M, D) to `points` at `places` (M, K), one column at a time."""
    columns = [(rows.double() - points[column].double()).square().sum(dim=1).sqrt() for column in places.T]
    return torch.stack(columns, dim=1)


class ManifoldScores(NamedTuple):
    """Shares of images that lie in balls around images of the other set.

    Args:
        precision: The share of generated images in the ball of any real one (Kynkäänniemi et al. 2019, Eq. 2).
        recall: The share of real images in the ball of any generated one.
        density: The number of real balls a generated image is in, over k; may exceed 1 (Naeem et al. 2020, Eq. 4).
        coverage: The share of real images whose ball contains a generated image.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(
    real: Tensor,
    generated: Tensor,
    *,
    neighbors: int = NEIGHBORS,
    density_neighbors: int = DENSITY_NEIGHBORS,
    block: int = _MANIFOLD_BLOCK,
) -> ManifoldScores:
    """Return all four scores, from one pass over the distances between the sets.

    An image's ball reaches to its k-th nearest other image of its own set. The values depend on the numbers
    of images: published ones from ADM's evaluator are of 10,000 real and 50,000 generated images. Precision
    and recall follow ADM's definition. Differs from it: distances are in float32, where ADM's are in half
    precision (5e-4 of precision), and relative to the mean of the real features, which costs nothing and
    keeps digits. Density and coverage are those of the package `prdc`.

    Args:
        real: Features (N, D).
        generated: Features (M, D).
        neighbors: k of precision and recall; 3 in ADM's evaluator.
        density_neighbors: k of density and coverage; 5 in its authors' code.
        block: Distances are computed for this many images squared at a time; it changes only the memory.

    Raises:
        ValueError: If a set has no k-th neighbour, the sizes of the features differ, or a value
            is not finite.
    """
    check_features('precision and recall', real, generated)
    needed = max(neighbors, density_neighbors) + 1
    if min(neighbors, density_neighbors) < 1:
        raise ValueError(
            f'precision and recall: {neighbors} and {density_neighbors} neighbours; expected at least 1 each.'
        )
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
    """Count the balls that each image is in, block by block."""
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
            in_ball = distances < real_radii[1][part]  # strictly, as in prdc
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


def check_features(where: str, first: Tensor, second: Tensor) -> None:
    """Refuse sets of features (N, D) and (M, D) that cannot be compared.

    Raises:
        ValueError: If they have no common D, or a value is not finite.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f'{where}: features {tuple(first.shape)} and {tuple(second.shape)}; expected (N, D) and (M, D); '
            'compare features of one extractor.'
        )
    for features in (first, second):
        damaged = ~features.isfinite().all(dim=1)
        if damaged.any():
            raise ValueError(
                f'{where}: {int(damaged.sum())} of {len(features)} images have NaN or infinite features, '
                f'the first is {int(damaged.nonzero()[0])}; look at that image.'
            )
