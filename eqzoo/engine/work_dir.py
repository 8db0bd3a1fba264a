"""Work directory of a run: writable, and locked against other runs."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eqzoo.distributed import rank_and_world_size


@contextmanager
def own_folder(path: str | Path, key: str = 'work_dir') -> Iterator[Path]:
    """Create the folder and lock it for the duration of the block; the OS releases the lock if the process dies.

    Of several processes of one run, only the first locks it.

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
        lock.truncate(0)
        lock.write(f'process {os.getpid()} on {os.uname().nodename}\n')
        lock.flush()
        yield folder
