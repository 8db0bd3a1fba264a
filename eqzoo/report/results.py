"""Results of tests: reading and checking metrics.json, and short names that tell several apart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eqzoo.report.charts import check_curve
from eqzoo.text import printable

_FILE = 'metrics.json'
_ENDINGS = ('.json', '.pth', '.pt', '.ckpt', '.safetensors', '.sft', '.bin')


class Result(NamedTuple):
    """The content of a metrics.json.

    Args:
        path: The file.
        metrics: By name; None for a value that is not a number.
        cases: The same for single cases.
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
        ValueError: If there is none, or if it is not a file that tools/test.py writes.
        OSError: If it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = path / _FILE
    if not path.exists():
        raise ValueError(
            f'{path} does not exist; expected a metrics.json file or a folder with one. Run tools/test.py to create it.'
        )
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f'{path} is not JSON ({error}); expected a metrics.json file of tools/test.py.') from error
    defect = _defect(content)
    if defect:
        raise ValueError(f'{path} is not a metrics file: {defect} Expected a metrics.json file of tools/test.py.')
    return Result(path, content['metrics'], content.get('cases', {}), content.get('curves', []), content['card'])


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each of the results at `paths`: the shortest ends of their folders that are all different.

    Example:
        >>> run_names([Path('runs/plain/metrics.json'), Path('runs/eq/metrics.json')])
        ['plain', 'eq']
        >>> run_names([Path('/a/test/metrics.json'), Path('/b/test/metrics.json'), Path('/b/test/metrics.json')])
        ['a/test', 'b/test', 'b/test #2']
    """
    parts = [_name_parts(path) for path in paths]
    different = len(set(parts))
    count = next(count for count in range(1, 1000) if len({each[-count:] for each in parts}) == different)
    names = [printable('/'.join(each[-count:])) for each in parts]
    times = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [name if time == 1 else f'{name} #{time}' for name, time in zip(names, times, strict=True)]


def _defect(content: Any) -> str:
    """Return why `content` is not a result, or ''."""
    if not isinstance(content, dict) or 'metrics' not in content or 'card' not in content:
        return 'it has no metrics with their card.'
    for part in ('metrics', 'cases'):
        values = content.get(part, {})
        if not isinstance(values, dict):
            return f'its {part} are not numbers by name.'
        for name, value in values.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                return f'{part}[{name!r}] is {value!r}, which is not a number.'
    card = content['card']
    evaluators = card.get('evaluators') if isinstance(card, dict) else None
    if not isinstance(evaluators, dict) or not all(isinstance(each, dict) for each in evaluators.values()):
        return 'its card names no evaluators.'
    if not isinstance(content.get('curves', []), list):
        return 'its curves are not a list.'
    try:
        for curve in content.get('curves', []):
            check_curve(curve)
    except ValueError as error:
        return str(error)
    return ''


def _name_parts(path: Path) -> tuple[str, ...]:
    """Return the folders of a result, and its own name unless it is metrics.json."""
    path = path.absolute()
    folders = path.parent.parts[1:]
    name = path.stem if path.suffix.lower() in _ENDINGS else path.name  # FLUX.1-dev has no ending
    return folders if folders and path.name == _FILE else (*folders, name)
