"""Stages of a study: commands with a folder each, and the worker processes that run them."""

import json
import multiprocessing
import os
import shlex
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from eqzoo import __version__
from eqzoo.config import read_with_imports
from eqzoo.files import WriteError, write_json, writing_to
from eqzoo.machine import hardware

_RECORD = 'stage.json'
_LOG = 'log.txt'
_ATTEMPTS = 'attempts.json'  # of a stage that is not done: when each run of it began, and the seconds of ended ones


@dataclass(frozen=True)
class StageCommand:
    """A command of eqzoo with its arguments, as on a command line.

    Args:
        tool: The command's name, such as 'train'.
        words: Positional arguments.
        options: By name, without dashes; True for an option without a value.
        overrides: `key=value` words.
    """

    tool: str
    words: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        options = [
            word
            for name, value in self.options
            for word in (f'--{name.replace("_", "-")}', *([] if value is True else [str(value)]))
        ]
        return shlex.join(
            ['python', '-m', 'eqzoo', self.tool.replace('_', '-'), *self.words, *options, *self.overrides]
        )


# Runs a command in this process. Worker processes import it by name, so it is a function of a module.
CommandRunner = Callable[[StageCommand], object]


@dataclass(frozen=True)
class Stage:
    """Commands that write to one folder.

    Args:
        name: A description for people.
        folder: Its name ends in a hash of everything that decides its content. Two studies that need the
            same content share the folder, and a changed config gets a new one.
        commands: In order.
        needs: Stages that have to be done before.
        resumable: Whether its commands resume where they were stopped; otherwise its folder is emptied first.
    """

    name: str
    folder: Path
    commands: tuple[StageCommand, ...]
    needs: tuple['Stage', ...] = ()
    resumable: bool = False

    def record(self) -> dict[str, Any] | None:
        """Return the record that was written when the stage was done; None if it is not done."""
        try:
            return json.loads((self.folder / _RECORD).read_text())
        except (OSError, json.JSONDecodeError):
            return None

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Mark the stage as done."""
        write_json(self.folder / _RECORD, record)


class Outcome(NamedTuple):
    """The end of a stage: its seconds, and the error if it failed."""

    seconds: float
    error: str | None = None


class StageError(ValueError):
    """Some stages failed.

    Args:
        message: With all errors and logs.
        failures: The name and the error of each failed stage.
    """

    def __init__(self, message: str, failures: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.failures = tuple(failures)


def run_stages(
    stages: Iterable[Stage],
    run: CommandRunner,
    *,
    jobs: int,
    configs: Sequence[str] = (),
    admits: Callable[[Stage], bool | None] = lambda _: True,
    report: Callable[[str], None] | None = None,
) -> None:
    """Run all stages that are not done, each after those that it needs, `jobs` at a time.

    A failed stage holds back those that need it, and no others.

    Args:
        stages: In any order.
        run: Runs one command in a worker process.
        jobs: The number of worker processes.
        configs: Config files that can be read. Each worker imports their `custom_imports`: a command that reads none
            of them, such as `convert`, may need a component of the user's.
        admits: Whether a stage may run; None if that depends on stages that are not done yet. Called again until
            it is known.
        report: Called with a line for each stage that ends; prints it by default.

    Raises:
        StageError: At the end, if any stage failed, with all messages and logs.
    """
    report = report or (lambda text: print(text, flush=True))
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
    prepared = dict(initializer=_prepare_worker, initargs=(numbers, jobs, configs))
    with ProcessPoolExecutor(jobs, mp_context=context, **prepared) as pool:
        while waiting or running:
            verdicts = {stage.folder: admits(stage) for stage in waiting}
            total -= sum(verdict is False for verdict in verdicts.values())
            waiting = [stage for stage in waiting if verdicts[stage.folder] is not False]
            ready = [
                stage
                for stage in waiting
                if verdicts[stage.folder] and all(each.record() is not None for each in stage.needs)
            ]
            for stage in ready[: jobs - len(running)]:
                waiting.remove(stage)
                running[pool.submit(run_stage, stage, run)] = stage
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                outcome = _outcome(future)
                if outcome.error is not None:
                    failed[stage.folder] = f'{stage.name}: {outcome.error}'
                    report(f'failed: {failed[stage.folder]} (its log: {stage.folder / _LOG})')
                    continue
                done += 1
                pace.add(stage, outcome.seconds)
                left = pace.seconds_left(waiting, running.values()) / jobs
                report(
                    f'[{done:>3}/{total}]  {stage.name}  {outcome.seconds:.0f} s, about {_format_duration(left)} left'
                )
    if failed:
        raise StageError(
            f'{len(failed)} of {total} stages failed, {len(waiting)} that need them were not started:\n'
            + '\n'.join(f'  {text} (its log: {folder / _LOG})' for folder, text in failed.items())
            + '\nFinished stages are kept. Fix the cause and run the same command again with --resume.',
            failed.values(),
        )


def run_stage(stage: Stage, run: CommandRunner) -> Outcome:
    """Run a stage's commands in this process; their output goes to its log."""
    started, begun = time.monotonic(), datetime.now(timezone.utc)
    attempts = _earlier_attempts(stage.folder)
    try:
        if not stage.resumable:
            _empty(stage.folder)
        with writing_to(stage.folder, stage.folder.parent):
            stage.folder.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:  # without a log, which would make the folder a stage's
        return Outcome(time.monotonic() - started, _failure_message(error))
    try:
        with _redirect_output(stage.folder / _LOG):
            own = {'begun': begun.isoformat(timespec='seconds'), 'seconds': None}
            write_json(stage.folder / _ATTEMPTS, [*attempts, own])
            for command in stage.commands:
                print(f'$ {command}', flush=True)
                run(command)
    # Any failure ends this stage alone, and its log has the traceback. Only its text is returned, because an
    # exception that cannot be unpickled would break the pool.
    except (Exception, SystemExit) as error:
        with suppress(OSError), (stage.folder / _LOG).open('a') as log:  # the disk may be full
            traceback.print_exc(file=log)
        return Outcome(time.monotonic() - started, _failure_message(error))
    seconds = time.monotonic() - started
    # an earlier run of a stage that is not resumable left nothing, but its begin is still the first
    earlier = sum(each['seconds'] for each in attempts) if stage.resumable else 0.0
    record = {
        'name': stage.name,
        'commands': [str(command) for command in stage.commands],
        'needs': [each.folder.name for each in stage.needs],
        'begun': [*attempts, own][0]['begun'],
        'seconds': round(earlier + seconds, 1),
        'eqzoo': __version__,
        'hardware': hardware(),
    }
    try:
        stage.write_record(record)
    except WriteError as error:
        return Outcome(seconds, str(error))
    with suppress(OSError):
        (stage.folder / _ATTEMPTS).unlink()
    return Outcome(seconds)


