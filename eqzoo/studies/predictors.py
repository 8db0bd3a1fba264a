"""How well metrics of autoencoders predicted the scores of generators: Spearman's rank correlation."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from scipy.stats import spearmanr

from eqzoo.studies.scores import Score, by_seed, steps_of
from eqzoo.studies.study import Study

MIN_POINTS = 4  # three points are in the expected order in one case of six

_RECONSTRUCTIONS = '/reconstructions'

Points = Mapping[str, Mapping[int, tuple[float, float]]]  # (predictor, score) by autoencoder and seed


class Prediction(NamedTuple):
    """A predictor beside a score of a generator.

    Args:
        predictor: The metric of the autoencoder's test.
        generator: The name of the generator.
        score: The metric of its samples, after its last step; lower is better.
        points: For each autoencoder and seed that have both as finite numbers.
    """

    predictor: str
    generator: str
    score: str
    points: Points

    def over_seeds(self) -> 'Correlation':
        """Return the correlation over all points: each seed of each autoencoder."""
        return rank_correlation(point for arm in self.points.values() for point in arm.values())

    def over_arms(self) -> 'Correlation':
        """Return the correlation over autoencoders, each with its means over seeds."""
        return rank_correlation(arm_means(self.points).values())

    def as_json(self) -> dict[str, Any]:
        """Return the correlations in JSON types, which have no NaN; the points are the study's scores."""
        found = {
            name: {'spearman': None if each.value is None or math.isnan(each.value) else each.value, 'n': each.count}
            for name, each in (('over_arms', self.over_arms()), ('over_arms_and_seeds', self.over_seeds()))
        }
        return {'predictor': self.predictor, 'generator': self.generator, 'score': self.score, **found}


class Correlation(NamedTuple):
    """Spearman's rank correlation of `count` points: None of fewer than `MIN_POINTS`, NaN if one side is constant."""

    value: float | None
    count: int


def rank_correlation(points: Iterable[tuple[float, float]]) -> Correlation:
    """Return Spearman's rank correlation; ties have the mean of their ranks.

    Example:
        >>> found = rank_correlation([(0.1, 10.0), (0.2, 11.0), (0.3, 30.0), (0.4, 20.0)])
        >>> round(found.value, 6), found.count
        (0.8, 4)
    """
    points = [*points]
    if len(points) < MIN_POINTS:
        return Correlation(None, len(points))
    sides = [*zip(*points, strict=True)]
    if any(len({*side}) == 1 for side in sides):
        return Correlation(math.nan, len(points))
    return Correlation(float(spearmanr(*sides).statistic), len(points))


def arm_means(points: Points) -> dict[str, tuple[float, float]]:
    """Return each autoencoder's means over seeds of predictor and score."""
    return {name: tuple(map(fmean, zip(*arm.values(), strict=True))) for name, arm in points.items() if arm}


def predictions(study: Study, scores: Sequence[Score]) -> list[Prediction]:
    """Return each of the study's predictors that was measured, beside each generator's score.

    The score is compared with images and, where it was measured, with the autoencoder's reconstructions of them.
    """
    if study.score is None:
        return []
    measured = {name for each in scores for name in each.metrics}
    to_images = study.score.removesuffix(_RECONSTRUCTIONS)
    return [
        Prediction(predictor, generator, score, _points(study, scores, predictor, generator, score))
        for predictor in study.predictors
        for generator in study.generators
        for score in (to_images, f'{to_images}{_RECONSTRUCTIONS}')
        if {predictor, score} <= measured
    ]


def _points(study: Study, scores: Sequence[Score], predictor: str, generator: str, score: str) -> Points:
    last = steps_of(scores, generator)[-1:]
    points = {}
    for name in study.autoencoders if last else ():
        sides = by_seed(scores, predictor, name), by_seed(scores, score, name, generator, last[0])
        both = {seed: (sides[0][seed], sides[1][seed]) for seed in sides[0] if seed in sides[1]}
        points[name] = {seed: pair for seed, pair in both.items() if all(map(math.isfinite, pair))}
    return points
