"""What a run lacks, said before it starts and all at once."""

from collections.abc import Sequence
from pathlib import Path

from eqzoo.config import KEYS, Config
from eqzoo.registry import Requirement, check_config

# Keys of a config that hold components, in the order they are reported.
COMPONENT_KEYS = tuple(name for name, key in KEYS.items() if key.holds_components)


def missing_for_training(config: Config) -> list[tuple[str, Requirement]]:
    """Return what training lacks, each with its place in the config; all of the config is checked.

    Raises:
        ValueError: As `missing`.
    """
    missing(config)
    return missing(config, [key for key in COMPONENT_KEYS if KEYS[key].is_for_training])


def missing(config: Config, keys: Sequence[str] = COMPONENT_KEYS) -> list[tuple[str, Requirement]]:
    """Return what the components under `keys` lack, each with its place in the config.

    Raises:
        ValueError: For an unknown component, or an unknown or missing argument.
    """
    found = []
    for key in keys:
        for where, cls, arguments in check_config(config.get(key), key):
            for requirement in getattr(cls, 'requirements', lambda _: [])(arguments):
                found.append((where, requirement))
    return found


def report(config: Config, lacks: Sequence[tuple[str, Requirement]], command: str) -> str:
    """Write the one message for everything missing.

    Args:
        config: The config that cannot run.
        lacks: As `missing` returns it.
        command: The command that was given, without options.
    """
    merged: dict[Requirement, list[str]] = {}
    for where, requirement in lacks:
        merged.setdefault(requirement, []).append(where)
    lines = [f'{config.filename} cannot run yet: {len(merged)} missing.']
    for number, (requirement, places) in enumerate(merged.items(), start=1):
        lines.append(f'\n{number}. {requirement.what}  ({", ".join(places)})')
        lines.append(f'   looked for: {requirement.where}')
        # a component does not know which config it is in
        remedy = requirement.remedy.replace(' CONFIG', f' {config.filename}')
        lines += [f'   {line}' for line in remedy.splitlines()]
    lines.append(f'\nRelative paths start at {Path.cwd()}.')
    lines.append(f'To see it work without them, on built-in data and a tiny network:\n   {command} --smoke')
    return '\n'.join(lines)
