"""Benchmark of start-up: CPU time of fresh processes beside those that import torch, or what a smoke run uses."""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import eqzoo

_TORCH = ('-c', 'import torch')

# Of a process that ends, the modules that it has imported.
_RECORDED = """
import atexit, json, sys
place = sys.argv.pop(1)
atexit.register(lambda: open(place, 'w').write(json.dumps(list(sys.modules))))
from eqzoo.commands.cli import main
main()
"""

# The same modules again, without eqzoo. Not all names can be imported: some modules are made in memory.
_IMPORTS = """
import json, sys, warnings
from contextlib import suppress
from importlib import import_module
warnings.simplefilter('ignore')
for name in json.load(open(sys.argv[1])):
    if name.partition('.')[0] not in ('eqzoo', '__main__', '__mp_main__'):
        with suppress(Exception):
            import_module(name)
"""


def startup_costs(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the CPU seconds of each command, and their ratio to those of a process that imports torch.

    Processes take turns; medians count. How a command ends is not looked at.

    Args:
        commands: By name, the words after `eqzoo`.
        rounds: Processes of each.
    """
    ways = {name: ('-m', 'eqzoo', *words) for name, words in commands.items()}
    with tempfile.TemporaryDirectory() as folder:
        seconds = _alternate({_TORCH: _TORCH, **ways}, rounds, folder)
    return {name: (seconds[name], seconds[name] / seconds[_TORCH]) for name in commands}


def smoke_costs(commands: Mapping[str, Sequence[str]], rounds: int) -> Iterator[tuple[str, float, float]]:
    """Yield names and the same of smoke runs, with the ratio to processes that import what they use of other packages.

    Raises:
        RuntimeError: If a command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, words in commands.items():
            modules = Path(folder) / 'modules.json'
            modules.write_text(json.dumps(imported_modules(words, folder)))
            ways = {'ours': ('-m', 'eqzoo', *words), 'imports': ('-c', _IMPORTS, str(modules))}
            seconds = _alternate(ways, rounds, folder)
            yield name, seconds['ours'], seconds['ours'] / seconds['imports']


def imported_modules(words: Sequence[str], folder: str | Path) -> list[str]:
    """Return the names of all modules that a fresh process has at the end of a command, in the order of their import.

    Args:
        words: After `eqzoo`.
        folder: The folder that it runs in.

    Raises:
        RuntimeError: If the command fails.
    """
    place = Path(folder) / 'imported.json'
    if status := _run(('-c', _RECORDED, str(place), *words), folder).returncode:
        raise RuntimeError(f'startup: eqzoo {" ".join(words)} ended with status {status}.')
    return json.loads(place.read_text())


def _alternate(ways: Mapping[Hashable, Sequence[str]], rounds: int, folder: str) -> dict[Hashable, float]:
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, words in ways.items():
            seconds[name].append(_cpu_seconds(partial(_run, words, folder)))
    return {name: statistics.median(each) for name, each in seconds.items()}


def _cpu_seconds(run: partial) -> float:
    """Return the CPU time, of user and system, of the processes that `run` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _run(words: Sequence[str], folder: str | Path) -> subprocess.CompletedProcess:
    paths = [str(Path(eqzoo.__file__).parents[1]), os.environ.get('PYTHONPATH', '')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=False, **quiet)
