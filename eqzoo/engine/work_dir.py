"""Work directory of a run: writable, and locked against other runs."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from eqzoo.distributed import rank_and_world_size

# The lock files that this process holds.
_HELD: set[IO[str]] = set()


@contextmanager
def own_folder(path: str | Path, key: str = 'work_dir') -> Iterator[Path]:
    """Create the folder and lock it for the duration of the block; the OS releases the lock if the process dies.

    Of several processes of one run, only the first locks it. Its forked processes, such as those of a loader, do not
    inherit the lock.

    Args:
        path: The folder.
        key: The option that sets it, for messages.

    Raises:
        ValueError: If the folder cannot be written to, or if another run has locked it.
    """
    folder = Path(path)
    if rank_and_world_size()[0] != 0:
        yield folder
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / '.lock').open('a+')
    except OSError as error:
        raise ValueError(
            f'{key}: {folder} cannot be written to ({error.strerror}); set {key} to a writable folder.'
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ValueError(
                f'{key}: {folder} is in use by another run ({lock.read().strip() or "just started"}); wait for it, or '
                f'choose another {key}.'
            ) from None
        _HELD.add(lock)
        try:
            lock.truncate(0)
            lock.write(f'process {os.getpid()} on {os.uname().nodename}\n')
            lock.flush()
            yield folder
        finally:
            _HELD.discard(lock)


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
