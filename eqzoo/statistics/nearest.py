"""The nearest others of each point of a set, exactly, in memory that does not grow with its square."""

import torch
from torch import Tensor

from eqzoo.precision import full_precision

_BLOCK = 2048  # rows of distances at a time
_MARGIN = 4  # candidates more than asked for: single precision may confuse the order of close ones


def nearest(points: Tensor, count: int, *, block: int = _BLOCK) -> tuple[Tensor, Tensor]:
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
