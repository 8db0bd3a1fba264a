"""Files: atomic writing, JSON, hashes, damage; and the nearest name to a misspelt one.

No room of the package is below this module, so that every room can use it.
"""

import difflib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_IS_FOLDER = 0x10  # the bit of MS-DOS's attributes in a zip archive's directory

_HOST = re.sub(r'[^\w.-]', '_', socket.gethostname())

# A file of a process that was killed while it wrote NAME; without a host in files of earlier versions.
_LEFTOVER = re.compile(r'\.(?P<name>.+)\.(?P<pid>\d+)(@(?P<host>[\w.-]*))?\.(?P<kind>tmp|old)')
_ABANDONED = 86_400  # seconds without a write, after which the process on another machine is taken for dead

_OTHER_PLACE = 'choose a place that you may write to'
_REMEDIES = {
    errno.ENOSPC: 'the disk is full, of bytes or of files (df -h, df -i); make room and run it again, or choose '
    'another place',
    errno.EDQUOT: 'your quota is used up; make room and run it again, or choose another place',
    errno.EFBIG: 'the system or ulimit -f limits the size of files; raise the limit, or choose another place',
    errno.EIO: 'the disk has a fault; choose another place',
}
# Errors of writing, whatever file they name; and those that are errors of writing if they name the written file.
_ONLY_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_OF_THE_PLACE = (
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.EBUSY, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)
# Those of creating the folders above the written file.
_OF_ITS_FOLDERS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)

_swept: set[Path] = set()  # folders whose leftovers this process has removed
_sweeping = threading.Lock()


class WriteError(OSError):
    """A file or folder cannot be written; the message says which, why, and how to go on."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    The block creates a file or a folder there. Its bytes are on the disk before it is renamed, so
    that a kill or a power failure leaves the old content or the new one, never half of it. (A folder
    is replaced in two steps: a kill between them leaves the old one beside it, under a hidden name, from
    which the next write to the parent folder gets it back.) The parent folder is created if it does not exist.
    A new file has the mode that the umask gives, a replaced one keeps its own.

    A process that is killed leaves `.NAME.PID@HOST.tmp`, which the next process that writes to the same
    folder removes.

    Raises:
        WriteError: If the disk is full, read-only, or refuses for another reason; also where torch and safetensors
            raise other types; or if a file would replace a folder. The old content is still there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / 'a.txt') as temporary:
        ...         _ = temporary.write_text('whole')
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    # with the number of the process: a killed launcher may have left workers that write the same file
    temporary, old = (path.with_name(f'.{path.name}.{os.getpid()}@{_HOST}.{kind}') for kind in ('tmp', 'old'))
    with writing_to(path, temporary, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _sweeping:
            is_first = path.parent.absolute() not in _swept
            _swept.add(path.parent.absolute())
            if is_first:
                remove_leftovers(path.parent)
        try:
            yield temporary
            _set_modes(temporary, path)
            _flush(temporary)
            if path.is_dir():  # a folder cannot be replaced in one step
                if temporary.is_file():
                    raise WriteError(f'{path}: is a folder; expected a file to write. Nothing in it was changed.')
                path.rename(old)
            try:
                temporary.replace(path)
            except OSError:
                if old.is_dir():
                    old.rename(path)
                raise
        finally:
            for leftover in (temporary, old):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


@contextmanager
def writing_to(place: str | Path, *others: Path, remedy: str = _OTHER_PLACE) -> Iterator[None]:
    """Turn a failure to write in the block into one message about `place`.

    Args:
        place: The file or folder that the block writes.
        others: Further paths of which a lack of permission is a failure to write, since the block reads
            nothing there.
        remedy: What to do where the system refuses to write there.

    Raises:
        WriteError: If the disk is full or read-only, a quota or a limit of size is reached, or the system refuses
            to write to one of the paths, or to create the folders that it is in.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        number = _write_failure(error, {str(each) for each in (place, *others)})
        if number is None:
            raise
        named = getattr(error, 'filename', None)
        inside = named if named and named not in map(str, others) else place
        failure = WriteError(
            f'{inside}: cannot be written ({os.strerror(number)}): {_REMEDIES.get(number, remedy)}. What was '
            'there before is unchanged.'
        )
        failure.errno = number
        raise failure from error


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files of `replacing` that killed processes left in a folder; no thread may write there.

    `replacing` calls it before this process writes to the folder for the first time, a command when it has locked it.
    """
    folder = Path(folder)
    with suppress(OSError), os.scandir(folder) as entries:  # a folder may be writable and not readable
        for match in filter(None, [_LEFTOVER.fullmatch(entry.name) for entry in entries]):
            with suppress(OSError):  # another process of this run removes them too
                _remove_leftover(folder / match[0], folder / match['name'], match)


def write_json(path: str | Path, data: Any, *, indent: int = 2) -> None:
    """Write `data` as JSON, atomically.

    Raises:
        ValueError: For NaN or infinity, which JSON does not have.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=indent, allow_nan=False) + '\n', encoding='utf-8')


