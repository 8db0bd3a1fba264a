"""What a study measured: one row for each autoencoder, generator, step and seed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eqzoo.report.cards import differences
from eqzoo.report.results import Result, read_result
from eqzoo.studies.plan import Plan
from eqzoo.studies.study import Study


@dataclass(frozen=True)
class Score:
    """A test's metrics, and of what.

    Args:
        autoencoder: Its name in the study.
        seed: Of fine-tuning, generator and samples.
        generator: Its name, where samples of one were measured; None for the autoencoder itself.
        step: Of the generator.
        metrics: By name.
        card: How they were measured.
    """

    autoencoder: str
    seed: int
    generator: str | None
    step: int | None
    metrics: Mapping[str, float | None]
    card: Mapping[str, Any]


def collect(study: Study, plan: Plan, seeds: Iterable[int]) -> list[Score]:
    """Return all that was measured, autoencoders first, in the study's order.

    Raises:
        ValueError: If two values that a table would put side by side were not measured alike.
    """
    seeds = list(seeds)
    found: list[Score] = []
    for name in study.autoencoders:
        found += [_score(plan.measured[name, seed].folder, name, seed) for seed in seeds]
    for autoencoder, generator in study.pairs():
        for step in plan.steps[generator.name]:
            for seed in seeds:
                folder = plan.scored[generator.name, autoencoder.name, seed, step].folder
                found.append(_score(folder, autoencoder.name, seed, generator.name, step))
    _refuse_unlike(study, found)
    return found


def steps_of(scores: Iterable[Score], generator: str) -> list[int]:
    """Return the steps after which a generator was measured."""
    return sorted({each.step for each in scores if each.generator == generator})


def _score(folder: Any, autoencoder: str, seed: int, generator: str | None = None, step: int | None = None) -> Score:
    result = read_result(folder)
    return Score(autoencoder, seed, generator, step, result.metrics, result.card)


def _refuse_unlike(study: Study, scores: Iterable[Score]) -> None:
    """Compare each card with the first one of its kind, for every metric that tables show."""
    first: dict[tuple[str | None, str], tuple[str, Result]] = {}
    for score in scores:
        result = Result(None, score.metrics, {}, [], score.card)
        name = f'{score.generator or "test"} of {score.autoencoder}, seed {score.seed}'
        for metric in study.columns['generator' if score.generator else 'autoencoder']:
            if metric not in score.metrics:
                continue
            other, known = first.setdefault((score.generator, metric), (name, result))
            # samples' labels, sampler and seed are the card's data; seeds differ on purpose
            unlike = [each for each in differences(metric, known, result) if not each.field.startswith('data.seed')]
            if unlike:
                raise ValueError(
                    f'{metric} was not measured alike: {unlike[0].field} is {unlike[0].first} in {other} and '
                    f'{unlike[0].second} in {name}; change the configs so that all are measured in one way.'
                )
