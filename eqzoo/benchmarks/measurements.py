"""Files of measurements: one JSON form for all benchmarks, and the ratios of two such files side by side.

A file has `form` (`FORM`), `benchmark` (its name), `settings` (the options that it ran with), `machine` and `rows`.
Seconds and bytes of two machines, or of two hours on one, cannot be compared; ratios to what was measured in the same
run can.
"""

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from eqzoo.files import write_json

FORM = 'eqzoo benchmark 1'

_OUT_HELP = '        out: A JSON file to write, for tools/benchmark.py compare.\n    '


class Row(NamedTuple):
    """A row of a benchmark's table.

    Args:
        name: Its name, which no other row of the benchmark has.
        ratios: Costs (seconds, bytes, calls) over those of a reference that was measured in the same run, by name:
            smaller is better, 1 is as the reference.
        values: All other numbers and words, for reading; they are not compared.
    """

    name: str
    ratios: Mapping[str, float]
    values: Mapping[str, Any] = {}


class Measurements(NamedTuple):
    """The content of a file of measurements."""

    benchmark: str
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    rows: Sequence[Row]


class RatioChange(NamedTuple):
    """A ratio in two files of the same benchmark; None where a file does not have it."""

    row: str
    ratio: str
    old: float | None
    new: float | None

    @property
    def factor(self) -> float | None:
        """The new ratio over the old one: above 1 it became worse; None if a file does not have it."""
        return None if self.old is None or self.new is None else self.new / self.old


def write_measurements(path: str | Path, benchmark: str, settings: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write the rows of a benchmark and a description of the machine as JSON, atomically.

    A benchmark that can be continued writes after each row, and reads the file with `read_measurements`.

    Args:
        path: The file.
        benchmark: The name of the benchmark, as on the command line.
        settings: The options that the numbers depend on, by name.
        rows: The rows of its table.

    Raises:
        ValueError: If two rows have one name, or a ratio is no positive finite number.
    """
    from eqzoo.machine import hardware  # here: reading needs no torch

    names = [row.name for row in rows]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f'{path}: two rows are called {twice[0]!r}; expected one.')
    for row in rows:
        for name, ratio in row.ratios.items():
            if not (math.isfinite(ratio) and ratio > 0):
                raise ValueError(f'{path}: {row.name}, {name}: expected a positive ratio, got {ratio}.')
    content = dict(form=FORM, benchmark=benchmark, settings=dict(settings), machine=hardware())
    write_json(path, content | dict(rows=[row._asdict() for row in rows]))


def read_measurements(path: str | Path) -> Measurements:
    """Read what `write_measurements` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another file.
    """
    remedy = 'expected what tools/benchmark.py BENCHMARK --out FILE.json writes'
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file; {remedy}.')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file ({error}); {remedy}.') from None
    form = content.get('form') if isinstance(content, dict) else None
    if form != FORM:
        raise ValueError(f'{path} has the form {form!r}, not {FORM!r}; {remedy}.')
    try:
        rows = [Row(str(row['name']), dict(row['ratios']), dict(row['values'])) for row in content['rows']]
        ratios = [ratio for row in rows for ratio in row.ratios.values()]
        if not all(isinstance(ratio, int | float) and 0 < ratio < math.inf for ratio in ratios):
            raise ValueError('a ratio is no positive number')
        return Measurements(content['benchmark'], dict(content['settings']), dict(content['machine']), rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path} is damaged ({type(error).__name__}: {error}); {remedy}.') from None


def compare_measurements(old: Measurements, new: Measurements) -> list[RatioChange]:
    """Return the ratios of both, in the order of `new`; those that only `old` has come last.

    Raises:
        ValueError: If they are of two benchmarks, or of one with other settings.
    """
    if old.benchmark != new.benchmark:
        raise ValueError(f'Two benchmarks: {old.benchmark} and {new.benchmark}; expected two files of one.')
    missing = object()
    for name in {**old.settings, **new.settings}:
        before, after = old.settings.get(name, missing), new.settings.get(name, missing)
        if before != after:
            texts = ['nothing' if each is missing else json.dumps(each) for each in (before, after)]
            raise ValueError(
                f'{new.benchmark} ran with other settings: {name} was {texts[0]} and is {texts[1]}; run it with '
                'those of the old file.'
            )
    before, after = (
        {(row.name, name): value for row in each.rows for name, value in row.ratios.items()} for each in (old, new)
    )
    return [RatioChange(*key, before.get(key), after.get(key)) for key in {**after, **before}]


def with_out(function: Callable[..., list[Row]]) -> Callable[..., list[Row]]:
    """Give a command the option `out`, the file that its rows are written to."""

    @wraps(function)
    def benchmark(*words: Any, out: str | None = None, **options: Any) -> list[Row]:
        rows = function(*words, **options)
        if out is not None:
            given = inspect.signature(function).bind(*words, **options)
            given.apply_defaults()
            write_measurements(out, function.__name__.replace('_', '-'), given.arguments, rows)
            print(f'Written: {out}')
        return rows

    signature = inspect.signature(function)
    option = inspect.Parameter('out', inspect.Parameter.KEYWORD_ONLY, default=None, annotation=str | None)
    benchmark.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
    benchmark.__doc__ = function.__doc__.rstrip() + '\n' + _OUT_HELP
    return benchmark


def time_rows(speeds: Mapping[str, float], ours: Iterable[str], others: Iterable[str]) -> list[Row]:
    """Return the time of each of `ours` over each of the other ways, of which `speeds` has images per second."""
    return [
        Row(f'{way} against {other}', {'time': speeds[other] / speeds[way]}, {way: speeds[way], other: speeds[other]})
        for way in ours
        for other in others
    ]


def print_speeds(speeds: Mapping[str, float], unit: str, *, width: int) -> None:
    """Print speeds by name, in a column of `width` characters for the names."""
    for name, speed in speeds.items():
        print(f'{name:<{width}}{speed:>10.3g} {unit}')
