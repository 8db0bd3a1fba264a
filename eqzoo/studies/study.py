"""Studies as configs: a grid of autoencoders and generators, gates and a criterion, and the columns of its tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eqzoo.config import find_config, read_config
from eqzoo.files import did_you_mean
from eqzoo.report.table import better


@dataclass(frozen=True)
class AutoencoderArm:
    """An autoencoder of the grid: fine-tuned from a start, one for each seed, or trained from scratch.

    Args:
        name: Its name in tables.
        config: The config of its training.
        start: The config that trains its start, once for each seed; None if `config` names weights
            itself, or uses none.
        against: The autoencoder that it is compared with; None for a control.
        change: Keys of `config` and their values.
        generators: The study's generators that are trained on it; None for all.
        normalization: How latents are normalised for generators; None for codes, which are not.
        seeds: The number of the study's first seeds that it is run with, at most; None for all.
    """

    name: str
    config: str
    start: str | None = None
    against: str | None = None
    change: Mapping[str, Any] = field(default_factory=dict)
    generators: tuple[str, ...] | None = None
    normalization: str | None = 'per_channel'
    seeds: int | None = None

    def seeds_of(self, seeds: Sequence[int]) -> Sequence[int]:
        """Return those of the study's seeds that this autoencoder is run with."""
        return seeds[: self.seeds]


@dataclass(frozen=True)
class GeneratorArm:
    """A generator of the grid, trained on each autoencoder's latents.

    Args:
        name: Its name in tables.
        config: Its config; the study sets `model.autoencoder` and the latent store.
        scores: The shares of its training after which it is tested; the last one is 1.
        change: Keys of `config` and their values.
    """

    name: str
    config: str
    scores: tuple[float, ...] = (1.0,)
    change: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """A condition on a test, which an autoencoder has to meet before any generator is trained on it.

    Args:
        name: Its name in tables.
        metric: Of the test of an autoencoder.
        at_least: The smallest value that passes.
        at_most: The largest value that passes.
        to_control: Compare with the control: the 'difference' is the value minus the control's, the 'ratio' the
            value over the control's. Controls pass. None for the value itself.
        of: 'arm', the autoencoder after its training; or 'start', the one that fine-tuning starts from. If a start
            does not pass, nothing of its seed is run.
        stops: False for a gate that stops nothing, and is only reported.
    """

    name: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None
    to_control: Literal['difference', 'ratio'] | None = None
    of: Literal['arm', 'start'] = 'arm'
    stops: bool = True

    def compared(self, value: float, control: float | None) -> float:
        """Return the value that has limits: that of the metric, or its difference or ratio to the control's.

        Args:
            value: Of the metric; NaN if the test found no number.
            control: The control's; of no effect unless `to_control` is set.
        """
        if self.to_control is None:
            return value
        if self.to_control == 'difference':
            return value - control
        return value / control if control else math.nan

    def passes(self, compared: float) -> bool:
        """Return whether a compared value is within the limits, which belong to them; NaN is not.

        Example:
            >>> gate = Gate('reconstruction', 'psnr', at_least=-0.25, to_control='difference')
            >>> [gate.passes(gate.compared(value, 25.0)) for value in (24.8, 24.75, 24.7, math.nan)]
            [True, True, False, False]
        """
        above = self.at_least is None or compared >= self.at_least
        return above and (self.at_most is None or compared <= self.at_most) and math.isfinite(compared)


@dataclass(frozen=True)
class Criterion:
    """What counts as success, written down before the run: a generator's score is better than on the control's latents.

    Args:
        words: The criterion in a sentence; the report has it verbatim.
        metric: Of the generator's samples after its last step.
        of: The generator.
        better: Whether 'lower' or 'higher' values of the metric are better.
        seeds_agreeing: In so many of `of_seeds` seeds it has to be better. Equal values are not.
        of_seeds: The study's first seeds, on which it is decided; further ones change nothing.
    """

    words: str
    metric: str
    of: str
    better: Literal['lower', 'higher']
    seeds_agreeing: int
    of_seeds: int


