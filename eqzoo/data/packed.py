"""Images inside larger files: an index of their places, kept in the cache, and bytes read in place.

A tar shard, an Arrow file and the unpacked column of a parquet file differ in how their index is made, and in nothing
else: an image is a range of bytes of a file, which is read at random with `pread`.
"""

import hashlib
import json
import os
import sys
import time
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from eqzoo.data.sources import OPENING, ImageSource, Names, OpenFile, check_size
from eqzoo.files import WriteError, replacing
from eqzoo.text import printable
from eqzoo.zoo.download import cache_folder

NO_BYTES = -1  # the size of an image that is null

_VERSION = 1  # of the index files; those of another are made again
_MOST_OPEN = 128  # files open at once, of the 1,024 that systems allow a process; there may be thousands of shards
_MOST_CLASSES = 1 << 20  # a name is kept for each
_SECONDS_TO_LINE = 2

_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile)


class FileIndex(NamedTuple):
    """The images inside one file.

    Args:
        path: The file that has the bytes.
        size: Its bytes when it was indexed.
        names: The names of the images, sorted, without repetition.
        places: Where they are (N, 2), int64: the first byte, and the number of bytes or `NO_BYTES`.
        labels: The text of each label, '' where there is none; None if the file states no labels.
        classes: The names of the classes, if labels are their numbers.
        left_out: Files beside the images, by their endings.
        masks: The number of masks beside images.
        notes: Sentences for the user.
    """

    path: Path
    size: int
    names: Names
    places: np.ndarray
    labels: Names | None = None
    classes: Sequence[str] | None = None
    left_out: Mapping[str, int] = MappingProxyType({})
    masks: int = 0
    notes: Sequence[str] = ()


def make_index(path: Path, rows: dict[str, tuple[int, int]], labels: dict[str, str] | None, **rest: Any) -> FileIndex:
    """Return the index of the images `rows`: their places by name, and the text of their labels, if there are any."""
    names = sorted(rows)
    places = np.array([rows[name] for name in names], np.int64).reshape(-1, 2)
    texts = None if labels is None else Names(labels.get(name, '') for name in names)
    return FileIndex(path, path.stat().st_size, Names(names), places, texts, **rest)


def indices_of(files: Sequence[Path], options: str, make: Callable[[Path], FileIndex], *, what: str) -> list[FileIndex]:
    """Return the index of each file: from the cache, or made now and kept there.

    An index belongs to the path, size and time of the last change of a file. One process makes those that are
    missing, the others wait for it. If the cache cannot be written to, each makes its own.

    Args:
        files: The files.
        options: Everything else that the index depends on.
        make: Returns the index of one file.
        what: The files in a word, for the line about progress.
    """
    found = [_read_index(_index_file(file, options)) for file in files]
    if None not in found:
        return found
    next_line = time.monotonic() + _SECONDS_TO_LINE
    with _turn(what):
        for number, file in enumerate(files):
            kept = _index_file(file, options)
            if found[number] is None:
                found[number] = _read_index(kept)  # another process may have made it
            if found[number] is None:
                found[number] = make(file)
                _write_index(kept, found[number])
            if time.monotonic() >= next_line:
                next_line += _SECONDS_TO_LINE
                print(f'Indexing {what}: {number + 1:,} of {len(files):,}, once …', file=sys.stderr)
    return found


def kept_place(file: Path, options: str, folder: str, ending: str) -> Path:
    """Return the place in the cache for what is made from a file with `options`; another if the file changes."""
    status = file.stat()
    parts = (_VERSION, file.resolve(), status.st_size, status.st_mtime_ns, options)
    digest = hashlib.sha256('\0'.join(map(str, parts)).encode(errors='surrogateescape')).hexdigest()
    return cache_folder() / folder / f'{printable(file.stem)[:60]}-{digest[:16]}{ending}'


