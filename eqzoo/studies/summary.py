"""Means over seeds, what differs between arms seed by seed, and how much sooner one gets where another ends."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import NamedTuple

from eqzoo.studies.scores import Score

Curve = Sequence[tuple[int, float]]


class Spread(NamedTuple):
    """A mean over seeds, the standard deviation of one seed (n - 1), and how many there are."""

    mean: float
    std: float | None
    count: int


class Difference(NamedTuple):
    """By how much two arms differ, seed by seed, and in how many seeds so: of the sign of the mean."""

    spread: Spread
    agreeing: int


class SpeedUp(NamedTuple):
    """How many times sooner an arm reaches the other's last score.

    Args:
        ratios: One a seed; None where it does not reach it within its steps.
        last: The other's last step.
    """

    ratios: tuple[float | None, ...]
    last: int


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and standard deviation of `values`; None if there are none, NaN where one is no number.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        Spread(mean=2.0, std=1.0, count=3)
    """
    values = [*values]
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return Spread(math.nan, None, len(values))
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def by_seed(
    scores: Iterable[Score], metric: str, autoencoder: str, generator: str | None = None, step: int | None = None
) -> dict[int, float]:
    """Return a metric of one arm for each seed; NaN where it is no number."""
    return {
        each.seed: math.nan if each.metrics[metric] is None else each.metrics[metric]
        for each in scores
        if (each.autoencoder, each.generator, each.step) == (autoencoder, generator, step) and metric in each.metrics
    }


def difference(arm: Mapping[int, float], control: Mapping[int, float]) -> Difference | None:
    """Return how an arm differs from its control, the seeds paired; None if they have none in common.

    Example:
        >>> difference({0: 2.0, 1: 3.5}, {0: 1.0, 1: 4.0})
        Difference(spread=Spread(mean=0.25, std=1.0606601717798212, count=2), agreeing=1)
    """
    values = [arm[seed] - control[seed] for seed in arm if seed in control]
    found = spread(values)
    if found is None:
        return None
    return Difference(found, sum(value * found.mean > 0 for value in values))


def speed_up(arm: Mapping[int, Curve], control: Mapping[int, Curve]) -> SpeedUp | None:
    """Return how many times sooner `arm` reaches the last score of `control`, the seeds paired; less is better.

    Between steps that were scored curves are straight lines. A score that is there at the first
    step already gives a ratio that is too small, not too large.
    """
    seeds = [seed for seed in control if seed in arm]
    if not seeds:
        return None
    last = control[seeds[0]][-1][0]
    reached = [first_below(arm[seed], control[seed][-1][1]) for seed in seeds]
    return SpeedUp(tuple(None if step is None else last / step for step in reached), last)


def first_below(curve: Curve, target: float) -> float | None:
    """Return the step at which `curve` first comes down to `target`; None if it does not.

    Example:
        >>> first_below([(100, 9.0), (200, 5.0), (300, 4.0)], 7.0)
        150.0
    """
    if curve[0][1] <= target:
        return float(curve[0][0])
    for (before, high), (after, low) in pairwise(curve):
        if low <= target:
            return before + (after - before) * (high - target) / (high - low)
    return None
