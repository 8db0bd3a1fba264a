"""The angles and scales to look at, so chosen that every autoencoder's latents can take them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from eqzoo.transforms import IsotropicScale, Turn


class Cases(NamedTuple):
    """Transforms whose cases are looked at.

    Args:
        turn: By the angles.
        scale: By the scales.
        remarks: What had to be left out or changed.
    """

    turn: Turn
    scale: IsotropicScale
    remarks: list[str]


def choose_cases(angles: Sequence[float], scales: Sequence[float], grids: Sequence[tuple[int, int]]) -> Cases:
    """Return `angles` and `scales` that are possible on all of `grids` (h, w).

    Scales are taken to the nearest whole number of cells. Angles of which no cell of the smallest latents
    is left once the border is, are left out.

    Raises:
        ValueError: If a value is out of range, or nothing is left.
    """
    scale_of = dict(interpolation='bicubic', antialias=True)  # as `EquivarianceError` measures by default
    turn = Turn(eval_angles=tuple(angles))
    IsotropicScale(eval_scales=tuple(scales), **scale_of)  # refuses what is no scale
    smallest = min(grids, key=min)
    kept = [angle for angle in angles if all(turn.mask(grid, angle).any() for grid in grids)]
    cells = math.gcd(*(side for grid in grids for side in grid))
    whole = sorted({min(max(round(scale * cells), 1), cells - 1) / cells for scale in scales}) if cells > 1 else []
    if not kept or not whole:
        raise ValueError(
            f'angles and scales: none of them leaves anything of latents of {smallest[0]} x {smallest[1]} cells; use '
            'larger images (--size).'
        )
    remarks = []
    if len(kept) < len(angles):
        left_out = ', '.join(f'{angle:g}°' for angle in angles if angle not in kept)
        remarks.append(f'Left out: {left_out}, of which nothing of {smallest[0]} x {smallest[1]} cells would count.')
    if whole != sorted(set(scales)):
        remarks.append(f'Scales taken to whole cells: {", ".join(f"{scale:.3g}" for scale in whole)}.')
    return Cases(Turn(eval_angles=tuple(kept)), IsotropicScale(eval_scales=tuple(reversed(whole)), **scale_of), remarks)
