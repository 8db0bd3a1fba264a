"""Scores of a study, one for each autoencoder, generator, step and seed, and their statistics over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from eqzoo.report.cards import differences
from eqzoo.report.results import Result, read_result
from eqzoo.studies.gates import Gatekeeper
from eqzoo.studies.plan import Gated, StudyPlan
from eqzoo.studies.study import Study

ScoreCurve = Sequence[tuple[int, float]]  # (step, score)


@dataclass(frozen=True)
class Score:
    """The metrics of one test.

    Args:
        autoencoder: Its name in the study.
        seed: The seed of fine-tuning, generator and samples.
        generator: The name of the generator whose samples were tested; None for the autoencoder itself.
        step: The generator's training step.
        metrics: By name.
        card: How they were measured.
    """

    autoencoder: str
    seed: int
    generator: str | None
    step: int | None
    metrics: Mapping[str, float | None]
    card: Mapping[str, Any]


def collect_scores(study: Study, plan: StudyPlan, seeds: Sequence[int], keeper: Gatekeeper) -> list[Score]:
    """Return all scores that are there and that the gates admit, autoencoders first, in the study's order.

    Raises:
        ValueError: If two values that a table compares were measured differently.
    """
    found: list[Score] = []
    for name, arm in study.autoencoders.items():
        for seed in arm.seeds_of(seeds):
            test = plan.measured[name, seed]
            if keeper.is_open(Gated('start', name, seed)) and test.record() is not None:
                found.append(_read_score(test.folder, name, seed))
    for arm, generator in study.pairs():
        for step in plan.steps.get(generator.name, ()):
            for seed in arm.seeds_of(seeds):
                test = plan.scored[generator.name, arm.name, seed, step]
                if keeper.is_open(Gated('arm', arm.name, seed)) and test.record() is not None:
                    found.append(_read_score(test.folder, arm.name, seed, generator.name, step))
    _check_cards(study, found)
    return found


def _read_score(
    folder: Path, autoencoder: str, seed: int, generator: str | None = None, step: int | None = None
) -> Score:
    result = read_result(folder)
    return Score(autoencoder, seed, generator, step, result.metrics, result.card)


def _check_cards(study: Study, scores: Iterable[Score]) -> None:
    """Compare each card with the first one of its kind, for every metric that tables compare."""
    compared = {
        'autoencoder': {*study.columns['autoencoder'], *study.predictors},
        'generator': {*study.columns['generator'], study.score, *([study.criterion.metric] if study.criterion else [])},
    }
    first: dict[tuple[str | None, str], tuple[str, Result]] = {}
    for score in scores:
        result = Result(None, score.metrics, {}, [], score.card)
        name = f'{score.generator or "test"} of {score.autoencoder}, seed {score.seed}'
        # in the metrics' order
        for metric in score.metrics:
            if metric not in compared['generator' if score.generator else 'autoencoder']:
                continue
            other, known = first.setdefault((score.generator, metric), (name, result))
            # the card's data include the seed of the samples, which differs on purpose
            unlike = [each for each in differences(metric, known, result) if not each.field.startswith('data.seed')]
            if unlike:
                raise ValueError(
                    f'{metric} was measured differently: {unlike[0].field} is {unlike[0].first} in {other} and '
                    f'{unlike[0].second} in {name}; change the configs so that all are measured in one way.'
                )


def steps_of(scores: Iterable[Score], generator: str) -> list[int]:
    """Return the steps after which a generator was tested."""
    return sorted({each.step for each in scores if each.generator == generator})


def by_seed(
    scores: Iterable[Score], metric: str, autoencoder: str, generator: str | None = None, step: int | None = None
) -> dict[int, float]:
    """Return a metric of one arm for each seed; NaN if the value is not a number."""
    return {
        each.seed: math.nan if each.metrics[metric] is None else each.metrics[metric]
        for each in scores
        if (each.autoencoder, each.generator, each.step) == (autoencoder, generator, step) and metric in each.metrics
    }


def score_curves(study: Study, scores: Sequence[Score], autoencoder: str, generator: str) -> dict[int, ScoreCurve]:
    """Return each seed's (step, score) of a generator on an autoencoder."""
    curves: dict[int, list] = {}
    for step in steps_of(scores, generator):
        for seed, value in by_seed(scores, study.score, autoencoder, generator, step).items():
            curves.setdefault(seed, []).append((step, value))
    return curves


class Spread(NamedTuple):
    """A mean over seeds, the standard deviation of one seed (n - 1), and the number of seeds."""

    mean: float
    std: float | None
    count: int


def spread(values: Iterable[float]) -> Spread | None:
    """Return mean and standard deviation of `values`; None if there are none, NaN if one is not finite.

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


class PairedDifference(NamedTuple):
    """The difference between two arms, seed by seed, and the number of seeds that have the sign of the mean."""

    spread: Spread
    agreeing: int


def paired_difference(arm: Mapping[int, float], control: Mapping[int, float]) -> PairedDifference | None:
    """Return the difference between an arm and its control, paired by seed; None if they share no seed.

    Example:
        >>> paired_difference({0: 2.0, 1: 3.5}, {0: 1.0, 1: 4.0})
        PairedDifference(spread=Spread(mean=0.25, std=1.0606601717798212, count=2), agreeing=1)
    """
    values = [arm[seed] - control[seed] for seed in arm if seed in control]
    found = spread(values)
    if found is None:
        return None
    return PairedDifference(found, sum(value * found.mean > 0 for value in values))


class SpeedUp(NamedTuple):
    """How many times sooner an arm reaches the control's last score.

    Args:
        ratios: One for each seed; None if the arm does not reach it within its steps.
        last: The control's last step.
        is_bound: Whether some seed reaches it by the first step that was scored, so that it may be faster still.
    """

    ratios: tuple[float | None, ...]
    last: int
    is_bound: bool = False


def speed_up(arm: Mapping[int, ScoreCurve], control: Mapping[int, ScoreCurve]) -> SpeedUp | None:
    """Return how many times sooner `arm` reaches the last score of `control`, paired by seed; lower scores are better.

    Curves are linear between the steps that were scored. A score that is reached by the first of
    these gives a lower bound of the ratio. Seeds whose control has no last score, or NaN, are left out.
    """
    last = max((curve[-1][0] for curve in control.values()), default=0)
    ends = {seed: curve[-1][1] for seed, curve in control.items() if curve[-1][0] == last}
    seeds = [seed for seed, end in ends.items() if seed in arm and math.isfinite(end)]
    if not seeds:
        return None
    curves = {seed: [each for each in arm[seed] if math.isfinite(each[1])] for seed in seeds}
    reached = [first_below(curves[seed], ends[seed]) for seed in seeds]
    is_bound = any(curve and curve[0][1] <= ends[seed] for seed, curve in curves.items())
    return SpeedUp(tuple(None if step is None else last / step for step in reached), last, is_bound)


def first_below(curve: ScoreCurve, target: float) -> float | None:
    """Return the step at which `curve` first falls to `target`; None if it does not.

    Example:
        >>> first_below([(100, 9.0), (200, 5.0), (300, 4.0)], 7.0)
        150.0
    """
    if curve and curve[0][1] <= target:
        return float(curve[0][0])
    for (before, high), (after, low) in pairwise(curve):
        if low <= target:
            return before + (after - before) * (high - target) / (high - low)
    return None
