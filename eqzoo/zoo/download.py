"""Public files on this machine: looked up, or downloaded and checked."""

import datetime
import hashlib
import json
import os
import re
import shlex
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from filelock import FileLock
from tqdm import tqdm

from eqzoo.files import sha256_of
from eqzoo.zoo.index import ReleasedFile, find, models

HUB = 'https://huggingface.co'

_HF = re.compile(r'hf://(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+?))?/(?P<path>[^@]+)')


def is_remote(source: str | Path) -> bool:
    """Return whether `source` is a URL of any kind, not a local path."""
    return isinstance(source, str) and source.startswith(('https://', 'http://', 'hf://', 'eqzoo://'))


def resolve(source: str) -> ReleasedFile:
    """Return the public file that a remote source names, with what the index knows of it.

    Args:
        source: `https://…`; `hf://org/repository[@revision]/path`; or `eqzoo://model`, with
            `/file` where a model has several.

    Raises:
        ValueError: If it names nothing.

    Example:
        >>> resolve('hf://org/repo@v1/vae/model.safetensors').url
        'https://huggingface.co/org/repo/resolve/v1/vae/model.safetensors'
    """
    if source.startswith('eqzoo://'):
        return _of_the_zoo(source)
    if source.startswith('hf://'):
        source = _hub_url(source)
    known = {file.url: file for model in models().values() for file in model.files}
    name = PurePosixPath(urlsplit(source).path).name
    if not name and source not in known:
        raise ValueError(f'weights: {source!r} names no file; accepted is a URL that ends in its name.')
    return known.get(source) or ReleasedFile(source, name)


def address(file: ReleasedFile) -> str:
    """Return where to fetch `file` from, which for the Hub is `HF_ENDPOINT` where that is set."""
    endpoint = os.environ.get('HF_ENDPOINT', '').rstrip('/')
    if endpoint and file.url.startswith(f'{HUB}/'):
        return endpoint + file.url.removeprefix(HUB)
    return file.url


def _of_the_zoo(source: str) -> ReleasedFile:
    name, _, wanted = source.removeprefix('eqzoo://').partition('/')
    files = {file.name: file for file in find(name).files}
    if len(files) == 1 and not wanted:
        return next(iter(files.values()))
    if wanted not in files:
        accepted = ', '.join(f'eqzoo://{name}/{file}' for file in files)
        raise ValueError(f'weights: {source!r} is not one file; accepted are {accepted}.')
    return files[wanted]


def _hub_url(source: str) -> str:
    match = _HF.fullmatch(source)
    if match is None:
        raise ValueError(f'weights: got {source!r}; accepted is hf://org/repository[@revision]/path/of/file.')
    return f'{HUB}/{match["repository"]}/resolve/{match["revision"] or "main"}/{match["path"]}'


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


CHUNK = 1 << 14  # what a broken connection loses at most: urllib3 discards the chunk it was reading


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Args:
        connect: Seconds to connect.
        read: Seconds without a byte.
        attempts: How often to try.
        pause: Seconds before the second attempt, doubled before each further one.
    """

    connect: float = 10
    read: float = 30
    attempts: int = 5
    pause: float = 1


class _TransientError(OSError):
    """A transfer failed in a way that may pass."""


def transfer(url: str, entry: Entry, *, license_page: str | None, patience: Patience) -> None:
    """Bring `entry.part` to the whole file at `url`.

    Raises:
        FileNotFoundError: If there is no such file.
        PermissionError: If the server wants a licence accepted and a token.
        OSError: If the server fails, or stays silent, to the last attempt; what has come is
            kept for the next call.
    """
    for attempt in range(patience.attempts):
        try:
            _attempt(url, entry, license_page, patience)
            return
        except _TransientError as error:
            if attempt + 1 == patience.attempts:
                kept = entry.part.stat().st_size if entry.part.exists() else 0
                raise OSError(
                    f'download: {url}: {error}, {patience.attempts} times; {kept:,} bytes are kept; run it again to '
                    'go on from there.'
                ) from error
            time.sleep(patience.pause * 2**attempt)


def _attempt(url: str, entry: Entry, license_page: str | None, patience: Patience) -> None:
    have, etag = (entry.part.stat().st_size, entry.part_tag()) if entry.part.exists() else (0, None)
    # a beginning whose version is unknown could be another file's
    have = have if etag else 0
    headers = {'Accept-Encoding': 'identity', **_login(url)}
    if have:
        headers |= {'Range': f'bytes={have}-', 'If-Range': etag}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.read)) as response:
            _check_status(response, url, license_page)
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                entry.discard()
                raise _TransientError('the server has fewer bytes than were kept')
            resumed = response.status_code == requests.codes.partial_content
            _write(response, entry, have if resumed else 0)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _TransientError(_reason(error)) from error


def _write(response: requests.Response, entry: Entry, start: int) -> None:
    """Append the body to the first `start` bytes of the part, and see that all of it came."""
    length = response.headers.get('Content-Length')
    total = start + int(length) if length is not None else None
    if not start:
        etag = response.headers.get('ETag')
        # a weak ETag does not promise the same bytes
        entry.write_part_tag(None if etag is None or etag.startswith('W/') else etag)
    bar = tqdm(desc=entry.path.name, total=total, initial=start, unit='B', unit_scale=True, mininterval=1)
    with entry.part.open('r+b' if start else 'wb') as file, bar:
        file.seek(start)
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        size = file.tell()
    if total is not None and size < total:
        raise _TransientError(f'the connection ended after {size:,} of {total:,} bytes')


def _check_status(response: requests.Response, url: str, license_page: str | None) -> None:
    code = response.status_code
    if code in (requests.codes.not_found, requests.codes.gone):
        raise FileNotFoundError(f'download: {url}: there is no such file (status {code}); correct the name or URL.')
    if code in (requests.codes.unauthorized, requests.codes.forbidden):
        page = license_page or f'{urlsplit(url).scheme}://{urlsplit(url).netloc}'
        raise PermissionError(
            f'download: {url}: the server refuses (status {code}); accept the licence at {page} and set HF_TOKEN to a '
            'token of your account.'
        )
    if code >= requests.codes.server_error or code == requests.codes.too_many_requests:
        raise _TransientError(f'the server answered with status {code}')
    if code >= requests.codes.bad_request and code != requests.codes.requested_range_not_satisfiable:
        raise OSError(f'download: {url}: the server answered with status {code}; correct the URL.')


def _login(url: str) -> dict[str, str]:
    """Return the header with the user's token, for the Hub alone; requests drops it on the way to another host."""
    token = os.environ.get('HF_TOKEN')
    # with the slash: huggingface.co.example.org is another host
    hubs = tuple(f'{hub.rstrip("/")}/' for hub in (HUB, os.environ.get('HF_ENDPOINT') or HUB))
    return {'Authorization': f'Bearer {token}'} if token and url.startswith(hubs) else {}


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout) or 'Read timed out' in str(error):
        return 'the server stayed silent'
    return 'the connection broke' if isinstance(error, requests.exceptions.ChunkedEncodingError) else 'no connection'


