"""How many codes are masked: in training a random share, in sampling fewer with every step."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class _Schedule(NamedTuple):
    """The masked share at r in [0, 1], falling from 1 to 0, and its mean over r."""

    share: Callable[[Tensor], Tensor]
    mean: float


_SCHEDULES = {
    'arccos': _Schedule(lambda r: torch.arccos(r) / (math.pi / 2), 2 / math.pi),
    'cosine': _Schedule(lambda r: torch.cos(r * math.pi / 2), 2 / math.pi),
    'linear': _Schedule(lambda r: 1 - r, 1 / 2),
    'square': _Schedule(lambda r: 1 - r**2, 2 / 3),
}


def check_schedule(where: str, name: str) -> None:
    """Refuse an unknown schedule.

    Raises:
        ValueError: Naming those there are.
    """
    if name not in _SCHEDULES:
        raise ValueError(f'{where}: got {name!r}; accepted are {", ".join(_SCHEDULES)}.')


def masked_share(name: str, r: Tensor) -> Tensor:
    """Return the share of codes that are masked at `r`, in [0, 1]: 1 at 0, 0 at 1 (arXiv 2202.04200, Sec. 3.3).

    Differs from Besnier and Chen's release: there 'square' is `r**2` in training, `1 - r**2` in sampling.

    Example:
        >>> masked_share('cosine', torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000, 0.7071, 0.0000])
    """
    return _SCHEDULES[name].share(r).clamp_min(0)  # the cosine is rounded below


def mean_masked_share(name: str) -> float:
    """Return the mean of `masked_share` over r uniform in [0, 1]."""
    return _SCHEDULES[name].mean


def codes_per_step(name: str, steps: int, num_codes: int) -> list[int]:
    """Return how many of an image's codes each step of sampling fixes: few at first.

    They are as the masked share at r from 1 to 0, at least one a step, rounded, the last step
    taking the rest (Besnier and Chen's release). Where that leaves nothing to the last step,
    the largest give one back until it has its one.

    Args:
        name: Of the schedule.
        steps: S, at most `num_codes`.
        num_codes: h * w.

    Example:
        >>> codes_per_step('arccos', 8, 256)
        [1, 18, 26, 32, 38, 43, 48, 50]
    """
    if steps == 1:
        return [num_codes]
    share = masked_share(name, torch.linspace(1, 0, steps))
    counts = (share / share.sum() * num_codes).round().clamp_min(1).int().tolist()
    counts[-1] += num_codes - sum(counts)
    while counts[-1] < 1:
        largest = counts.index(max(counts))
        counts[largest] -= 1
        counts[-1] += 1
    return counts
