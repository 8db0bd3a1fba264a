"""Results that tests left behind: metrics.json, checked, and names that tell several apart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eqzoo.report.charts import check_curve

_FILE = 'metrics.json'


class Result(NamedTuple):
    """What a metrics.json holds.

    Args:
        path: Of the file.
        metrics: By name; None where the value is no number.
        cases: The same of single cases.
        curves: As the report draws them.
        card: How the numbers were measured.
    """

    path: Path
    metrics: dict[str, float | None]
    cases: dict[str, float | None]
    curves: list[dict[str, Any]]
    card: dict[str, Any]


def read_result(path: str | Path) -> Result:
    """Read a metrics.json, or the one in a work directory.

    Raises:
        ValueError: If there is none, if it is not JSON, or not what tools/test.py writes.
        OSError: If it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = path / _FILE
    if not path.exists():
        raise ValueError(
            f'{path} does not exist; accepted are metrics.json files and folders with one. '
            'Run tools/test.py on what is to be compared.'
        )
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f'{path} is not JSON ({error}); accepted are metrics.json files of tools/test.py.') from error
    lack = _lack(content)
    if lack:
        raise ValueError(f'{path} is no metrics file: {lack} Accepted are metrics.json files of tools/test.py.')
    return Result(path, content['metrics'], content.get('cases', {}), content.get('curves', []), content['card'])


def _lack(content: Any) -> str:
    """Say what keeps `content` from being a result; '' if nothing does."""
    if not isinstance(content, dict) or 'metrics' not in content or 'card' not in content:
        return 'it has no metrics with their card.'
    for part in ('metrics', 'cases'):
        values = content.get(part, {})
        if not isinstance(values, dict):
            return f'its {part} are no numbers by name.'
        for name, value in values.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                return f'{part}[{name!r}] is {value!r}, no number.'
    card = content['card']
    evaluators = card.get('evaluators') if isinstance(card, dict) else None
    if not isinstance(evaluators, dict) or not all(isinstance(each, dict) for each in evaluators.values()):
        return 'its card names no evaluators.'
    if not isinstance(content.get('curves', []), list):
        return 'its curves are no list.'
    try:
        for curve in content.get('curves', []):
            check_curve(curve)
    except ValueError as error:
        return str(error)
    return ''


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return what to call the results at `paths`: as much of each one's folder as tells it from the others.

    Example:
        >>> run_names([Path('runs/plain/metrics.json'), Path('runs/eq/metrics.json')])
        ['plain', 'eq']
        >>> run_names([Path('/a/test/metrics.json'), Path('/b/test/metrics.json'), Path('/b/test/metrics.json')])
        ['a/test', 'b/test', 'b/test #2']
    """
    parts = [_parts(path) for path in paths]
    different = len(set(parts))
    count = next(count for count in range(1, 1000) if len({each[-count:] for each in parts}) == different)
    names = [printable('/'.join(each[-count:])) for each in parts]
    times = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if time == 1 else f'{name} #{time}' for name, time in zip(names, times, strict=True)]


def printable(text: str) -> str:
    """Spell out what no encoding has: the lone surrogates that stand for stray bytes of file names."""
    return text.encode('utf-8', 'backslashreplace').decode()


def _parts(path: Path) -> tuple[str, ...]:
    """Return the words of a result's name: its folders, and its own if it is not metrics.json."""
    path = path.absolute()
    folders = path.parent.parts[1:]
    return folders if folders and path.name == _FILE else (*folders, path.stem)
