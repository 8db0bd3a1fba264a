"""Files: atomic writing, JSON, hashes, damage; and the nearest name to a misspelt one.

No room of the package is below this module, so that every room can use it.
"""

import difflib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_IS_FOLDER = 0x10  # the bit of MS-DOS's attributes in a zip archive's directory


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    The block creates a file or a folder there. Its bytes are on the disk before it is renamed, so
    that a kill or a power failure leaves the old content or the new one, never half of it. (A folder
    is replaced in two steps: a kill between them leaves the old one beside it, under a hidden name.)
    The parent folder is created if it does not exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / 'a.txt') as temporary:
        ...         _ = temporary.write_text('whole')
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # with the number of the process: a killed launcher may have left workers that write the same file
    temporary, old = (path.with_name(f'.{path.name}.{os.getpid()}.{kind}') for kind in ('tmp', 'old'))
    try:
        yield temporary
        _flush(temporary)
        if path.is_dir():  # a folder cannot be replaced in one step
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


def write_json(path: str | Path, data: Any, *, indent: int = 2) -> None:
    """Write `data` as JSON, atomically.

    Raises:
        ValueError: For NaN or infinity, which JSON does not have.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=indent, allow_nan=False) + '\n', encoding='utf-8')


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


def _flush(path: Path) -> None:
    for file in sorted(path.rglob('*')) if path.is_dir() else (path,):
        if file.is_file():
            with file.open('rb') as opened:
                os.fsync(opened.fileno())