class PackedSource(ImageSource):
    """Images inside files, read in place.

    Names are `file:name`, with the path of the file below the root, or the name alone if the root is one file. A file
    is opened on its first read, and read with `pread`: forked workers share the descriptor but no file offset,
    spawned workers open their own. Memory is for the index only: the bytes of the names and 24 more an image.

    Args:
        root: The path or address as the user wrote it, for messages.
        kind: What it is, in a word.
        indices: The index of each file, by the file's name in names; '' for the only one.
        has_folders: Whether names have folders that are classes, where no labels are stated.

    Raises:
        ValueError: If labels are incomplete or out of range, or a file's name has a colon.
    """

    def __init__(self, root: Path | str, kind: str, indices: dict[str, FileIndex], *, has_folders: bool = True) -> None:
        self.root, self.kind = root, kind
        if colons := [prefix for prefix in indices if ':' in prefix]:
            raise ValueError(
                f"{root}: {colons[0]}: a colon in a file's name, which ends it in {kind}s; rename the file."
            )
        # with the colon: it decides the order of names, 'a:1' after 'a-b:1'
        self._prefixes = sorted(f'{prefix}:' if prefix else '' for prefix in indices)
        parts = [indices[prefix.removesuffix(':')] for prefix in self._prefixes]
        self._files = [(str(part.path), (part.size, part.path.stat().st_mtime_ns)) for part in parts]
        self._ends = np.cumsum([len(part.names) for part in parts])
        if self._prefixes == ['']:
            self._names = parts[0].names
        else:
            pairs = zip(self._prefixes, parts, strict=True)
            self._names = Names(f'{prefix}{name}' for prefix, part in pairs for name in part.names)
        self._places = np.concatenate([part.places for part in parts])
        self.left_out = sum((Counter(part.left_out) for part in parts), Counter())
        self.masks = sum(part.masks for part in parts)
        self.notes = list(dict.fromkeys(chain.from_iterable(part.notes for part in parts)))
        self.classes, self._labels = _numbered(self, parts, has_folders)
        self._open: OrderedDict[int, OpenFile] = OrderedDict()

    def names(self) -> Names:
        """Return the names of the images, sorted."""
        return self._names

    def read(self, name: str) -> bytes:
        """Return the bytes of one image; OSError if they are null, or its file is gone, cut off or another one."""
        place = self._names.place_of(name)
        offset, size = self._places[place].tolist()
        if size == NO_BYTES:
            raise OSError('null, without bytes')
        check_size(size)
        file, indexed = self._file(int(np.searchsorted(self._ends, place, side='right')))
        status = os.fstat(file.descriptor)
        if (status.st_size, status.st_mtime_ns) != indexed:
            raise OSError('its file has changed since it was indexed')
        data = os.pread(file.descriptor, size, offset)
        if len(data) != size:
            raise OSError('its file ends before this image does')
        return data

    def byte_size(self, name: str) -> int:
        """Return the number of bytes of one image; 0 if it is null."""
        return max(0, int(self._places[self._names.place_of(name)][1]))

    def inside(self, name: str) -> str:
        """Return the path of an image in its own file."""
        return name if self._prefixes == [''] else name.partition(':')[2]

    def labels_of(self, names: Iterable[str]) -> list[int]:
        """Return the labels of sorted names, in one pass over the index."""
        if names is self._names:
            return self._labels.tolist()
        pairs = zip(self._names, self._labels.tolist(), strict=True)
        return [next(label for known, label in pairs if known == name) for name in names]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_open': OrderedDict()}

    def _file(self, number: int) -> tuple[OpenFile, tuple[int, int]]:
        """Return a file, and its size and time of the last change when it was indexed."""
        path, indexed = self._files[number]
        with OPENING:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number], indexed
            file = OpenFile(path)
            while len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)  # a thread that reads it still has it
            self._open[number] = file
            return file, indexed


