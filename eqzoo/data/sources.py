"""Sources of image files: the base class, folders and zip archives."""

import os
import re
import stat
import struct
import sys
import threading
import time
import weakref
import zipfile
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from eqzoo.data.decoding import FORMATS
from eqzoo.zips import data_offset, is_encrypted

_ENDINGS = {
    'AVIF': ('.avif',),
    'BMP': ('.bmp',),
    'GIF': ('.gif',),
    'JPEG': ('.jfif', '.jpeg', '.jpg'),
    'JPEG2000': ('.jp2',),
    'PNG': ('.png',),
    'PPM': ('.pgm', '.ppm'),
    'TIFF': ('.tif', '.tiff'),
    'WEBP': ('.webp',),
}
EXTENSIONS = tuple(sorted(ending for name in FORMATS for ending in _ENDINGS[name]))

# A file of more bytes is refused: a zip of two megabytes can unpack to two gigabytes. The largest image that Pillow
# opens (179 megapixels) has 0.7 GB in four channels.
MAX_BYTES = 1 << 30

# Files that belong beside images: texts about them, lists, checksums, what file managers leave. Nobody takes them for
# images, as one takes photographs in a format that is not read; those without an ending are known by their names.
_COMPANIONS = frozenset(
    (
        *('.txt', '.text', '.caption', '.tags', '.md', '.rst', '.html', '.htm', '.url', '.log'),
        *('.json', '.jsonl', '.csv', '.tsv', '.xml', '.yml', '.yaml', '.toml', '.ini', '.db'),
        *('.md5', '.sha1', '.sha256', 'authors', 'copying', 'license', 'licence', 'notice', 'readme'),
    )
)

# Masks of kohya's and OneTrainer's trainers, and of annotation tools: `1-masklabel.png`, `1_mask.png`, `1.mask.png`.
_MASK = re.compile(r'[-_.]mask(label)?\.[^./]+$', re.IGNORECASE)

_MAX_SHOWN = 8  # endings in a remark
_LONGEST = 9  # characters of an ending that is counted by its name

# The errors of zipfile on a damaged directory, and on one of another version of the format.
_BAD_ZIP = (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error, ValueError)
_WINDOWS = 0  # `create_system` of MS-DOS and Windows (APPNOTE, 4.4.2)
_SECONDS_TO_LINE = 2
_MOST_FOLDERS = 100_000  # ImageNet-21k has 22,000
_AT_ONCE = 100_000  # names joined at once while a list is packed

OPENING = threading.Lock()
"""Held while a source opens a file: threads that read headers share a source."""


class ImageSource(Protocol):
    """Named image files, read as bytes. Classes are the first-level folders of the names, or stated by the source."""

    root: Path | str
    kind: str
    left_out: Counter[str]
    """The files that are no images, counted by their endings; known after `names`."""
    masks: int = 0
    """The images that are left out as the masks of others; known after `names`."""
    notes: Sequence[str] = ()
    """Sentences about this source that its user should know."""
    classes: Sequence[str] | None = None
    """The names of the classes, if the source states them; None if they are folders."""

    def names(self) -> 'Names':
        """Return the paths of the images relative to the root, with '/', sorted."""

    def read(self, name: str) -> bytes:
        """Return the bytes of one image; OSError or ValueError if they cannot be read."""

    def byte_size(self, name: str) -> int:
        """Return the number of bytes of one image, without reading them."""

    def inside(self, name: str) -> str:
        """Return the path of an image in its own container, where a source has several."""
        return name

    def labels_of(self, names: Iterable[str]) -> list[int]:
        """Return the labels of sorted names, of a source that states `classes`."""
        raise NotImplementedError


