"""Tar archives: their members' places from one pass over the headers, and the samples of WebDataset in them.

Python's `tarfile` keeps an object for each member, and reads a header of any size that an archive claims.
Formats: POSIX.1-1988 (ustar), POSIX.1-2001 (pax), GNU's and version 7's. Samples: a key, the name up to the first dot
of its last part, and members `key.jpg`, `key.cls`, `key.json` (https://github.com/webdataset/webdataset).
"""

import json
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eqzoo.data.packed import FileIndex, make_index
from eqzoo.data.sources import EXTENSIONS, ending_of, is_hidden, masks_among
from eqzoo.text import printable

CLASS_ENDING = '.cls'  # WebDataset's for labels

_BLOCK = 512
_MOST_HEADER = 1 << 20  # bytes of a long name or of a pax header; Linux has paths of 4,096
_MOST_LABEL = 1 << 20  # bytes of a member that has a label, JSON included
_FILES, _FOLDER, _HARD_LINK, _LONG_NAME, _LONG_LINK = b'0\0' + b'7', b'5', b'1', b'L', b'K'
_PAX, _PAX_FOR_ALL, _SPARSE = b'xX', b'g', b'S'
_DATALESS = b'123456'  # links, devices, folders and pipes have no bytes, whatever size they state

_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'(\xb5/\xfd': 'zstd'}


class TarMember(NamedTuple):
    """A member of an archive: its name, its bytes' place, and the member that it links to, or None."""

    name: str
    offset: int
    size: int
    link: str | None


def is_tar(start: bytes) -> bool:
    """Return whether a file that begins with these bytes is a tar archive: its first header has the right checksum."""
    return len(start) >= _BLOCK and any(start[:_BLOCK]) and _checksum_holds(start[:_BLOCK])


def compression_of(start: bytes) -> str | None:
    """Return the name of the compression of a file that begins with these bytes; None if it has none."""
    return next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)


def index_tar(path: Path, image: str | None, label: str | None) -> FileIndex:
    """Return the index of the images in a tar archive.

    Of several images with one key, the one is taken whose ending is simple: `1.jpg` beside `1.seg.png`.

    Args:
        path: The archive, uncompressed.
        image: The ending of images, such as '.jpg' or '.input.jpg'; '*' for all of them; None for one of each key.
        label: '.cls', '.txt' or '.json:KEY': the member beside an image that has its label; 'auto' for '.cls' if there
            are any; None or 'folder' for none.

    Raises:
        ValueError: If it is damaged or cut off, if a key has several images, or if a label cannot be read.
    """
    endings = EXTENSIONS if image in (None, '*') else (image.lower(),)
    ending, _, key_of_json = (CLASS_ENDING if label == 'auto' else label or '').partition(':')
    images: dict[str, tuple[int, int]] = {}
    texts: dict[str, str] = {}
    others: Counter[str] = Counter()
    with path.open('rb') as file:
        walk = _Walk(path, file.fileno())
        for member in walk.members():
            name = _relative(member.name)
            if any(map(is_hidden, name.split('/'))):
                continue
            if ending.startswith('.') and name.endswith(ending):
                texts[_key(name)] = _label(path, file.fileno(), member, key_of_json)
            elif not name.lower().endswith(endings):
                others[ending_of(name)] += 1
            elif member.link is None:  # the last of several members of one name is the one that unpacking leaves
                images[name] = (member.offset, member.size)
            elif (linked := _relative(member.link)) in images:
                images[name] = images[linked]
            else:
                others['links to other files'] += 1
    masks = masks_among(images)
    rows = {name: place for name, place in images.items() if name not in masks}
    if image is None:
        rows, seconds = _one_of_each_key(path, rows)
        others += seconds
    labels = {name: texts.get(_key(name), '') for name in rows} if texts else None
    if labels is None and ending.startswith('.') and label != 'auto' and rows:
        raise ValueError(
            f'{path}: no member ends in {ending}, as label={label!r} says; expected one beside each image.'
        )
    notes = [] if walk.is_ended else [f'{path.name} has no end mark: it may be cut off.']
    return make_index(path, rows, labels, left_out=others, masks=len(masks), notes=notes)


