"""Preflight: check a config, and name everything that it lacks in one message, before anything runs.

Data sets are opened here, and only here: the run uses the opened ones. Opening an image folder lists
all its files, which takes minutes for millions of images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from eqzoo.config import KEYS, Config
from eqzoo.registry import MODELS, Requirement, build, check_config
from eqzoo.registry.ranges import Component, check_value
from eqzoo.schema import check_foreign, kind_of_key
from eqzoo.text import shell_word

# Keys of a config that hold components, in the order they are reported.
COMPONENT_KEYS = tuple(name for name, key in KEYS.items() if key.holds_components)


def check_training(config: Config, command: str, opened: Mapping[str, Dataset] | None = None) -> dict[str, Dataset]:
    """Check all names of a config, and that everything is there that training needs.

    See `check_ready` for arguments, returned value and errors.
    """
    check_value('model', Component, config.model)
    list(check_config(config.model, 'model', kind=MODELS))
    for key in COMPONENT_KEYS:
        list(check_config(config.get(key), key, kind=kind_of_key(config, key)))
    check_foreign(config)
    if config.get('val_dataloader') is not None and config.get('evaluators') is None:
        raise ValueError(
            f'{config.filename}: val_dataloader has images to validate on, and there are no evaluators; expected such '
            "as evaluators=[dict(type='ReconstructionMetric')], or val_dataloader=None."
        )
    return check_ready(config, command, [key for key in COMPONENT_KEYS if KEYS[key].is_for_training], opened)


def check_ready(
    config: Config,
    command: str,
    keys: Sequence[str] = COMPONENT_KEYS,
    opened: Mapping[str, Dataset] | None = None,
) -> dict[str, Dataset]:
    """Check that everything is there that the components under `keys` need.

    Args:
        config: The config.
        command: The command that was given, without options, for the message.
        keys: The keys of `config` to check.
        opened: Data sets that are open already, by their places in the config.

    Returns:
        The opened data sets, by their places in the config, such as 'train_dataloader.dataset'.

    Raises:
        ValueError: Naming everything that is missing; or for an unknown component, or an unknown or missing argument.
    """
    lacks, datasets = missing_and_opened(config, keys, opened)
    if lacks:
        # a component does not know the name of its config
        lacks = [
            (where, replace(each, remedy=each.remedy.replace(' CONFIG', f' {shell_word(config.filename)}')))
            for where, each in lacks
        ]
        closing = f'To see it work without them, on built-in data and a tiny network:\n   {command} --smoke'
        raise ValueError(missing_message(config.filename, lacks, closing))
    return datasets


def missing(config: Mapping[str, Any], keys: Sequence[str] = COMPONENT_KEYS) -> list[tuple[str, Requirement]]:
    """Return everything that the components under `keys` need and lack, each with its place in the config.

    Raises:
        ValueError: For an unknown component, or an unknown or missing argument.
    """
    return missing_and_opened(config, keys)[0]


def missing_and_opened(
    config: Mapping[str, Any], keys: Iterable[str], given: Mapping[str, Dataset] | None = None
) -> tuple[list[tuple[str, Requirement]], dict[str, Dataset]]:
    """Return what the components under `keys` lack, and the data sets that could be opened, by place.

    Args:
        config: The config.
        keys: The keys of `config` to check.
        given: Data sets that are open already, by place.

    Raises:
        ValueError: For an unknown component, or an unknown or missing argument.
    """
    given = given or {}
    lacks: list[tuple[str, Requirement]] = []
    datasets: dict[str, Dataset] = {}
    # a list: all names are checked before anything is opened
    for where, cls, arguments in [
        part for key in keys for part in check_config(config.get(key), key, kind=kind_of_key(config, key))
    ]:
        if where in given:
            datasets[where] = given[where]
        opened = any(f'{where}.'.startswith(f'{place}.') for place in datasets)  # itself, or as a part of another
        if not opened and isinstance(cls, type) and issubclass(cls, Dataset):
            try:
                datasets[where] = build(dict(type=cls, **arguments))
                opened = True
            except (OSError, ValueError):
                pass  # its requirements say why; a value that they do not look at is refused by the run's build
        # eqzoo's own data sets need nothing more than their constructors check; a user's may
        if opened and cls.__module__.startswith('eqzoo.'):
            continue
        lacks += [(where, requirement) for requirement in getattr(cls, 'requirements', lambda _: ())(arguments)]
    return lacks, datasets


def missing_message(name: str, lacks: Sequence[tuple[str, Requirement]], closing: str) -> str:
    """Return the message about everything missing, each with all its places.

    Args:
        name: Of what cannot run yet.
        lacks: As `missing` returns them.
        closing: The last lines: what to do.
    """
    merged: dict[Requirement, list[str]] = {}
    for where, requirement in lacks:
        merged.setdefault(requirement, []).append(where)
    lines = [f'{name} cannot run yet: {len(merged)} missing.']
    for number, (requirement, places) in enumerate(merged.items(), start=1):
        lines.append(f'\n{number}. {requirement.what}  ({", ".join(dict.fromkeys(places))})')
        lines.append(f'   looked for: {requirement.where}')
        lines += [f'   {line}' for line in requirement.remedy.splitlines()]
    return '\n'.join([*lines, f'\nRelative paths start at {Path.cwd()}.', closing])
