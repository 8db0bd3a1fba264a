"""Folders that commands write to: writable, locked against other runs, emptied of what the same command left."""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from eqzoo.distributed import rank_and_world_size
from eqzoo.files import remove_leftovers, with_a_name, write_json, writing_to

# The lock of results is not that of training: a run's checkpoints are tested while it trains.
REPORT_LOCK = '.report.lock'

_STEP = re.compile(r'(?:best_.+_)?iter_(\d+)\.pth')

# The lock files that this process holds.
_HELD: set[IO[str]] = set()


@contextmanager
def own_folder(path: str | Path, key: str = 'work_dir', lock_name: str = '.lock') -> Iterator[Path]:
    """Create the folder and lock it for the duration of the block; the OS releases the lock if the process dies.

    Of several processes of one run, only the first locks it; its forked processes, such as those of a loader, do not
    inherit the lock. A failure to write in the block that names no file, such as a full disk under a log, becomes a
    message about the folder.

    Args:
        path: The folder.
        key: The option that sets it, for messages.
        lock_name: The file in it that is locked.

    Raises:
        ValueError: If the folder cannot be written to, or if another run has locked it.
    """
    folder = Path(path)
    with writing_to(folder):
        if rank_and_world_size()[0] != 0:
            yield folder
            return
        with _locked(folder / lock_name, folder, key):
            yield folder


@contextmanager
def own_file(path: str | Path, key: str) -> Iterator[Path]:
    """Create the folder of a file, or of a folder that is to hold images only, and lock it by a file beside it.

    Arguments and errors as of `own_folder`.
    """
    file = Path(path)
    with writing_to(file):
        if rank_and_world_size()[0] != 0:
            yield file
            return
        named = with_a_name(file)
        lock_file = named.with_name(f'.{named.name}.lock')
        with _locked(lock_file, file, key):
            try:
                yield file
            finally:
                lock_file.unlink(missing_ok=True)  # beside a user's files it would be litter


@contextmanager
def _locked(lock_file: Path, place: Path, key: str) -> Iterator[None]:
    with _open_lock(lock_file, place, key) as lock:
        _HELD.add(lock)
        try:
            lock.truncate(0)
            lock.write(f'process {os.getpid()} on {os.uname().nodename}\n')
            lock.flush()
            remove_leftovers(lock_file.parent)
            yield
        finally:
            _HELD.discard(lock)


def _open_lock(lock_file: Path, place: Path, key: str) -> IO[str]:
    """Open and lock `lock_file`; raise as `own_folder` does."""
    while True:
        try:
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            lock = lock_file.open('a+')
        except OSError as error:
            raise ValueError(
                f'{key}: {place} cannot be written to ({error.strerror}); set {key} to a writable folder.'
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with lock:
                lock.seek(0)
                owner = lock.read().strip() or 'just started'
            raise ValueError(
                f'{key}: {place} is in use by another run ({owner}); wait for it, or choose another {key}.'
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(lock_file.stat(), os.fstat(lock.fileno())):
                return lock
        lock.close()  # its owner removed it after it was opened here: a lock of a file without a name excludes nobody


def _close_inherited() -> None:
    """Close the locks of the parent in a process that it has just forked.

    A lock of `flock` lives until every copy of its descriptor is closed: a loader's processes would hold it for
    seconds after the main process was killed. A record lock (`lockf`) is not inherited, but a process that has one
    gets it a second time, and loses it with the first of its descriptors that it closes.
    """
    for lock in _HELD:
        lock.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_close_inherited)


def empty_of_earlier_runs(folders: Mapping[str | Path, int], mark: str) -> None:
    """Delete the checkpoints that an earlier run of the same command left in folders, and mark the folders.

    The folders must be locked. Nothing but checkpoints is deleted, and of these only those of steps that the earlier
    run could reach.

    Args:
        folders: The length in steps of the run that begins in each folder; they are created if they do not exist.
        mark: The file that says whose a folder is, such as '.smoke'.

    Raises:
        ValueError: If a folder has checkpoints of another run; nothing is deleted then.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        try:
            reach = int(json.loads((folder / mark).read_text())['steps'])
        except (OSError, ValueError, KeyError, TypeError):
            reach = -1  # nobody marked it
        checkpoints = {file: _STEP.fullmatch(file.name) for file in folder.glob('*.pth')}
        checkpoints = {file: int(match[1]) for file, match in checkpoints.items() if match}
        foreign = sorted(file.name for file, step in checkpoints.items() if step > reach)
        if foreign:
            raise ValueError(
                f'{folder}: holds checkpoints of another run ({", ".join(foreign[:3])}), which would be replaced; move '
                'them away, or choose another folder.'
            )
        found += checkpoints
    for file in found:
        file.unlink(missing_ok=True)
    for folder, steps in folders.items():
        note = 'checkpoints up to this step in this folder may be replaced'
        write_json(Path(folder) / mark, {'steps': steps, 'note': note})
