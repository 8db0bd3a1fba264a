"""The criterion of a study: written down before the run, and judged after it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import pairwise
from math import comb
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eqzoo.config import find_config
from eqzoo.files import did_you_mean, write_json
from eqzoo.studies.scores import Score, by_seed, steps_of
from eqzoo.studies.study import Criterion, Study


class Judgement(NamedTuple):
    """Whether an autoencoder meets the criterion.

    Args:
        autoencoder: Its name.
        differences: The autoencoder's score minus the control's, by seed, in those of the criterion's seeds that
            have both.
        agreeing: The number of these in which it is better. Equal scores and NaN are not better.
        verdict: 'not decidable' if seeds are missing that would decide.
        chance: The probability of as many agreeing seeds or more if both signs are equally likely: a one-sided
            sign test. 2^-n if all n agree.
    """

    autoencoder: str
    differences: Mapping[int, float]
    agreeing: int
    verdict: Literal['met', 'not met', 'not decidable']
    chance: float

    def as_json(self) -> dict[str, Any]:
        """Return the same in JSON types, which have no NaN."""
        differences = {seed: each if math.isfinite(each) else None for seed, each in self.differences.items()}
        return {**self._asdict(), 'differences': differences}


def judge(study: Study, scores: Sequence[Score], seeds: Sequence[int]) -> list[Judgement]:
    """Judge every autoencoder with a control that the criterion's generator is trained on.

    Args:
        study: With a criterion.
        scores: Of all tests.
        seeds: Of the study; the criterion is about the first `of_seeds` of them.
    """
    criterion = study.criterion
    last = steps_of(scores, criterion.of)[-1:]
    found = []
    for autoencoder, generator in study.pairs():
        if generator.name != criterion.of or autoencoder.against is None:
            continue
        arm, control = (
            by_seed(scores, criterion.metric, name, criterion.of, last[0]) if last else {}
            for name in (autoencoder.name, autoencoder.against)
        )
        asked = [seed for seed in seeds[: criterion.of_seeds] if seed in arm and seed in control]
        differences = {seed: arm[seed] - control[seed] for seed in asked}
        found.append(_judgement(criterion, autoencoder.name, differences))
    return found


def _judgement(criterion: Criterion, name: str, differences: Mapping[int, float]) -> Judgement:
    sign = -1 if criterion.better == 'lower' else 1
    agreeing, count = sum(sign * each > 0 for each in differences.values()), len(differences)
    verdict = 'not decidable'
    if agreeing >= criterion.seeds_agreeing:
        verdict = 'met'
    elif agreeing + criterion.of_seeds - count < criterion.seeds_agreeing:  # not even if all others agreed
        verdict = 'not met'
    return Judgement(name, differences, agreeing, verdict, sign_test(agreeing, count))


def sign_test(agreeing: int, count: int) -> float:
    """Return the probability of `agreeing` or more heads in `count` tosses of a coin.

    Example:
        >>> sign_test(5, 5), sign_test(4, 5)
        (0.03125, 0.1875)
    """
    return sum(comb(count, heads) for heads in range(agreeing, count + 1)) / 2**count


def write_down(study: Study, config_file: str, file: Path, overrides: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Add a study's config, overrides, criterion and gates with the date to the record in `file`, unless it has them.

    Called before the first stage, so that a reader of the results sees what was decided before, and what was changed.

    Returns:
        The record: an entry for each version of the config, with `date`, `criterion`, `gates`, `first_seed`,
        `config`, its text, and `overrides`.
    """
    entries = read_record(file)
    entry = {
        'criterion': None if study.criterion is None else asdict(study.criterion),
        'gates': {name: asdict(gate) for name, gate in study.gates.items()},
        'first_seed': study.first_seed,
        'config': find_config(config_file).read_text(),
        'overrides': [*overrides],
    }
    # eqzoo has not always written all of it down
    last = {'overrides': [], 'first_seed': study.first_seed, **entries[-1]} if entries else {}
    if {key: last.get(key) for key in entry} != entry:
        entries.append({'date': datetime.now(timezone.utc).isoformat(timespec='seconds'), **entry})
        write_json(file, entries)
    return entries


def read_record(file: Path) -> list[dict[str, Any]]:
    """Return the record of `write_down`; empty if there is none."""
    try:
        found = json.loads(file.read_text())
    except (OSError, json.JSONDecodeError):  # a mark without content, as eqzoo wrote before it had criteria
        return []
    return found if isinstance(found, list) else []


def date_of_criterion(record: Sequence[Mapping[str, Any]]) -> str | None:
    """Return when the last criterion of a record was written down, with the seeds; None if the record is empty."""
    found = None
    for entry in reversed(record):
        last = record[-1]
        if entry['criterion'] != last['criterion'] or _changed('first_seed', entry, last):
            break
        found = entry['date']
    return found


def criterion_lines(study: Study, scores: Sequence[Score]) -> list[str]:
    """Return the criterion's words verbatim, and how it is decided."""
    criterion = study.criterion
    chance = sign_test(criterion.seeds_agreeing, criterion.of_seeds)
    decided = (
        f"Decided by: `{criterion.metric}` of {criterion.of} is {criterion.better} than on the control's latents in at "
        f'least {criterion.seeds_agreeing} of the first {criterion.of_seeds} seeds'
        f'{study.which_seeds(criterion.of_seeds)}. For one autoencoder the chance of that is {chance:.2g} if both '
        'signs are equally likely (a one-sided sign test).'
    )
    lines = [f'> {criterion.words}', '', decided]
    measured = dict.fromkeys(name for each in scores if each.generator == criterion.of for name in each.metrics)
    if measured and criterion.metric not in measured:
        hint = did_you_mean(criterion.metric, measured)
        lines += ['', f'**No test of {criterion.of} has this metric.**{hint} They have: {", ".join(measured)}.']
    return lines


def changes_since(record: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each version of criterion, gates or first seed in a record that was replaced by another one."""
    lines = []
    for before, after in pairwise(record):
        for key in ('criterion', 'gates', 'first_seed'):
            if _changed(key, before, after):
                lines.append(f'- {key} changed on {after["date"]}; before: `{json.dumps(before.get(key))}`')
    return lines


def _changed(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether two entries differ; eqzoo has not always written `first_seed` down, which says nothing."""
    is_known = key != 'first_seed' or (key in before and key in after)
    return is_known and before.get(key) != after.get(key)
