"""Studies as configs: a grid of autoencoders and generators, and the columns of its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eqzoo.config import find_config, read_config
from eqzoo.files import did_you_mean


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
    """

    name: str
    config: str
    start: str | None = None
    against: str | None = None
    change: Mapping[str, Any] = field(default_factory=dict)
    generators: tuple[str, ...] | None = None
    normalization: str | None = 'per_channel'


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
    """

    name: str
    title: str
    claim: str
    autoencoders: Mapping[str, AutoencoderArm]
    generators: Mapping[str, GeneratorArm]
    columns: Mapping[str, Sequence[str]]
    score: str | None
    data: str

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
    file = find_config(path)
    try:
        content = read_config(file)
    except (SyntaxError, ImportError, NameError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f'Study {path} cannot be read: {type(error).__name__}: {error}') from error
    if not isinstance(content.get('study'), Mapping):
        raise ValueError(
            f'{path} is not a study: it has no `study = dict(title=…, autoencoders=…)`, as configs/studies/*.py have; '
            'tools/train.py trains a single config.'
        )
    return _study(Path(path).stem, content['study'].to_dict(), str(path))


_KEYS = ('title', 'claim', 'size', 'data', 'autoencoders', 'generators', 'columns', 'score')


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
    for arm in generators.values():
        if not arm.scores or [*arm.scores] != sorted({*arm.scores}) or arm.scores[0] <= 0 or arm.scores[-1] != 1:
            raise ValueError(
                f'{where}: study.generators[{arm.name!r}].scores must be increasing shares of the training '
                f'that end at 1, such as (0.5, 1.0), got {arm.scores}.'
            )
    return Study(
        name=name,
        title=content['title'],
        claim=content.get('claim', ''),
        autoencoders=autoencoders,
        generators=generators,
        columns={kind: tuple(content.get('columns', {}).get(kind, ())) for kind in ('autoencoder', 'generator')},
        score=content.get('score'),
        data=content.get('data', ''),
    )


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
