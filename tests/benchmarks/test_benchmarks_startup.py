"""Start-up: CPU time of fresh processes, in turns, and the modules that they import."""

import subprocess
import sys
from functools import partial

import pytest

from eqzoo.benchmarks import startup
from eqzoo.benchmarks.startup import imported_modules, smoke_costs, startup_costs
from eqzoo.commands.benchmark.startup import startup as startup_command
from eqzoo.commands.cli import COMMANDS

BURN = 'import sys, time\nwhile time.process_time() < 0.3: pass\nopen(sys.argv[1], "w").write(str(time.process_time()))'


def test_the_cpu_time_is_that_of_the_process(tmp_path):
    words = [sys.executable, '-c', BURN, str(tmp_path / 'seconds')]
    measured = startup._cpu_seconds(partial(subprocess.run, words, check=True))
    reported = float((tmp_path / 'seconds').read_text())
    assert 0.3 <= reported <= measured + 0.02 < reported + 0.3  # with the start and the end of the interpreter


def test_the_modules_of_a_command_are_those_at_its_end(tmp_path):
    modules = imported_modules(['--version'], tmp_path)
    assert {'eqzoo', 'eqzoo.commands.cli', 'argparse'} - set(modules) == {'argparse'}
    assert 'argparse' in imported_modules(['compare', '--help'], tmp_path)
    with pytest.raises(RuntimeError, match='eqzoo trian ended with status 1'):
        imported_modules(['trian'], tmp_path)


def test_a_mistake_in_a_config_costs_no_import_that_reading_it_does_not_need(tmp_path):
    modules = set(imported_modules(['configs', 'configs/demo/plain.py', '--show'], tmp_path))
    assert {'mmengine.config.config', 'eqzoo.schema'} <= modules
    assert not {'torch', 'numpy', 'yapf', 'rich', 'urllib.request'} & modules


@pytest.fixture
def clock(monkeypatch):
    """Replace the measurement by a table of seconds, by a word of the command; return the order of the commands."""
    seconds = {'-c': iter([2.0, 4.0, 3.0]), '-m': iter([1.0, 0.3, 0.6])}
    order = []

    def cpu_seconds(run):
        order.append(run.args[0][0])
        return next(seconds[order[-1]])

    monkeypatch.setattr(startup, '_cpu_seconds', cpu_seconds)
    return order


def test_commands_and_the_other_side_take_turns_and_medians_count(clock, monkeypatch, tmp_path):
    assert startup_costs({'help': ['--help']}, 3) == {'help': (0.6, 0.6 / 3.0)}
    assert clock == ['-c', '-m'] * 3


def test_smoke_runs_are_compared_with_the_imports_of_their_modules(clock):
    assert list(smoke_costs({'version': ['--version']}, 3)) == [('version', 0.6, 0.6 / 3.0)]
    assert clock == ['-m', '-c'] * 3


def test_the_other_side_imports_the_same_modules(tmp_path):
    place, report = tmp_path / 'modules.json', tmp_path / 'report'
    place.write_text('["eqzoo.config", "wsgiref.headers", "no.such.module", "colorsys"]')
    script = f'{startup._IMPORTS}\nopen(sys.argv[2], "w").write(" ".join(sys.modules))'
    subprocess.run([sys.executable, '-c', script, str(place), str(report)], check=True, timeout=60)
    assert {'wsgiref.headers', 'colorsys', 'eqzoo.config'} & set(report.read_text().split()) == {
        'wsgiref.headers',
        'colorsys',
    }


def test_the_table_has_every_command(monkeypatch, capsys):
    monkeypatch.setattr(startup, 'startup_costs', lambda commands, rounds: dict.fromkeys(commands, (0.5, 0.2)))
    monkeypatch.setattr(startup, 'smoke_costs', lambda commands, rounds: [(name, 9.0, 1.5) for name in commands])
    rows = startup_command(rounds=1, smoke=True)
    names = [row.name for row in rows]
    assert {f'{name} --help' for name in COMMANDS} < set(names)
    assert len([name for name in names if name.startswith('smoke: ')]) == 5
    out = capsys.readouterr().out
    assert out.startswith('command ')
    assert 'a wrong key               0.50            0.20x\n' in out
    assert 'test, DiT                 9.00            1.50x\n' in out