def left_out_remark(source: ImageSource, *, with_companions: bool = False) -> str:
    """Return sentences on the files of a source that are not read, by their endings, and its notes; '' for none.

    Args:
        source: After `names`.
        with_companions: Count texts, lists and licences too, where there are no images to which they would belong.

    Example:
        >>> from types import SimpleNamespace
        >>> left_out = Counter({'.heic': 4, '': 1, '.txt': 9, 'license': 1})
        >>> left_out_remark(SimpleNamespace(root='photos', left_out=left_out, masks=0, notes=()))
        'photos: 5 files are left out, since their names do not end as images do: 4 .heic, 1 without an ending.'
    """
    sentences = []
    left_out = Counter(
        {ending: count for ending, count in source.left_out.items() if with_companions or ending not in _COMPANIONS}
    )
    if total := left_out.total():
        shown = left_out.most_common(_MAX_SHOWN)
        found = [f'{count} {ending or "without an ending"}' for ending, count in shown]
        more = len(left_out) - len(found)
        files = 'file is' if total == 1 else 'files are'
        sentences.append(
            f'{total} {files} left out, since {"its name does" if total == 1 else "their names do"} not end '
            f'as images do: {", ".join(found)}{f" and {more} more endings" if more else ""}.'
        )
    if source.masks:
        masks = 'mask beside its image is' if source.masks == 1 else 'masks beside their images are'
        sentences.append(f'{source.masks} {masks} left out.')
    sentences += source.notes
    return f'{source.root}: {" ".join(sentences)}' if sentences else ''


def masks_among(names: Iterable[str]) -> set[str]:
    """Return the images that are masks of others: `1_mask.png`, `1-masklabel.png` or `1.mask.png` beside `1.jpg`.

    Example:
        >>> masks_among(['a/1.jpg', 'a/1_mask.png', 'a/2_mask.png'])
        {'a/1_mask.png'}
    """
    wanted: dict[str, list[str]] = {}
    for name in names:
        if found := _MASK.search(name):
            wanted.setdefault(name[: found.start()], []).append(name)
    if not wanted:
        return set()
    stems = (os.path.splitext(name)[0] for name in names)  # noqa: PTH122 - of millions of names
    return {mask for stem in stems if stem in wanted for mask in wanted[stem]}


class FolderSource(ImageSource):
    """The images below a folder, at any depth, without hidden files, `__MACOSX` and `lost+found`.

    Args:
        root: The folder. Links to folders are followed, except to a folder that contains the link.
        endings: Of the names of images.
    """

    kind = 'folder'

    def __init__(self, root: Path, endings: tuple[str, ...] = EXTENSIONS) -> None:
        self.root, self.endings = Path(root), endings
        self.left_out: Counter[str] = Counter()
        self.masks = 0

    def names(self) -> 'Names':
        """Return the paths of the images relative to the root, with '/', sorted."""
        return self.walk()[0]

    def walk(self) -> tuple['Names', dict[str, os.stat_result], bool]:
        """Go through all folders; ValueError if one of them may not be read.

        Returns:
            The names of the images, sorted; the folders, by their paths below the root, with their status before they
            were read; and whether there is a link to a file, or to a folder that contains the link.
        """
        found: list[str] = []
        read: dict[str, os.stat_result] = {}
        hangs_on_link = False
        self.left_out.clear()
        watch = _Walk(self.root)
        folders = [(str(self.root), '', frozenset([os.path.realpath(self.root)]))]
        while folders:
            folder, prefix, above = folders.pop()
            watch.enter(len(found))
            try:
                read[prefix] = os.stat(folder)  # noqa: PTH116 - of many folders
                opened = os.scandir(folder)
            except PermissionError:
                raise ValueError(
                    f'{folder}: no permission to read this folder of {self.root}; allow it (chmod u+rx), move it away, '
                    'or give a folder beside it.'
                ) from None
            with opened as entries:
                for entry in entries:
                    if is_folder(entry):
                        if is_hidden(entry.name):
                            continue
                        real = os.path.realpath(entry.path)
                        if real not in above:
                            folders.append((entry.path, f'{prefix}{entry.name}/', above | {real}))
                        else:
                            hangs_on_link = True
                        continue
                    hangs_on_link = hangs_on_link or entry.is_symlink()
                    if entry.name.startswith('.'):
                        continue
                    # A dangling link is listed too, so that reading it reports the missing image.
                    if entry.name.lower().endswith(self.endings):
                        found.append(prefix + entry.name)
                    else:
                        self.left_out[ending_of(entry.name)] += 1
        masks = masks_among(found)
        self.masks = len(masks)
        names = Names(sorted(name for name in found if name not in masks) if masks else sorted(found))
        return names, read, hangs_on_link

    def read(self, name: str) -> bytes:
        """Return the bytes of one image; OSError if it is no file (a pipe, say) or has more than `MAX_BYTES`."""
        path = f'{self.root}/{name}'  # paths and buffers take as long as opening and reading a small file
        status = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            raise OSError('not a regular file')
        check_size(status.st_size)
        with open(path, 'rb', buffering=0) as file:  # noqa: PTH123
            return file.read()

    def byte_size(self, name: str) -> int:
        """Return the size of one file; 0 if it is gone."""
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return 0