_PATIENCE = Patience()


def fetch(source: str | Path, *, patience: Patience = _PATIENCE) -> Path:
    """Return the local path of `source`, downloading it first if it is not there.

    A file takes its name in the cache only when it is whole and has the hash that is known of
    it: from the index, or from its first download.

    Args:
        source: A path, or a URL as `eqzoo.zoo.resolve` takes it.
        patience: How long to wait for the server.

    Raises:
        FileNotFoundError: If there is no such file, here or there.
        PermissionError: If a licence has to be accepted first.
        OSError: If the server fails, `HF_HUB_OFFLINE` is set, or the disk is full.
        ValueError: If the source names nothing, or the bytes have another hash.
    """
    if not is_remote(source):
        return located(source)
    file = resolve(str(source))
    entry = Entry(file)
    if entry.is_whole():
        return entry.path
    if os.environ.get('HF_HUB_OFFLINE', '').lower() in ('1', 'on', 'yes', 'true'):
        raise OSError(f'download: {file.url} is not in the cache, and HF_HUB_OFFLINE is set; unset it to download.')
    entry.folder.mkdir(parents=True, exist_ok=True)
    # of several processes one downloads, the others wait and find it
    with FileLock(entry.lock):
        if not entry.is_whole():
            _download(file, entry, patience)
    return entry.path


def cached(source: str | Path) -> Path | None:
    """Return the local path of `source` if it is here, without asking any server."""
    if not is_remote(source):
        return Path(source) if Path(source).exists() else None
    entry = Entry(resolve(str(source)))
    return entry.path if entry.is_whole() else None


def located(source: str | Path) -> Path:
    """Return the local path of `source`.

    Raises:
        FileNotFoundError: If it is not here, with the command that fetches it.
    """
    path = cached(source)
    if path is None:
        command = fetch_command(source)
        remedy = f'fetch it: {command}' if command else 'correct weights=PATH.'
        raise FileNotFoundError(f'weights: there is no file {str(source)!r}; {remedy}')
    return path


def record_of(source: str) -> Record | None:
    """Return what is noted of the downloaded `source`."""
    return Entry(resolve(source)).record()


def fetch_command(source: str | Path) -> str | None:
    """Return the command that fetches `source`, or None for a local path.

    Example:
        >>> fetch_command('eqzoo://sd-vae')
        'python tools/download.py sd-vae'
    """
    if not is_remote(source):
        return None
    file = resolve(str(source))
    name = next((model.name for model in models().values() if file in model.files), None)
    return f'python tools/download.py {name or shlex.quote(str(source))}'


def _download(file: ReleasedFile, entry: Entry, patience: Patience) -> None:
    transfer(address(file), entry, license_page=file.license_page, patience=patience)
    if file.member is not None:
        _extract(file, entry)
    found, size = sha256_of(entry.part), entry.part.stat().st_size
    before = entry.record()
    expected = file.sha256 or (before.sha256 if before else None)
    if expected not in (None, found):
        _refuse(file, entry, expected, found)
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
    entry.finish(Record(file.url, found, size, file.sha256 is not None, date))


def _refuse(file: ReleasedFile, entry: Entry, expected: str, found: str) -> NoReturn:
    entry.discard()
    known = 'published' if file.sha256 else 'recorded on its first download'
    raise ValueError(
        f'download: {file.url} has the sha256 {found}; accepted is {expected}, {known}. The bytes were discarded; try '
        f'again or another mirror (HF_ENDPOINT). If the file was replaced on purpose, delete {entry.folder} first.'
    )


def _extract(file: ReleasedFile, entry: Entry) -> None:
    """Put the member of the archive in `part` in the archive's place."""
    unpacked = entry.part.with_suffix('.member')
    try:
        with zipfile.ZipFile(entry.part) as archive:
            named = [name for name in archive.namelist() if Path(name).name == file.member]
            if not named:
                raise ValueError(f'download: {file.url} has no {file.member}; it has {", ".join(archive.namelist())}.')
            with archive.open(named[0]) as member, unpacked.open('wb') as target:
                while chunk := member.read(1 << 20):
                    target.write(chunk)
    except zipfile.BadZipFile as error:
        entry.discard()
        raise ValueError(f'download: {file.url} is no whole zip archive ({error}); try again.') from error
    unpacked.replace(entry.part)