@dataclass(frozen=True)
class Study:
    """A grid and its table.

    Args:
        name: The name of its config file.
        title: The title of its page.
        claim: The paper's claim, with the number of its table.
        autoencoders: By name, in the table's order.
        generators: By name, in the table's order.
        columns: The metrics that tables show, by 'autoencoder' and 'generator'; CSV and JSON have all metrics.
        score: The generators' metric whose curve and speed-up are shown; lower is better.
        data: The name of its images.
        gates: By name: conditions that autoencoders meet before generators are trained on them.
        criterion: What counts as success; None if the study asks for no decision.
        predictors: Metrics of autoencoders that are compared with the generators' scores, each with the direction
            that is expected to make a better generator: 'lower', 'higher' or ''.
        first_seed: The first of its seeds. A study that tests what another one suggested needs seeds of its own.
    """

    name: str
    title: str
    claim: str
    autoencoders: Mapping[str, AutoencoderArm]
    generators: Mapping[str, GeneratorArm]
    columns: Mapping[str, Sequence[str]]
    score: str | None
    data: str
    gates: Mapping[str, Gate] = field(default_factory=dict)
    criterion: Criterion | None = None
    predictors: Mapping[str, str] = field(default_factory=dict)
    first_seed: int = 0

    def seeds(self, count: int) -> range:
        """Return its first `count` seeds."""
        return range(self.first_seed, self.first_seed + count)

    def which_seeds(self, count: int) -> str:
        """Return in words which seeds its first `count` ones are, in brackets; '' if they begin with 0."""
        first, last = self.first_seed, self.first_seed + count - 1
        if first == 0:
            return ''
        return f' (seed {first})' if first == last else f' (seeds {first} to {last})'

    def pairs(self) -> list[tuple[AutoencoderArm, GeneratorArm]]:
        """Return which generators are trained on which autoencoders."""
        return [
            (autoencoder, generator)
            for generator in self.generators.values()
            for autoencoder in self.autoencoders.values()
            if autoencoder.generators is None or generator.name in autoencoder.generators
        ]


def load_study(path: str | Path) -> Study:
    """Read a study's config.

    Raises:
        ValueError: If it is missing or broken, or refers to an arm that does not exist.
    """
    content = read_config(find_config(path))
    if not isinstance(content.get('study'), Mapping):
        raise ValueError(
            f'{path} is not a study: it has no `study = dict(title=…, autoencoders=…)`, as configs/studies/*.py have; '
            'tools/train.py trains a single config.'
        )
    return _study(Path(path).stem, content['study'].to_dict(), str(path))


_KEYS = (
    *('title', 'claim', 'size', 'data', 'autoencoders', 'generators'),
    *('gates', 'criterion', 'predictors', 'columns', 'score', 'first_seed'),
)