def _numbered(
    source: PackedSource, parts: Sequence[FileIndex], has_folders: bool
) -> tuple[list[str] | None, np.ndarray | None]:
    """Return the names of the classes and the label of each image; (None, None) if folders are the classes.

    Whole numbers are the labels themselves; other texts are numbered in sorted order.
    """
    count = len(source.names())
    if all(part.labels is None for part in parts):
        return (None, None) if has_folders else (['.'], np.zeros(count, np.int32))
    texts = [list(part.labels) if part.labels is not None else [''] * len(part.names) for part in parts]
    known = set(chain.from_iterable(texts))
    if '' in known:
        first = next(place for place, text in enumerate(chain.from_iterable(texts)) if not text)
        missing = sum(each.count('') for each in texts)
        raise ValueError(
            f'{source.root}: {missing} of {count} images have no label, such as {printable(source.names()[first])}; '
            'expected one for each; set label=None to read the images without.'
        )
    names = list(parts[0].classes) if parts[0].classes is not None else None
    if any((list(part.classes) if part.classes is not None else None) != names for part in parts):
        raise ValueError(f'{source.root}: its files name different classes; give them one by one.')
    try:
        numbers = {text: int(text) for text in known if text.lstrip('-').isdecimal() and text.isascii()}
    except ValueError:  # '--1'
        numbers = {}
    if len(numbers) < len(known):
        names = sorted(known)
        numbers = {text: number for number, text in enumerate(names)}
    elif set(numbers.values()) == {-1}:  # the convention of `datasets` for test sets whose labels are not published
        names, numbers = ['.'], {'-1': 0}
    smallest, largest = min(numbers.values(), default=0), max(numbers.values(), default=0)
    end = _MOST_CLASSES if names is None else len(names)
    if smallest < 0 or largest >= end:
        raise ValueError(
            f'{source.root}: labels from {smallest} to {largest}; expected whole numbers from 0 to {end - 1}; set '
            'label=None to read the images without.'
        )
    labels = np.fromiter(map(numbers.__getitem__, chain.from_iterable(texts)), np.int32, count)
    return names or [str(number) for number in range(largest + 1)], labels


def _index_file(file: Path, options: str) -> Path:
    return kept_place(file, options, 'indices', '.npz')


def _read_index(kept: Path) -> FileIndex | None:
    """Return the index that is kept in a file; None if there is none, or it is damaged or of a file that is gone."""
    try:
        # opened here: numpy leaves a damaged file open
        with kept.open('rb') as raw, np.load(raw, allow_pickle=False) as file:
            card = json.loads(bytes(file['card']))
            labels = Names.of_arrays(file['label_bytes'], file['label_ends']) if card['has_labels'] else None
            index = FileIndex(
                path=Path(card['path']),
                size=int(card['size']),
                names=Names.of_arrays(file['name_bytes'], file['name_ends']),
                places=file['places'],
                labels=labels,
                classes=card['classes'],
                left_out=Counter(card['left_out']),
                masks=int(card['masks']),
                notes=card['notes'],
            )
        is_whole = index.places.dtype == np.int64 and index.places.shape == (len(index.names), 2)
        is_whole = is_whole and (labels is None or len(labels) == len(index.names))
        return index if is_whole and index.path.stat().st_size == index.size else None
    except _DAMAGE:
        return None


def _write_index(kept: Path, index: FileIndex) -> None:
    card = dict(
        path=str(index.path.absolute()),
        size=index.size,
        has_labels=index.labels is not None,
        classes=index.classes,
        left_out=dict(index.left_out),
        masks=index.masks,
        notes=list(index.notes),
    )
    arrays = dict(zip(('name_bytes', 'name_ends'), index.names.arrays(), strict=True), places=index.places)
    if index.labels is not None:
        arrays |= zip(('label_bytes', 'label_ends'), index.labels.arrays(), strict=True)
    try:
        with replacing(kept) as temporary, temporary.open('wb') as file:
            np.savez(file, card=np.frombuffer(json.dumps(card).encode(), np.uint8), **arrays)
    except (WriteError, OSError):
        pass  # an index is made again where it cannot be kept


@contextmanager
def _turn(what: str) -> Iterator[None]:
    """Hold the lock of the cache's indices; go on without one where it cannot be written."""
    lock = FileLock(cache_folder() / 'indices' / '.lock')
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f'Waiting for another process that indexes {what} …', file=sys.stderr, flush=True)
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
