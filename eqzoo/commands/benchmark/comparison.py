"""The ratios in two files of a benchmark, side by side."""

import sys

from eqzoo.benchmarks.measurements import compare_measurements, read_measurements
from eqzoo.registry.ranges import NonNegativeFloat


def compare_files(old: str, new: str, *, tolerance: NonNegativeFloat = 0.1) -> None:
    """Compare the ratios in two files of a benchmark; the exit status is 1 if one of them became worse.

    A ratio is a cost divided by that of a reference in the same run. The command compares ratios, not seconds.

    Args:
        old: A file that a benchmark wrote with --out, such as that of the last release.
        new: A later one, of the same benchmark with the same options.
        tolerance: The relative increase of a ratio that is accepted.
    """
    before, after = read_measurements(old), read_measurements(new)
    changes = compare_measurements(before, after)
    if not changes:
        raise ValueError(f'{old} and {new} have no ratios; nothing can be compared.')
    for name in sorted({*before.machine, *after.machine}):
        values = before.machine.get(name), after.machine.get(name)
        if values[0] != values[1]:
            print(f'{name} differs: {values[0]}, then {values[1]}')
    width = max(len(f'{change.row}, {change.ratio}') for change in changes)
    print(f'{after.benchmark:<{width}}{"old":>9}{"new":>9}{"change":>9}')
    worse = 0
    for change in changes:
        old_cell, new_cell = ('-' if each is None else f'{each:.3f}' for each in (change.old, change.new))
        is_worse = change.new is None or (change.factor is not None and change.factor > 1 + tolerance)
        worse += is_worse
        cell = '-' if change.factor is None else f'{change.factor - 1:+.1%}'
        mark = '  not measured' if change.new is None else '  worse' if is_worse else ''
        print(f'{f"{change.row}, {change.ratio}":<{width}}{old_cell:>9}{new_cell:>9}{cell:>9}{mark}')
    if worse:
        sys.exit(f'error: {worse} of {len(changes)} ratios became worse by more than {tolerance:.0%}.')
    print(f'No ratio became worse by more than {tolerance:.0%}.')
