"""A GPU measured in minutes: parts in order of importance, a time budget, a file that is written after each part."""

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from eqzoo.benchmarks.measurements import Row, read_measurements, write_measurements

_NAME = 'gpu'
_FAILED = 'failed'
_MAX_REASON = 200  # characters of a failure's message


class Part(NamedTuple):
    """One measurement.

    Args:
        name: Of its row.
        seconds: What it takes on an H200 with building, warm-up and compilation, as estimated: it begins only if that
            much time is left.
        measure: Makes the row, given the rows before it by name.
    """

    name: str
    seconds: float
    measure: Callable[[Mapping[str, Row]], Row]


class Session(NamedTuple):
    """The results of a run so far.

    Args:
        rows: Of all parts that were measured or failed, in their order, earlier runs' included.
        left: Names of the parts for which there was no time.
    """

    rows: Sequence[Row]
    left: Sequence[str]


def run_parts(
    parts: Iterable[Part],
    *,
    minutes: float,
    settings: Mapping[str, Any],
    out: str | Path | None = None,
    resume: bool = False,
    say: Callable[[str], object] = print,
    clock: Callable[[], float] = time.monotonic,
) -> Session:
    """Measure parts in order until the time is over; write the file after each.

    A part that fails, by a lack of memory, a compiler or a kernel, gets a row that says so, and the next part runs.

    Args:
        parts: In the order of importance.
        minutes: Time budget. A part whose estimate is longer than what is left does not begin, nor does any after it.
        settings: The options that numbers depend on, for the file.
        out: The JSON file; None writes none.
        resume: Keep the rows of the file and measure what is not there; parts that failed are tried again.
        say: Prints a line.
        clock: Seconds from any origin.

    Raises:
        ValueError: If `out` exists and `resume` is not given, or it was written with other settings.
    """
    parts = list(parts)
    rows = _earlier_rows(out, settings, resume=resume)
    end = clock() + 60 * minutes
    say(header())
    for number, part in enumerate(parts):
        if part.name in rows and _FAILED not in rows[part.name].values:
            say(f'{line(rows[part.name])}  (of the file)')
            continue
        if clock() + part.seconds > end:
            left = [each.name for each in parts[number:] if each.name not in rows or _FAILED in rows[each.name].values]
            say(f'Time is over: {part.name} takes about {part.seconds:.0f} s. Left: {", ".join(left)}.')
            return Session(_in_order(rows, parts), left)
        started = clock()
        row = _measured(part, rows)
        rows[part.name] = row._replace(values={**row.values, 'took_s': round(clock() - started, 2)})
        say(line(rows[part.name]))
        if out is not None:
            write_measurements(out, _NAME, settings, _in_order(rows, parts))
    return Session(_in_order(rows, parts), [])


def _earlier_rows(out: str | Path | None, settings: Mapping[str, Any], *, resume: bool) -> dict[str, Row]:
    if out is None or not Path(out).exists():
        return {}
    if not resume:
        raise ValueError(f'--out: {out} already exists; give --resume to continue with it, or another file.')
    found = read_measurements(out)
    if found.benchmark != _NAME or dict(found.settings) != dict(settings):
        raise ValueError(
            f'--out: {out} is of {found.benchmark} with {dict(found.settings)}; expected {_NAME} with '
            f'{dict(settings)}; give another file.'
        )
    return {row.name: row for row in found.rows}


def _measured(part: Part, rows: Mapping[str, Row]) -> Row:
    try:
        return part.measure(rows)
    except Exception as error:  # every kind: minutes of a GPU are lost if the first surprise ends the run
        text = f'{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ""}'
        return Row(part.name, {}, {_FAILED: text[:_MAX_REASON]})
    finally:
        # Compiled code and the networks of a part would count in the memory of the next. (The error and its frames
        # are gone by now, too.)
        torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _in_order(rows: Mapping[str, Row], parts: Sequence[Part]) -> list[Row]:
    names = [part.name for part in parts if part.name in rows]
    return [rows[name] for name in (*names, *(name for name in rows if name not in names))]


_COLUMNS = (('runs/s', 9), ('images/s', 10), ('peak GiB', 10), ('TFLOP/s', 11), ('of peak', 9))


def header() -> str:
    """Return the head of the table that `line` fills."""
    return f'{"part":<44}' + ''.join(f'{title:>{width}}' for title, width in _COLUMNS)


