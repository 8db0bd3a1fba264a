"""Where downloaded files are kept: one folder a URL, with a note of what is in it."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eqzoo.zoo.index import ReleasedFile

_NOTE = 'eqzoo.json'
_PART_NOTE = 'eqzoo-part.json'


@dataclass(frozen=True)
class Record:
    """What is known of a downloaded file.

    Args:
        url: Where it is from.
        sha256: Of the bytes downloaded (of the member, where they were an archive).
        size: Bytes.
        published: Whether `sha256` was known before, or was recorded on the first download.
        date: When, ISO 8601.
    """

    url: str
    sha256: str
    size: int
    published: bool
    date: str


class Entry:
    """The place of one public file in the cache.

    Args:
        file: The file; its URL alone decides the place, whatever mirror it is fetched from.
    """

    def __init__(self, file: ReleasedFile) -> None:
        readable = re.sub(r'[^\w.-]+', '-', file.url.partition('://')[2])[:60].strip('-')
        self.folder = cache_folder() / f'{readable}-{hashlib.sha256(file.url.encode()).hexdigest()[:12]}'
        self.path = self.folder / file.name
        self.part = self.folder / f'{file.name}.part'
        self.lock = self.folder / '.lock'

    def record(self) -> Record | None:
        """Return what was noted at the last whole download, if there was one."""
        note = self._read(_NOTE)
        return Record(**note) if note else None

    def is_whole(self) -> bool:
        """Return whether the file is there as it was downloaded, by its size."""
        record = self.record()
        return record is not None and self.path.is_file() and self.path.stat().st_size == record.size

    def finish(self, record: Record) -> None:
        """Note what was downloaded and give the whole file its name."""
        self._write(_NOTE, asdict(record))
        self.part.replace(self.path)
        self.discard()

    def discard(self) -> None:
        """Forget what has come so far."""
        self.part.unlink(missing_ok=True)
        (self.folder / _PART_NOTE).unlink(missing_ok=True)

    def part_tag(self) -> str | None:
        """Return the ETag that the beginning in `part` belongs to."""
        return self._read(_PART_NOTE).get('etag')

    def write_part_tag(self, etag: str | None) -> None:
        """Note which version of the file `part` is the beginning of."""
        self._write(_PART_NOTE, {'etag': etag})

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text()) if path.is_file() else {}

    def _write(self, name: str, content: dict[str, Any]) -> None:
        temporary = self.folder / f'.{name}.tmp'
        temporary.write_text(json.dumps(content, indent=2) + '\n')
        temporary.replace(self.folder / name)


def cache_folder() -> Path:
    """Return `$EQZOO_CACHE`, else `eqzoo` in the user's cache folder."""
    given = os.environ.get('EQZOO_CACHE')
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(given) if given else Path(base) / 'eqzoo'