class _Walk:
    """Watch over a walk through a folder: it says what it is doing, and ends where there are hardly any images.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.num_folders = root, 0
        self._next_line = time.monotonic() + _SECONDS_TO_LINE

    def enter(self, num_images: int) -> None:
        """Count one more folder, with the images found so far.

        Raises:
            ValueError: If there are many more folders than images: the root is not a folder of images.
        """
        self.num_folders += 1
        if self.num_folders > _MOST_FOLDERS and num_images < self.num_folders:
            raise ValueError(
                f'{self.root}: {num_images:,} images in the first {_MOST_FOLDERS:,} folders; expected a folder of '
                'images; give the one that they are in.'
            )
        if time.monotonic() >= self._next_line:
            self._next_line += _SECONDS_TO_LINE
            print(
                f'Looking for images in {self.root}: {num_images:,} in {self.num_folders:,} folders so far; Ctrl-C '
                'stops it.',
                file=sys.stderr,
            )


class ZipSource(ImageSource):
    """The images inside a zip archive, read in place.

    The directory of the archive is read once, into arrays of a few bytes an image: `zipfile` keeps an
    object for each of ten million members. The file is opened on the first read, and read with
    `pread`: forked workers share the descriptor but no file offset, spawned workers open their own.

    Args:
        root: The archive, with members stored or deflated, not encrypted.
        endings: Of the names of images.

    Raises:
        ValueError: If it is not a zip archive, is damaged, is encrypted, or is compressed otherwise.
    """

    kind = 'zip'

    def __init__(self, root: Path, endings: tuple[str, ...] = EXTENSIONS) -> None:
        self.root = Path(root)
        self.left_out: Counter[str] = Counter()
        members = {}
        try:
            with zipfile.ZipFile(self.root) as archive:
                infos = archive.infolist()
                has_slashes = any('/' in info.filename for info in infos)
                for info in infos:
                    name = info.filename
                    if info.create_system == _WINDOWS and not has_slashes:  # .NET before 4.6.1, against the format
                        name = name.replace('\\', '/')
                    if name.endswith('/') or any(map(is_hidden, name.split('/'))):
                        continue
                    if name.lower().endswith(endings):
                        members[name] = info
                    else:
                        self.left_out[ending_of(name)] += 1
        except _BAD_ZIP as error:
            damaged = self.root.suffix.lower() == '.zip'
            raise ValueError(
                f'{self.root}: damaged or incomplete zip ({error}); test it with `unzip -t` and fetch it again.'
                if damaged
                else f'{self.root}: neither a folder nor a zip of images; unpack it, or pack it as a zip.'
            ) from None
        masks = masks_among(members)
        self.masks = len(masks)
        self._names = Names(sorted(members.keys() - masks))
        rows = [_checked_row(self.root, members[name]) for name in self._names]
        self._rows = np.array(rows, np.int64).reshape(-1, 5)
        self._file: OpenFile | None = None

    def names(self) -> 'Names':
        """Return the paths of the images inside the archive, sorted."""
        return self._names

    def read(self, name: str) -> bytes:
        """Return the bytes of one image, unpacked and verified; OSError if they are damaged."""
        offset, packed_size, size, method, crc = self._row_of(name).tolist()
        with OPENING:
            if self._file is None:
                self._file = OpenFile(self.root)
        file = self._file.descriptor
        check_size(size)
        start = data_offset(file, offset)
        # asked before reading: `pread` first takes the memory for all bytes that the directory claims
        if start + packed_size > os.fstat(file).st_size:
            raise OSError('the zip ends before this member does')
        data = os.pread(file, packed_size, start)
        if method == zipfile.ZIP_DEFLATED:
            try:
                # one byte more than the directory claims shows that it lies, and the rest stays packed
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except zlib.error as error:
                raise OSError(f'cannot be unpacked ({error})') from None
        if len(data) != size or zlib.crc32(data) != crc:
            raise OSError('bytes do not match their checksum in the zip')
        return data

    def byte_size(self, name: str) -> int:
        """Return the unpacked size of one member."""
        return int(self._row_of(name)[2])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_file': None}

    def _row_of(self, name: str) -> np.ndarray:
        return self._rows[self._names.place_of(name)]


class OpenFile:
    """A file that is open for `pread`, and closed when nothing refers to it: no thread that reads it.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