def _study(name: str, content: dict[str, Any], where: str) -> Study:
    _check_keys(where, 'study', content, _KEYS)
    for key in ('title', 'autoencoders'):
        if not content.get(key):
            raise ValueError(f'{where}: study.{key} is missing; give one.')
    size = content.get('size', '')
    autoencoders = {
        each: _arm(AutoencoderArm, where, f'autoencoders[{each!r}]', each, _sized(arguments, size))
        for each, arguments in content['autoencoders'].items()
    }
    generators = {
        each: _arm(GeneratorArm, where, f'generators[{each!r}]', each, _sized(arguments, size))
        for each, arguments in content.get('generators', {}).items()
    }
    for arm in autoencoders.values():
        _check_name(f'{where}: study.autoencoders[{arm.name!r}].against', arm.against, autoencoders)
        for generator in arm.generators or ():
            _check_name(f'{where}: study.autoencoders[{arm.name!r}].generators', generator, generators)
        _check_seeds(f'{where}: study.autoencoders[{arm.name!r}].seeds', arm, autoencoders.get(arm.against))
    for arm in generators.values():
        if not arm.scores or [*arm.scores] != sorted({*arm.scores}) or arm.scores[0] <= 0 or arm.scores[-1] != 1:
            raise ValueError(
                f'{where}: study.generators[{arm.name!r}].scores must be increasing shares of the training '
                f'that end at 1, such as (0.5, 1.0), got {arm.scores}.'
            )
    first_seed = content.get('first_seed', 0)
    if not isinstance(first_seed, int) or isinstance(first_seed, bool) or first_seed < 0:
        raise ValueError(f'{where}: study.first_seed must be a whole number, 0 or more, got {first_seed!r}.')
    score = content.get('score')
    if score is not None and better(score) == 'higher':
        raise ValueError(
            f'{where}: study.score must be a metric whose lower values are better, such as a Fréchet distance, because '
            f"the speed-up is the step at which it falls to the control's; got {score!r}, of which higher values are "
            'better. Show that in columns.'
        )
    has_controls = any(arm.against is not None for arm in autoencoders.values())
    gates = content.get('gates') or {}
    if not isinstance(gates, Mapping) or not all(isinstance(each, Mapping) for each in gates.values()):
        raise ValueError(
            f'{where}: study.gates: expected conditions by name, such as '
            f"dict(sharp=dict(metric='psnr', at_least=25.0)), got {gates!r}."
        )
    return Study(
        name=name,
        title=content['title'],
        claim=content.get('claim', ''),
        autoencoders=autoencoders,
        generators=generators,
        columns={kind: tuple(content.get('columns', {}).get(kind, ())) for kind in ('autoencoder', 'generator')},
        score=score,
        data=content.get('data', ''),
        gates={each: _gate(where, each, arguments, has_controls) for each, arguments in gates.items()},
        criterion=_criterion(where, content.get('criterion'), generators, has_controls),
        predictors=_predictors(where, content.get('predictors') or ()),
        first_seed=first_seed,
    )


def _check_seeds(place: str, arm: AutoencoderArm, control: AutoencoderArm | None) -> None:
    if arm.seeds is not None and (not isinstance(arm.seeds, int) or arm.seeds < 1):
        raise ValueError(f'{place} must be a number of seeds, 1 or more, got {arm.seeds!r}.')
    limit = None if control is None else control.seeds
    if limit is not None and (arm.seeds is None or arm.seeds > limit):
        raise ValueError(
            f'{place} must be at most {limit}, the number of seeds of its control {control.name!r}: seeds are compared '
            f'in pairs; got {"all" if arm.seeds is None else arm.seeds}.'
        )


def _gate(where: str, name: str, arguments: Mapping[str, Any], has_controls: bool) -> Gate:
    place = f'study.gates[{name!r}]'
    _check_keys(where, place, arguments, tuple(each for each in Gate.__dataclass_fields__ if each != 'name'))
    if not arguments.get('metric'):
        raise ValueError(f"{where}: {place} has no metric; set one of an autoencoder's test, such as metric='psnr'.")
    gate, limits = Gate(name, **arguments), [arguments.get(key) for key in ('at_least', 'at_most')]
    stated = [each for each in limits if each is not None]
    if not stated or not all(_is_number(each) for each in stated) or stated != sorted(stated):
        raise ValueError(
            f'{where}: {place} must have at_least=NUMBER, at_most=NUMBER, or both in this order, got '
            f'at_least={gate.at_least!r}, at_most={gate.at_most!r}.'
        )
    _check_one_of(where, f'{place}.of', gate.of, ('arm', 'start'))
    _check_one_of(where, f'{place}.to_control', gate.to_control, (None, 'difference', 'ratio'))
    _check_one_of(where, f'{place}.stops', gate.stops, (True, False))
    if gate.to_control is not None and (gate.of == 'start' or not has_controls):
        raise ValueError(
            f'{where}: {place}.to_control: '
            + ('a start has no control' if gate.of == 'start' else 'no autoencoder has `against`, so there is none')
            + '; leave it out, and set limits of the value itself.'
        )
    return gate