def _earlier_attempts(folder: Path) -> list[dict[str, Any]]:
    """Return the earlier runs of a stage; the last one ended, perhaps killed, when its log was last written to."""
    try:
        attempts = json.loads((folder / _ATTEMPTS).read_text())
        end = (folder / _LOG).stat().st_mtime
    except (OSError, json.JSONDecodeError):
        return []
    *_, last = attempts
    last['seconds'] = max(0.0, end - datetime.fromisoformat(last['begun']).timestamp())
    return attempts


def _empty(folder: Path) -> None:
    """Remove what a stopped run of a stage left in its folder, which its log marks as a stage's.

    Raises:
        ValueError: If the folder has files and no log.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / _LOG).is_file():
        raise ValueError(f'{folder}: holds files, but no {_LOG} of a stage; move them away.')
    shutil.rmtree(folder)


def default_jobs() -> int:
    """Return the default number of stages at once: one for each GPU, otherwise one for each of up to four cores."""
    return torch.cuda.device_count() or min(4, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1)


class _Pace:
    """Durations of stages, by kind: stages that run the same tool on the same config."""

    def __init__(self) -> None:
        self._durations: dict[tuple[str, str], list[float]] = {}

    def add(self, stage: Stage, seconds: float) -> None:
        """Add the duration of a stage."""
        self._durations.setdefault(self._kind(stage), []).append(seconds)

    def seconds_left(self, waiting: Iterable[Stage], running: Iterable[Stage]) -> float:
        """Estimate the duration of stages one after another, counting running ones half.

        A kind without a finished stage is assumed to take the mean over all kinds.
        """
        means = {kind: fmean(seconds) for kind, seconds in self._durations.items()}
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


def _failure_message(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return f'stopped by {signal.Signals(error.code - 128).name}' if error.code > 128 else f'ended with {error.code}'
    return ' '.join(str(error).split()) or repr(error)


def _outcome(future: Future) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        raise StageError(
            'A process of the study was killed, perhaps for lack of memory. Finished stages are kept; run the same '
            'command again with --resume, and with a smaller --jobs.',
            ['a process of the study was killed, perhaps for lack of memory'],
        ) from None


def _prepare_worker(numbers: Any, jobs: int, configs: Sequence[str]) -> None:
    """Give this worker a GPU or a share of the threads, and the user's modules; make it end with the study."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches all processes: a training saves, as its own handler has it; the others have nothing to say
    signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    number = numbers.get()
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    for path in configs:
        read_with_imports(path)


def _end_with_parent() -> None:
    """End at once when the study does: nobody waits for the stage any more, and another study may start it."""
    wait_for([multiprocessing.parent_process().sentinel])
    os._exit(1)


@contextmanager
def _redirect_output(file: Path) -> Iterator[None]:
    with file.open('a', buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        yield


def _format_duration(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'
