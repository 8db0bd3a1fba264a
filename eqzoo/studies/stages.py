"""Stages: commands that make one thing, once, whichever studies need it."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_RECORD = 'stage.json'


@dataclass(frozen=True)
class Command:
    """A command of eqzoo's, as a command line has it.

    Args:
        tool: Its name, such as 'train'.
        words: Positional arguments.
        options: By name, without dashes.
        overrides: `key=value` words.
    """

    tool: str
    words: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        options = [word for name, value in self.options for word in (f'--{name.replace("_", "-")}', str(value))]
        return shlex.join(
            ['python', '-m', 'eqzoo', self.tool.replace('_', '-'), *self.words, *options, *self.overrides]
        )


@dataclass(frozen=True)
class Stage:
    """Commands with one folder for what they make.

    Args:
        name: What it is, for people.
        folder: Its name ends in a digest of all that decides what is made there: two studies that
            need the same thing share it, and one whose config has changed is made anew.
        commands: In order.
        needs: Stages that have to be done before.
        resumable: Whether its commands go on where they were stopped; otherwise its folder is emptied first.
    """

    name: str
    folder: Path
    commands: tuple[Command, ...]
    needs: tuple['Stage', ...] = ()
    resumable: bool = False

    def record(self) -> dict[str, Any] | None:
        """Return what was noted when it was done; None if it is not."""
        try:
            return json.loads((self.folder / _RECORD).read_text())
        except (OSError, json.JSONDecodeError):
            return None

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Note that it is done."""
        temporary = self.folder / f'.{_RECORD}.tmp'
        temporary.write_text(json.dumps(record, indent=2) + '\n')
        temporary.replace(self.folder / _RECORD)


def digest(*parts: Any) -> str:
    """Return eight hexadecimal digits of anything made of plain data, classes and functions."""
    text = json.dumps(parts, sort_keys=True, default=_named)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def override(key: str, value: Any) -> str:
    """Return the word that sets `key`, as a command line has it."""
    return f'{key}={value!r}' if not isinstance(value, str) else f'{key}={value}'


def slug(name: str) -> str:
    """Return a name as part of a file's name.

    Example:
        >>> slug('KL + EQ, p = 0.3')
        'kl_eq_p_0.3'
    """
    kept = ''.join(letter if letter.isalnum() or letter == '.' else ' ' for letter in name.lower())
    return '_'.join(kept.split())


def _named(value: Any) -> Any:
    if callable(value) and hasattr(value, '__qualname__'):
        return f'{value.__module__}.{value.__qualname__}'
    if isinstance(value, tuple | set | frozenset):
        return sorted(value, key=str)
    return str(value)