def line(row: Row) -> str:
    """Return a row as a line of text: its numbers, its ratios to other rows, or why it failed."""
    if _FAILED in row.values:
        return f'{row.name:<44}  failed: {row.values[_FAILED]}'
    cells = ''.join(f'{cell:>{width}}' for cell, (_, width) in zip(_cells(row), _COLUMNS, strict=True))
    return f'{row.name:<44}{cells}{_times(row)}'


def _cells(row: Row) -> list[str]:
    values = row.values
    numbers = (
        f'{1 / values["median_s"]:.3g}' if 'median_s' in values else '',
        f'{values["images_per_s"]:.4g}' if 'images_per_s' in values else '',
        f'{values["peak_gib"]:.2f}' if 'peak_gib' in values else '',
        f'{values["flops"] / 1e12:.3g}' if 'flops' in values else '',
        f'{values["share"]:.1%}' if 'share' in values else '',
    )
    return list(numbers)


def _times(row: Row) -> str:
    return ''.join(f'  {1 / ratio:.2f}x {name}' for name, ratio in row.ratios.items() if name != 'peak')


class Target(NamedTuple):
    """A number to be reached.

    Args:
        text: What it is of.
        wanted: The least value.
        value: The best value among rows; None if none of them was measured.
    """

    text: str
    wanted: float
    value: Callable[[Mapping[str, Row]], float | None]


def times_of(prefix: str, ratio: str) -> Callable[[Mapping[str, Row]], float | None]:
    """Return a `Target.value`: the largest speed-up over `ratio` among rows whose names begin with `prefix`."""

    def value(rows: Mapping[str, Row]) -> float | None:
        found = [1 / row.ratios[ratio] for row in _beginning(rows, prefix) if ratio in row.ratios]
        return max(found, default=None)

    return value


def share_of(prefix: str) -> Callable[[Mapping[str, Row]], float | None]:
    """Return a `Target.value`: the largest share of the peak among rows whose names begin with `prefix`."""

    def value(rows: Mapping[str, Row]) -> float | None:
        return max((row.values['share'] for row in _beginning(rows, prefix) if 'share' in row.values), default=None)

    return value


def _beginning(rows: Mapping[str, Row], prefix: str) -> list[Row]:
    return [row for name, row in rows.items() if name.startswith(prefix)]


TARGETS = (
    Target("EQ step, times the released code's speed", 4.0, times_of('eq-step sd', 'released')),
    Target('DiT-XL/2 step, share of the bf16 peak', 0.45, share_of('step DiT')),
    Target('SiT-XL/2 step, share of the bf16 peak', 0.45, share_of('step SiT')),
    Target('REPA-XL/2 step, share of the bf16 peak', 0.45, share_of('step REPA')),
    Target('caching from JPEG files, times that of batch 1', 10.0, times_of('cache, files', 'batch 1')),
    Target('FID of JPEG files, share of the speed of the network alone', 0.9, times_of('fid, files', 'network')),
)


def target_lines(rows: Sequence[Row], targets: Sequence[Target] = TARGETS) -> list[str]:
    """Return a line for each target: its best value, and whether it is met."""
    by_name, lines = {row.name: row for row in rows}, []
    for target in targets:
        value = target.value(by_name)
        verdict = 'not measured' if value is None else 'met' if value >= target.wanted else 'NOT met'
        shown = '' if value is None else f'{value:.2f} '
        lines.append(f'{target.text}: {shown}(wanted {target.wanted:g}): {verdict}')
    return lines


def as_markdown(session: Session, machine: Mapping[str, Any]) -> str:
    """Return rows and targets as Markdown, for a page of the docs.

    Args:
        session: The run.
        machine: As `hardware()` describes it.
    """
    names = ('processor', 'cores', 'torch', 'python')
    titles = ('part', *(title for title, _ in _COLUMNS), 'compared')
    lines = [
        ', '.join([machine['gpu'] or 'no GPU', *(f'{name} {machine[name]}' for name in names)]) + ':',
        '',
        f'| {" | ".join(titles)} |',
        f'|{"---|" * len(titles)}',
    ]
    for row in session.rows:
        if _FAILED in row.values:
            cells = ['', '', '', '', '', f'failed: {row.values[_FAILED]}'.replace('|', '/')]
        else:
            cells = [*_cells(row), _times(row).strip()]
        lines.append(f'| {" | ".join([row.name, *cells])} |')
    lines += ['', *(f'- {text}' for text in target_lines(session.rows))]
    if session.left:
        lines += ['', f'There was no time for: {", ".join(session.left)}.']
    return '\n'.join(lines)