def _criterion(where: str, given: Any, generators: Mapping[str, Any], has_controls: bool) -> Criterion | None:
    if given is None:
        return None
    fields = tuple(Criterion.__dataclass_fields__)
    if not isinstance(given, Mapping) or not {*fields} <= {*given}:
        lacking = ', '.join(key for key in fields if not isinstance(given, Mapping) or key not in given)
        raise ValueError(
            f"{where}: study.criterion lacks {lacking}; expected dict(words='…', metric='fd', of='DiT', "
            "better='lower', seeds_agreeing=5, of_seeds=5)."
        )
    _check_keys(where, 'study.criterion', given, fields)
    found = Criterion(**given)
    _check_name(f'{where}: study.criterion.of', found.of, generators)
    _check_one_of(where, 'study.criterion.better', found.better, ('lower', 'higher'))
    least, most = found.seeds_agreeing, found.of_seeds
    if not (isinstance(least, int) and isinstance(most, int) and 1 <= least <= most):
        raise ValueError(
            f'{where}: study.criterion.seeds_agreeing must be a number from 1 to of_seeds, got {least} of {most}.'
        )
    if not found.words or not has_controls:
        what = 'words must say it in a sentence' if not found.words else 'at least one autoencoder must have `against`'
        raise ValueError(f'{where}: study.criterion: {what}.')
    return found


def _predictors(where: str, given: Any) -> dict[str, str]:
    """Return the direction of each predictor: as given by name, otherwise that in which the metric is better."""
    if isinstance(given, str):
        raise ValueError(f'{where}: study.predictors must be names of metrics, such as ({given!r},), got {given!r}.')
    if not isinstance(given, Mapping):
        return {name: better(name) for name in given}
    for name, direction in given.items():
        _check_one_of(where, f'study.predictors[{name!r}]', direction, ('lower', 'higher'))
    return dict(given)


def _sized(arguments: Mapping[str, Any], size: str) -> dict[str, Any]:
    """Return an arm with `size` in place of `{size}` in the paths of its configs."""
    paths = {key: arguments[key].replace('{size}', size) for key in ('config', 'start') if arguments.get(key)}
    return {**arguments, **paths}


def _arm(cls: type, where: str, key: str, name: str, arguments: Mapping[str, Any]) -> Any:
    _check_keys(where, f'study.{key}', arguments, tuple(each for each in cls.__dataclass_fields__ if each != 'name'))
    if 'config' not in arguments:
        raise ValueError(f'{where}: study.{key} has no config; set config=PATH.')
    lists = {each: tuple(value) for each, value in arguments.items() if isinstance(value, list)}
    try:
        return cls(name=name, **{**arguments, **lists})
    except TypeError as error:
        raise ValueError(f'{where}: study.{key}: {error}') from error


def _check_keys(where: str, place: str, given: Mapping[str, Any], accepted: Sequence[str]) -> None:
    for key in given:
        if key not in accepted:
            hint = did_you_mean(key, accepted)
            raise ValueError(f'{where}: {place} has no key {key!r}.{hint} It has: {", ".join(accepted)}.')


def _check_name(where: str, name: str | None, known: Mapping[str, Any]) -> None:
    if name is not None and name not in known:
        hint = did_you_mean(name, known)
        raise ValueError(f'{where}: there is no {name!r}.{hint} There are: {", ".join(known)}.')


def _check_one_of(where: str, place: str, value: Any, accepted: Sequence[Any]) -> None:
    if value not in accepted:
        raise ValueError(f'{where}: {place} must be {" or ".join(map(repr, accepted))}, got {value!r}.')


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