class _Walk:
    """A walk over the headers of an archive.

    Args:
        path: For messages.
        file: Its descriptor.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path, self.file = path, file
        self.size = os.fstat(file).st_size
        self.is_ended = False

    def members(self) -> Iterator[TarMember]:
        """Yield the files of the archive in its order; their bytes are not read.

        Raises:
            ValueError: If it is damaged, cut off, or no tar archive.
        """
        place, common, own = 0, {}, {}
        while place < self.size:
            header = os.pread(self.file, _BLOCK, place)
            if len(header) < _BLOCK:
                raise self._cut(place)
            if not any(header):  # what follows is padding
                self.is_ended = True
                return
            if not _checksum_holds(header):
                what = 'damaged' if place else 'no tar archive, or damaged'
                raise ValueError(f'{self.path}: {what}: no header at byte {place:,}; pack or fetch it again.')
            kind, data = header[156:157], place + _BLOCK
            size = self._size(own.get('size') or common.get('size'), header, place)
            if kind in _DATALESS:
                size = 0
            if data + size > self.size:
                raise self._cut(place)
            place = data + -(-size // _BLOCK) * _BLOCK
            if kind in (_LONG_NAME, _LONG_LINK):
                own['path' if kind == _LONG_NAME else 'linkpath'] = _text(self._extra(data, size).split(b'\0')[0])
            elif kind in _PAX:
                own |= self._records(data, size)
            elif kind == _PAX_FOR_ALL:
                common |= self._records(data, size)
            else:
                fields, own = {**common, **own}, {}
                name = fields.get('path') or _name(header)
                is_sparse = kind == _SPARSE or any(key.startswith('GNU.sparse') for key in fields)
                if is_sparse:
                    raise ValueError(f'{self.path}: {printable(name)} is stored as a sparse file; pack it without -S.')
                if kind == _HARD_LINK:
                    yield TarMember(name, data, 0, fields.get('linkpath') or _text(header[157:257].split(b'\0')[0]))
                elif kind in _FILES and not name.endswith('/'):
                    yield TarMember(name, data, size, None)

    def _size(self, stated: str | None, header: bytes, place: int) -> int:
        field = header[124:136]
        try:
            if stated is not None:
                size = int(stated)
            elif field[0] & 0x80:  # GNU: a number of two's complement in base 256
                size = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], 'big')
            else:
                size = int(field.strip(b' \0') or b'0', 8)
        except ValueError:
            size = -1
        if size < 0:
            raise ValueError(f'{self.path}: damaged: no size in the header at byte {place:,}; pack or fetch it again.')
        return size

    def _extra(self, data: int, size: int) -> bytes:
        if size > _MOST_HEADER:
            raise ValueError(f'{self.path}: damaged: a header of {size:,} bytes at byte {data:,}; pack it again.')
        return os.pread(self.file, size, data)

    def _records(self, data: int, size: int) -> dict[str, str]:
        """Return the records of a pax header, `LENGTH KEY=VALUE` and a line feed each (POSIX.1-2001)."""
        content, records, start = self._extra(data, size), {}, 0
        while start < len(content) and content[start : start + 1] != b'\0':
            digits, blank, _ = content[start : start + 20].partition(b' ')
            length = int(digits) if digits.isdigit() else 0
            key, equals, value = content[start + len(digits) + 1 : start + length].partition(b'=')
            if not (blank and equals and value.endswith(b'\n') and start + length <= len(content)):
                raise ValueError(f'{self.path}: damaged: a wrong pax header at byte {data:,}; pack it again.')
            records[_text(key)] = _text(value[:-1])
            start += length
        return records

    def _cut(self, place: int) -> ValueError:
        return ValueError(
            f'{self.path}: incomplete: it has {self.size:,} bytes, and the member at byte {place:,} goes beyond; pack '
            'or fetch it again.'
        )


def _checksum_holds(header: bytes) -> bool:
    """Return whether the sum of a header's bytes is the one it states, with its own field as blanks."""
    try:
        stated = int(header[148:156].strip(b' \0') or b'-', 8)
    except ValueError:
        return False
    total = sum(header) - sum(header[148:156]) + 8 * ord(' ')
    # some old programs summed signed bytes
    return stated == total or stated == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def _name(header: bytes) -> str:
    name = _text(header[:100].split(b'\0')[0])
    prefix = _text(header[345:500].split(b'\0')[0]) if header[257:263] == b'ustar\0' else ''
    return f'{prefix}/{name}' if prefix else name


def _relative(name: str) -> str:
    """Return a member's name without the './' of `tar -C folder .`, and without a first '/'."""
    return posixpath.normpath(name).lstrip('/')


def _text(content: bytes) -> str:
    return content.decode(errors='surrogateescape')


def _key(name: str) -> str:
    folder, slash, base = name.rpartition('/')
    return f'{folder}{slash}{base.partition(".")[0]}'


def _one_of_each_key(path: Path, rows: dict[str, tuple[int, int]]) -> tuple[dict[str, tuple[int, int]], Counter[str]]:
    """Return the image of each sample, and the endings of the others."""
    samples = defaultdict(list)
    for name in rows:
        samples[_key(name)].append(name)
    kept, others = {}, Counter()
    for key, names in samples.items():
        simple = names if len(names) == 1 else [name for name in names if name.count('.', len(key)) == 1]
        if len(simple) != 1:
            endings = ', '.join(sorted(repr(name[len(key) :]) for name in names)[:8])
            raise ValueError(
                f'{path}: {printable(key)} has {len(names)} images: {printable(endings)}; set image to the ending of '
                "those to read, or image='*' to read all."
            )
        kept[simple[0]] = rows[simple[0]]
        others.update(name[len(key) :] for name in names if name != simple[0])
    return kept, others


def _label(path: Path, file: int, member: TarMember, key: str) -> str:
    where = f'{path}: {printable(member.name)}'
    if member.size > _MOST_LABEL:
        raise ValueError(f'{where}: a label of {member.size:,} bytes; expected a number or a word.')
    text = os.pread(file, member.size, member.offset).decode(errors='replace').strip()
    if not key:
        return text
    try:
        value = json.loads(text)
        found = value[key] if isinstance(value, dict) else None
    except (ValueError, RecursionError):
        raise ValueError(f'{where}: no JSON; pack it again, or choose another label.') from None
    except KeyError:
        raise ValueError(f'{where}: no key {key!r}; its keys: {printable(", ".join(value))}.') from None
    if not isinstance(found, str | int):
        raise ValueError(f'{where}: {key} is {printable(found)[:80]}; expected a whole number or text.')
    return str(found)