def save_picture(picture: Any, path: str | Path) -> None:
    """Write a Pillow image as PNG, atomically."""
    with replacing(path) as temporary:
        picture.save(temporary, 'PNG')


def sha256_of(*paths: str | Path) -> str:
    """Return the sha256 of the joined bytes of files, as hex digits."""
    hashed = hashlib.sha256()
    for path in paths:
        with Path(path).open('rb') as file:
            while chunk := file.read(1 << 20):
                hashed.update(chunk)
    return hashed.hexdigest()


def zip_damage(path: str | Path) -> str | None:
    """Return a description of the damage of a zip archive, or None; every byte is read.

    Torch files are zip archives whose checksums torch itself does not verify.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entry = archive.testzip()
            # torch takes the content of an entry that is marked as a folder for nothing, and reads random memory
            marked = [each.filename for each in archive.infolist() if each.external_attr & _IS_FOLDER]
    except Exception as error:  # a flipped bit may look like encryption, another compression, or an unknown version
        return f'{type(error).__name__}: {error}'
    for name in marked:
        if not name.endswith('/'):
            return f'{name} is marked as a folder'
    return None if entry is None else f'the checksum of {entry} fails'


def expand_home(path: str | Path) -> Path:
    """Return a path with the user's home folder in the place of a leading `~`, which shells leave in `--out=~/a`."""
    path = Path(path)
    return path.expanduser() if path.parts[:1] == ('~',) else path


def with_a_name(path: str | Path) -> Path:
    """Return a path whose last part is a name, for files beside it: of `.` and `..`, the absolute path.

    Example:
        >>> with_a_name('a/b'), with_a_name('.') == Path.cwd(), with_a_name('a/..') == Path.cwd()
        (PosixPath('a/b'), True, True)
    """
    path = Path(path)
    return path if path.name not in ('', '..') else Path(os.path.abspath(path))  # noqa: PTH100, of a/.. not the link a


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the name of `known` that is most similar to `name`, or None if none is similar enough.

    Args:
        name: The user's spelling.
        known: The names that exist.
        cutoff: The smallest similarity that counts, in [0, 1]: the ratio of `difflib`.
    """
    found = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'nearest'?` for an error message, or '' if nothing is near.

    Example:
        >>> did_you_mean('Rotat', ['Flip', 'Rotate'])
        " Did you mean 'Rotate'?"
    """
    found = nearest(name, known)
    return f' Did you mean {found!r}?' if found else ''


def _write_failure(error: BaseException, written: set[str]) -> int | None:
    """Return the number of the system's error if `error` is a failure to write; None for others."""
    number = getattr(error, 'errno', None)
    if isinstance(error, OSError):
        named, folders = str(error.filename), {str(folder) for each in written for folder in Path(each).parents}
        is_of_the_place = (number in _OF_THE_PLACE and named in written) or (
            number in _OF_ITS_FOLDERS and named in folders
        )
        return number if number in _ONLY_WRITING or is_of_the_place else None
    if type(error).__name__ == 'SafetensorError':  # not imported: this module imports nothing but Python
        found = re.search(r'os error (\d+)', str(error))
        return int(found[1]) if found else None
    # torch's writer of zip archives fails a second time when it closes the file, and raises that error
    before = error.__context__
    return _write_failure(before, written) if isinstance(error, RuntimeError) and before is not None else None


def _remove_leftover(leftover: Path, target: Path, match: re.Match[str]) -> None:
    if not _is_abandoned(leftover, int(match['pid']), match['host']):
        return
    if leftover.is_dir() and match['kind'] == 'old' and not target.exists():
        leftover.rename(target)  # killed between the two steps of replacing a folder
    else:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _is_abandoned(leftover: Path, pid: int, host: str | None) -> bool:
    if host not in (None, _HOST):
        return time.time() - leftover.stat().st_mtime > _ABANDONED
    if pid == os.getpid():  # of an earlier process: this one has not written here yet
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _set_modes(temporary: Path, path: Path) -> None:
    """Give files the mode of the file that they replace, or an ordinary one: safetensors and tempfile give 0600."""
    if path.is_file() and temporary.is_file():
        shutil.copymode(path, temporary)
        return
    files = [each for each in (temporary.rglob('*') if temporary.is_dir() else [temporary]) if each.is_file()]
    private = [file for file in files if not file.stat().st_mode & 0o077]
    if private:
        # the umask can only be asked for by changing it, for all threads; a new file shows it
        probe = temporary.with_name(temporary.name.replace(path.name, f'{path.name}.mode', 1))
        probe.touch()
        mode = probe.stat().st_mode & 0o777
        probe.unlink()
        for file in private:
            file.chmod(mode)


def _flush(path: Path) -> None:
    for file in sorted(path.rglob('*')) if path.is_dir() else (path,):
        if file.is_file():
            with file.open('rb') as opened:
                os.fsync(opened.fileno())