class Names(Sequence[str]):
    """An immutable sequence of strings, stored as one array of bytes and one of the ends.

    A list of ten million paths takes a gigabyte, and another gigabyte in each forked worker, because counting
    references copies every page. This takes the bytes of the strings and eight more for each, which forks share.

    Args:
        names: The strings.

    Example:
        >>> names = Names(['cat/1.png', 'dog/2.png'])
        >>> names[1], len(names), list(names[:1])
        ('dog/2.png', 2, ['cat/1.png'])
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        iterator = iter(names)
        while piece := [name.encode(errors='surrogateescape') for name in islice(iterator, _AT_ONCE)]:
            parts.append(np.frombuffer(b''.join(piece), np.uint8))
            lengths.append(np.fromiter(map(len, piece), np.int64, len(piece)))
        self._bytes = np.concatenate(parts) if parts else np.empty(0, np.uint8)
        self._ends = np.concatenate(lengths).cumsum() if lengths else np.empty(0, np.int64)

    @classmethod
    def of_arrays(cls, characters: np.ndarray, ends: np.ndarray) -> 'Names':
        """Return the names that `arrays` gave.

        Raises:
            ValueError: If the arrays are of no names.
        """
        fits = characters.dtype == np.uint8 and ends.dtype == np.int64 and characters.ndim == ends.ndim == 1
        if not fits or (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != len(characters):
            raise ValueError('the arrays are of no names')
        names = cls(())
        names._bytes, names._ends = characters, ends
        return names

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bytes of the names and their ends, for a file."""
        return self._bytes, self._ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int | slice) -> 'str | Names':
        if isinstance(index, slice):
            return Names(self[place] for place in range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f'no name {index} of {len(self)}')
        start = self._ends[place - 1] if place else 0
        return self._bytes[start : self._ends[place]].tobytes().decode(errors='surrogateescape')

    def place_of(self, name: str) -> int:
        """Return the index of a name among sorted names; OSError if it is not there."""
        place = bisect_left(self, name)
        if place == len(self) or self[place] != name:
            raise FileNotFoundError(f'no image {name!r}')
        return place

    def __iter__(self) -> Iterator[str]:
        whole, start = self._bytes.tobytes(), 0
        for end in self._ends.tolist():
            yield whole[start:end].decode(errors='surrogateescape')
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        shown = ', '.join(map(repr, islice(self, 3)))
        return f'Names({len(self)}: {shown}{", …" if len(self) > 3 else ""})'


def _checked_row(root: Path, info: zipfile.ZipInfo) -> tuple[int, int, int, int, int]:
    if is_encrypted(info):
        raise ValueError(f'{root}: {info.filename} is encrypted; pack the images without a password.')
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = zipfile.compressor_names.get(info.compress_type, info.compress_type)
        raise ValueError(f'{root}: {info.filename} is packed by {method}; expected stored or deflated; pack it again.')
    if max(info.header_offset, info.compress_size, info.file_size) >= 1 << 62:  # zip64 has 64 bits, without a sign
        raise ValueError(f'{root}: {info.filename}: a size or place that no file has; the zip is damaged.')
    return info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC


def check_size(size: int) -> None:
    """Refuse an image of more than `MAX_BYTES`, before memory is taken for it; OSError."""
    if size > MAX_BYTES:
        raise OSError(f'{size:,} bytes; an image of more than {MAX_BYTES:,} is not read')


def ending_of(name: str) -> str:
    """Return the ending of a file's name by which it is counted; of a LICENSE or README the name, in small letters."""
    stem, ending = os.path.splitext(name.rpartition('/')[2].lower())  # noqa: PTH122 - of millions of names
    if not ending:
        return stem if stem in _COMPANIONS else ''
    return ending if len(ending) <= _LONGEST else '.…'  # a hash or a date, other in each of them


def is_hidden(part: str) -> bool:
    """Return whether files and folders of this name, a part of a path, are passed over."""
    return part.startswith('.') or part in ('__MACOSX', 'lost+found')


def is_folder(entry: os.DirEntry) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself, or to a closed place, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False
