"""A study's stages: folders named by what decides them, and the workers that run them."""

import hashlib
import json
import multiprocessing
import os
import platform
import shlex
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from eqzoo import __version__
from eqzoo.commands.cache_latents import cache_latents
from eqzoo.commands.convert import convert
from eqzoo.commands.latent_stats import latent_stats
from eqzoo.commands.reference import reference
from eqzoo.commands.test import test
from eqzoo.commands.train import train

_PACKAGES = ('torch', 'torchvision', 'diffusers', 'timm', 'mmengine-lite', 'numpy')


def hardware() -> dict[str, Any]:
    """Return processor, threads, memory, GPU, Python and the versions of what numbers depend on."""
    return {
        'processor': _processor(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'memory_gib': _memory(),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'python': platform.python_version(),
        'system': f'{platform.system()} {platform.machine()}',
        **{name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    try:
        with open('/proc/cpuinfo') as info:  # noqa: PTH123 - a file of the kernel's, not of anyone's disk
            names = [line.split(':', 1)[1].strip() for line in info if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30)
    except (ValueError, OSError, AttributeError):
        return None


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


_TOOLS = {each.__name__: each for each in (cache_latents, convert, latent_stats, reference, test, train)}
_WITHOUT_OVERRIDES = (convert,)

LOG = 'log.txt'


class Outcome(NamedTuple):
    """How a stage ended: seconds, and what went wrong, if anything."""

    seconds: float
    error: str | None = None


class StageError(ValueError):
    """Some stages could not be done."""


def do_stages(stages: Iterable[Stage], *, jobs: int, say: Callable[[str], None] | None = None) -> None:
    """Do all stages that are not done, each after those that it needs, `jobs` at a time.

    A stage that fails keeps those that need it from being done, and no others. `say` is told of each; it is
    printed by default.

    Raises:
        StageError: At the end, if any failed, with their messages and logs.
    """
    say = say or (lambda text: print(text, flush=True))
    pace, waiting = _Pace(), []
    for stage in stages:
        record = stage.record()
        if record is None:
            waiting.append(stage)
        else:
            pace.add(stage, record['seconds'])
    total, done, failed = len(waiting), 0, {}
    running: dict[Future, Stage] = {}
    context = multiprocessing.get_context('spawn')
    numbers = context.Queue()
    for number in range(jobs):
        numbers.put(number)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare, initargs=(numbers, jobs)) as pool:
        while waiting or running:
            for stage in _ready(waiting)[: jobs - len(running)]:
                waiting.remove(stage)
                running[pool.submit(do_stage, stage)] = stage
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                outcome = _outcome(future)
                if outcome.error is not None:
                    failed[stage.folder] = f'{stage.name}: {outcome.error} (its log: {stage.folder / LOG})'
                    say(f'failed: {failed[stage.folder]}')
                    continue
                done += 1
                pace.add(stage, outcome.seconds)
                left = pace.seconds_left(waiting, running.values()) / jobs
                say(f'[{done:>3}/{total}]  {stage.name}  {outcome.seconds:.0f} s, about {_duration(left)} left')
    if failed:
        raise StageError(
            f'{len(failed)} of {total} stages failed, {len(waiting)} that need them were not begun:\n'
            + '\n'.join(f'  {text}' for text in failed.values())
            + '\nWhat is done is kept; see to it and run the same command again with --resume.'
        )


class _Pace:
    """How long stages take that run the same tool on the same config."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], list[float]] = {}

    def add(self, stage: Stage, seconds: float) -> None:
        """Note how long a stage took."""
        self._taken.setdefault(self._kind(stage), []).append(seconds)

    def seconds_left(self, waiting: Iterable[Stage], running: Iterable[Stage]) -> float:
        """Estimate how long stages take one after another, those that run being half done.

        Of a kind of which none is done, a stage is thought to take as long as those that are.
        """
        means = {kind: fmean(seconds) for kind, seconds in self._taken.items()}
        usual = fmean(means.values())
        return sum(
            share * means.get(self._kind(stage), usual)
            for stages, share in ((waiting, 1.0), (running, 0.5))
            for stage in stages
        )

    @staticmethod
    def _kind(stage: Stage) -> tuple[str, str]:
        command = stage.commands[-1]
        return command.tool, command.words[0]


def do_stage(stage: Stage) -> Outcome:
    """Do a stage's commands in this process; what they print goes to its log."""
    started = time.monotonic()
    if not stage.resumable:
        shutil.rmtree(stage.folder, ignore_errors=True)
    stage.folder.mkdir(parents=True, exist_ok=True)
    try:
        with _logged(stage.folder / LOG):
            for command in stage.commands:
                print(f'$ {command}', flush=True)
                _call(command)
    except (Exception, SystemExit) as error:  # any failure is this stage's alone; its log has the traceback
        with (stage.folder / LOG).open('a') as log:
            traceback.print_exc(file=log)
        return Outcome(time.monotonic() - started, _said(error))
    seconds = time.monotonic() - started
    stage.write_record(
        {
            'name': stage.name,
            'commands': [str(command) for command in stage.commands],
            'needs': [each.folder.name for each in stage.needs],
            'seconds': round(seconds, 1),
            'eqzoo': __version__,
            'hardware': hardware(),
        }
    )
    return Outcome(seconds)


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return f'stopped by {signal.Signals(error.code - 128).name}' if error.code > 128 else f'ended with {error.code}'
    return ' '.join(str(error).split()) or repr(error)


def _call(command: Command) -> None:
    function = _TOOLS[command.tool]
    overrides: dict[str, Any] = {} if function in _WITHOUT_OVERRIDES else {'overrides': list(command.overrides)}
    function(*command.words, **dict(command.options), **overrides)


def _ready(waiting: Iterable[Stage]) -> list[Stage]:
    """Return the stages whose needs are done."""
    return [stage for stage in waiting if all(each.record() is not None for each in stage.needs)]


def _outcome(future: Future) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        raise StageError(
            'A process of the study was killed (too little memory?). What is done is kept; run the same command again '
            'with --resume, and with a smaller --jobs.'
        ) from None


def _prepare(numbers: Any, jobs: int) -> None:
    """Give this process its share of the machine, a GPU or so many threads, and let it end with the study."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number = numbers.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def _end_with_parent() -> None:
    """End as if killed when the study is: nobody would wait for the stage, and another study may begin it."""
    wait_for([multiprocessing.parent_process().sentinel])
    os._exit(1)


@contextmanager
def _logged(file: Path) -> Iterator[None]:
    with file.open('a', buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        yield


def _duration(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'


def default_jobs() -> int:
    """Return how many stages are done at once: one a GPU; without one, one for each of up to four cores."""
    return torch.cuda.device_count() or min(4, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1)
