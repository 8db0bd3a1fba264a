"""Spatial structure of latents: similarity of near and of far cells (LDS, CDS), and of regions (SRSS)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eqzoo.evaluators.base import ROUNDING_SHARE, AutoencoderView, Evaluator
from eqzoo.precision import to_double
from eqzoo.registry import EVALUATORS

# Shares of the image's shorter side: 24, 96 and 16 pixels of 252 in the public implementation of arXiv 2606.03578.
# iREPA's own far is 6 of 16 cells, .375.
NEAR, FAR, RING = 24 / 252, 96 / 252, 16 / 252
_ROUNDING = 1e-9  # of distances


@EVALUATORS.register_module()
class SpatialStructure(Evaluator):
    """`lds` and `cds`: by how much near cells are more similar than far ones, with standard errors `…_std`.

    From iREPA (Singh et al. 2025, arXiv 2512.10794). `lds` is the mean cosine similarity of pairs of near cells
    minus that of far ones; `cds` is the negative slope of the similarity over the distance, in similarity per
    side of the image, from a straight line through rings of distances. Both are means over images. **Higher is
    easier**: 0 means that neighbours have no more in common than strangers, as in white noise. Images whose
    cells are all equal are left out; if all are, or if there are no two cells far apart, the value is NaN.

    As in the public implementation of "Diffusing in the Right Space" (arXiv 2606.03578) distances are of the
    cells' centres in the image, so that f8 and f16 are measured at the same places, and the mean over an image's
    cells is subtracted first, without which a common offset makes all cells similar. Differs from it: distances
    are shares of the shorter side, for images of any size, and neighbours in a row or column are always near;
    its `cds` is per pixel of 252. Differs from iREPA: distances there are Manhattan's in cells, and nothing is
    subtracted.

    Args:
        near: Cells at most this far apart are near, as a share of the image's shorter side.
        far: Cells at least this far apart are far. Slopes are between `near` and `far`.
        center: Whether to subtract the mean over an image's cells. Without it the names end in `_uncentred`.

    Raises:
        ValueError: Unless 0 < near < far < 1.
    """

    def __init__(self, *, near: float = NEAR, far: float = FAR, center: bool = True) -> None:
        super().__init__()
        _check_range('SpatialStructure', near, far)
        self.near, self.far, self.center = near, far, center

    def update(self, view: AutoencoderView) -> None:
        """Add a batch's values and their squares."""
        latents = to_double(view.latents)
        directions, varies = _directions(latents, self.center)
        similarity = displacement_similarity(directions)
        distance = cell_distances(tuple(view.images.shape[2:]), tuple(latents.shape[2:]))
        pairs = pair_counts(tuple(latents.shape[2:]))
        values = torch.stack(
            [
                local_similarity(similarity, pairs, distance, self.near, self.far),
                correlation_decay(similarity, pairs, distance, self.near, self.far),
            ],
            dim=1,
        )[varies]
        self.add('varying', varies.double())
        self.add('value', values)
        self.add('square', values.square())

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the means over images and their standard errors."""
        count = sums['varying']
        mean = sums['value'] / count
        error = ((sums['square'] / count - mean.square()).clamp_min(0) / (count - 1)).sqrt()
        suffix = '' if self.center else '_uncentred'
        metrics = {}
        for name, value, std in zip(('lds', 'cds'), mean.tolist(), error.tolist(), strict=True):
            metrics |= {f'{name}{suffix}': value, f'{name}{suffix}_std': std}
        return metrics

    def card(self) -> dict[str, Any]:
        """Return the distances and the similarity."""
        return {
            'latent': 'posterior mean in generator units' + (', minus the mean of each image' if self.center else ''),
            'similarity': 'cosine of cells, averaged over pairs of cells, then over images',
            'near': self.near,
            'far': self.far,
            'distance': "of centres, in shorter sides of the image; a cell's neighbours are always near",
            'std': 'standard error, images being the units',
        }


def displacement_similarity(directions: Tensor) -> Tensor:
    """Return the sum of the products of all pairs of cells by their displacement, (B, 2h − 1, 2w − 1).

    Displacement (dy, dx) is at [h − 1 + dy, w − 1 + dx]; each pair counts in both directions.

    By the theorem of Wiener and Khinchin: the autocorrelation is the inverse Fourier transform of the power, here
    with a border of zeros, in n log n operations for n cells instead of n².

    Args:
        directions: Unit vectors of cells, (B, C, h, w).
    """
    height, width = directions.shape[2:]
    size = 2 * height - 1, 2 * width - 1
    power = torch.fft.rfft2(directions, s=size).abs().square().sum(dim=1)
    return torch.fft.irfft2(power, s=size).roll((height - 1, width - 1), dims=(1, 2))


def pair_counts(grid: tuple[int, int]) -> Tensor:
    """Return the number of pairs of cells by their displacement, as in `displacement_similarity`."""
    rows, columns = (side - torch.arange(1 - side, side).abs() for side in grid)
    return rows[:, None] * columns


def cell_distances(size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return the distance of two cells' centres by their displacement, in shorter sides of the image.

    Args:
        size: Of the images (H, W), in pixels.
        grid: Of the latents (h, w).
    """
    down, right = (
        torch.arange(1 - cells, cells, dtype=torch.float64) * side / cells / min(size)
        for side, cells in zip(size, grid, strict=True)
    )
    return torch.hypot(down[:, None].expand(len(down), len(right)), right.expand(len(down), len(right)))


