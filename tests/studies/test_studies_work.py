"""How long a study is said to take."""

from pathlib import Path

import pytest

from eqzoo.studies.stages import Command, Stage, _Pace


def stage(tool, config, number=0):
    return Stage(f'{tool} {number}', Path(f'{tool}-{number}'), (Command(tool, (config, f'{number}.pth')),))


def test_what_is_left_is_reckoned_by_kind():
    """A long start says nothing of a hundred short tests."""
    pace = _Pace()
    pace.add(stage('train', 'start.py'), 1000)
    tests = [stage('test', 'dit.py', number) for number in range(100)]
    pace.add(tests[0], 8)
    pace.add(tests[1], 12)
    assert pace.seconds_left(tests[2:], []) == pytest.approx(98 * 10)
    assert pace.seconds_left([], [tests[2]]) == pytest.approx(5)
    # one kind of which nothing is known yet: the mean of 1000 and 10
    assert pace.seconds_left([stage('train', 'dit.py')], []) == pytest.approx(505)