def local_similarity(
    similarity: Tensor, pairs: Tensor, distance: Tensor, near: float = NEAR, far: float = FAR
) -> Tensor:
    """Return LDS (B,): the mean similarity of near pairs of cells minus that of far ones; NaN if there are none.

    Args:
        similarity: Sums by displacement, from `displacement_similarity`.
        pairs: From `pair_counts`.
        distance: From `cell_distances`.
        near: The largest distance that is near, if it is not less than a cell.
        far: The smallest distance that is far.
    """
    is_near, is_far = _near_and_far(distance, near, far)
    return _mean_over(similarity, pairs, is_near) - _mean_over(similarity, pairs, is_far)


def correlation_decay(
    similarity: Tensor, pairs: Tensor, distance: Tensor, near: float = NEAR, far: float = FAR
) -> Tensor:
    """Return CDS (B,): the negative slope of the similarity over the distance, in similarity per shorter side.

    Of the straight line through the mean similarities of rings of distances, 16 / 252 wide, whose middles are
    between `near` and `far`. Rings without a pair of cells are left out; with fewer than two it is NaN.

    Args:
        similarity: As in `local_similarity`.
        pairs: The same.
        distance: The same.
        near: The smallest middle of a ring.
        far: The largest.
    """
    ring = (distance / RING + _ROUNDING).long()
    middles, means = [], []
    for number in ring.unique().tolist():
        middle = (number + 0.5) * RING
        if near - _ROUNDING <= middle <= far + _ROUNDING:
            middles.append(middle)
            means.append(_mean_over(similarity, pairs, ring == number))
    if len(middles) < 2:
        return similarity.new_full((len(similarity),), math.nan)
    x = similarity.new_tensor(middles)
    x = x - x.mean()
    return -(torch.stack(means, dim=1) @ x) / x.square().sum()


def region_similarity(
    latents: Tensor,
    masks: Tensor,
    size: tuple[int, int],
    *,
    near: float = NEAR,
    far: float = FAR,
    center: bool = True,
) -> Tensor:
    """Return SRSS (B,) of latents (B, C, h, w): foreground to near foreground, minus foreground to far background.

    iREPA's semantic-region self-similarity, with the distances of `SpatialStructure`: for each foreground cell
    that has both, the mean cosine similarity to near foreground cells minus that to far background cells; then the
    mean over these cells. NaN for an image that has no such cell. In arXiv 2606.03578 it predicts generators' FID
    (correlation .72, and .84 for the largest generator). Data sets here have no masks: call it with your own.

    Args:
        latents: Of images of `size`.
        masks: (B, H, W), foreground where not 0; resized to the cells by nearest neighbour.
        size: Of the images (H, W), in pixels.
        near: As in `SpatialStructure`.
        far: The same.
        center: The same.

    Raises:
        ValueError: Unless there is a mask for each image, and 0 < near < far < 1.
    """
    _check_range('region_similarity', near, far)
    if masks.ndim != 3 or len(masks) != len(latents):
        raise ValueError(f'region_similarity: masks {tuple(masks.shape)}; expected ({len(latents)}, H, W).')
    grid = tuple(latents.shape[2:])
    directions, _ = _directions(latents.double(), center)
    flat = directions.flatten(2)
    cosine = flat.mT @ flat
    rows, columns = (torch.arange(side) for side in grid)
    down, right = (each.flatten() for each in torch.meshgrid(rows, columns, indexing='ij'))
    displacement = grid[0] - 1 + down[:, None] - down, grid[1] - 1 + right[:, None] - right
    distance = cell_distances(size, grid)
    is_near, is_far = (each[displacement].to(latents.device) for each in _near_and_far(distance, near, far))
    foreground = F.interpolate((masks != 0).float()[:, None], size=grid).flatten(1) > 0
    positive = foreground[:, :, None] & foreground[:, None] & is_near
    negative = foreground[:, :, None] & ~foreground[:, None] & is_far
    # NaN for cells without such a pair
    alike, unlike = ((cosine * each).sum(dim=2) / each.sum(dim=2) for each in (positive, negative))
    return (alike - unlike).nanmean(dim=1)


def _check_range(where: str, near: float, far: float) -> None:
    if not 0 < near < far < 1:
        raise ValueError(
            f"{where}: near and far must be shares of the image's side, 0 < near < far < 1, got {near} and {far}."
        )


def _directions(latents: Tensor, center: bool) -> tuple[Tensor, Tensor]:
    """Return unit vectors (B, C, h, w), and which images vary from cell to cell, (B,)."""
    mean = latents.mean(dim=(2, 3), keepdim=True)
    spread = (latents - mean).square().sum(dim=(1, 2, 3))
    varies = spread > ROUNDING_SHARE * latents.square().sum(dim=(1, 2, 3))
    return F.normalize(latents - mean if center else latents, dim=1), varies


def _near_and_far(distance: Tensor, near: float, far: float) -> tuple[Tensor, Tensor]:
    rows, columns = (side // 2 for side in distance.shape)  # of displacement 0
    steps = [distance[rows + 1, columns]] if rows else []
    steps += [distance[rows, columns + 1]] if columns else []
    limit = max([near, *(step.item() for step in steps)]) + _ROUNDING
    is_near = (distance > 0) & (distance <= limit)
    return is_near, (distance >= far - _ROUNDING) & (distance > limit)


def _mean_over(similarity: Tensor, pairs: Tensor, chosen: Tensor) -> Tensor:
    chosen = chosen.to(similarity.device)
    return similarity[:, chosen].sum(dim=1) / pairs.to(similarity.device)[chosen].sum()
