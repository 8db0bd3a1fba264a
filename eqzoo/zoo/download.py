"""Public files on this machine: found in the cache, or downloaded and checked.

pooch puts a file into its place when it is whole and has the expected hash. huggingface_hub supplies
the user's token and the hash that the Hub states. The bytes come through `ResumingDownloader`,
because both libraries start a broken download anew: pooch always, `hf_hub_download` (of 2.4) in every
later call. It also does without the Hub's own headers, which plain mirrors do not send.
"""

import datetime
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from tqdm import tqdm

from eqzoo.files import replacing, sha256_of, write_json, writing_to
from eqzoo.registry import Requirement
from eqzoo.zoo.index import HUB, ReleasedFile, is_remote, models, resolve

CHUNK = 1 << 14  # bytes; a broken connection loses at most this much, since urllib3 discards the chunk it was reading


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Args:
        connect: Seconds to connect.
        read: Seconds without a byte.
        attempts: The number of attempts.
        pause: Seconds before the second attempt, doubled before each further one.
    """

    connect: float = 10
    read: float = 30
    attempts: int = 5
    pause: float = 1


_PATIENCE = Patience()


@dataclass(frozen=True)
class DownloadRecord:
    """The note about a downloaded file that is kept beside it, as `eqzoo.json`.

    Args:
        url: Its address.
        sha256: Of the bytes downloaded (of the member, where they were an archive).
        size: Bytes.
        published: Whether the index has `sha256`; otherwise it was recorded on the first download.
        date: When it was downloaded, ISO 8601.
    """

    url: str
    sha256: str
    size: int
    published: bool
    date: str


class CachedFile:
    """The place of one public file in the cache.

    Args:
        file: The file; its URL alone decides the place, whatever mirror it is fetched from.
    """

    def __init__(self, file: ReleasedFile) -> None:
        readable = re.sub(r'[^\w.-]+', '-', file.url.partition('://')[2])[:60].strip('-')
        self.folder = cache_folder() / f'{readable}-{hashlib.sha256(file.url.encode()).hexdigest()[:12]}'
        self.path = self.folder / file.name
        self.part = self.folder / f'{file.name}.part'
        self.note = self.folder / 'eqzoo.json'

    def record(self) -> DownloadRecord | None:
        """Return the note of the last complete download, if there was one."""
        return DownloadRecord(**json.loads(self.note.read_text())) if self.note.is_file() else None

    def is_whole(self) -> bool:
        """Return whether the file is there and has the size that was downloaded."""
        record = self.record()
        return record is not None and self.path.is_file() and self.path.stat().st_size == record.size


def cache_folder() -> Path:
    """Return `$EQZOO_CACHE`, or `eqzoo` in the user's cache folder."""
    given = os.environ.get('EQZOO_CACHE')
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(given) if given else Path(base) / 'eqzoo'


def fetch(source: str | Path, *, patience: Patience = _PATIENCE) -> Path:
    """Return the local path of `source`, and download it first if it is not in the cache.

    A file gets its name in the cache only when it is whole and has the expected hash: from the
    index, from the Hub, or from its first download.

    Args:
        source: A path, or a URL as `eqzoo.zoo.resolve` takes it.
        patience: How long to wait for the server.

    Raises:
        FileNotFoundError: If there is no such file, here or on the server.
        PermissionError: If a licence has to be accepted first.
        OSError: If the server fails, `HF_HUB_OFFLINE` is set, or the disk is full.
        ValueError: If the source names no file, or the bytes have another hash.
    """
    if not is_remote(source):
        return located(source)
    file = resolve(str(source))
    place = CachedFile(file)
    if place.is_whole():
        return place.path
    if os.environ.get('HF_HUB_OFFLINE', '').lower() in ('1', 'on', 'yes', 'true'):
        raise OSError(f'download: {file.url} is not in the cache, and HF_HUB_OFFLINE is set; unset it to download.')
    with writing_to(place.folder, place.folder / '.lock', place.part):
        place.folder.mkdir(parents=True, exist_ok=True)
        with _turn(place.folder / '.lock', file.url):
            if not place.is_whole():
                _download(file, place, patience)
    return place.path


def cached(source: str | Path) -> Path | None:
    """Return the local path of `source` if it is on this machine; no server is asked."""
    if not is_remote(source):
        return Path(source) if Path(source).exists() else None
    place = CachedFile(resolve(str(source)))
    return place.path if place.is_whole() else None


def located(source: str | Path) -> Path:
    """Return the local path of `source`.

    Raises:
        FileNotFoundError: If it is not on this machine, with the command that fetches it.
    """
    path = cached(source)
    if path is None:
        command = fetch_command(source)
        remedy = f'fetch it: {command}' if command else 'correct weights=PATH.'
        raise FileNotFoundError(f'weights: there is no file {str(source)!r}; {remedy}')
    return path


def record_of(source: str) -> DownloadRecord | None:
    """Return the note of the downloaded `source`, if it was downloaded."""
    return CachedFile(resolve(source)).record()


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


def weights_requirements(what: str, weights: str | Path | Sequence[str | Path] | None) -> list[Requirement]:
    """Return the files of an argument `weights` that are missing; for a component's `requirements`.

    Args:
        what: The name of the weights in messages.
        weights: A file, several files, or None for random weights.

    Example:
        >>> weights_requirements('weights of DiT', 'nowhere.pth')[0].remedy
        'correct weights=PATH'
    """
    files = weights if isinstance(weights, list | tuple) else [weights]
    return [
        Requirement(what, str(file), fetch_command(file) or 'correct weights=PATH')
        for file in files
        if file is not None and cached(file) is None
    ]


@contextmanager
def _turn(path: Path, url: str) -> Iterator[None]:
    """Hold a lock: one process downloads, the others say so, wait and find the file."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f'Waiting for another process that downloads {url} …', file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(file: ReleasedFile, place: CachedFile, patience: Patience) -> None:
    import pooch  # here, since only a download needs it

    pooch.get_logger().setLevel('WARNING')  # it would print hashes, and advice on calling it
    url, before = _address(file), place.record()
    login, stated = _ask_hub(url, patience) if _is_on_hub(url) else ({}, None)
    expected, origin = stated, 'stated by the Hub'
    if before is not None:
        expected, origin = before.sha256, 'recorded on its first download'
    if file.sha256 is not None:
        expected, origin = file.sha256, 'published'
    archive = place.folder / f'{file.name}.zip' if file.member else None
    target = archive or place.folder / f'{file.name}.new'
    target.unlink(missing_ok=True)  # of a killed download; without a hash, pooch would take it
    known_hash = None if archive else expected  # of an archive, the member's hash is known
    downloader = ResumingDownloader(place.part, login, license_page=file.license_page, patience=patience)
    try:
        pooch.retrieve(url, known_hash, target.name, place.folder, downloader=downloader)
    except ValueError as error:  # the hash differs; the downloader raises OSErrors only
        raise ValueError(_refusal(file, place, error, origin)) from None
    if archive is None:
        target.replace(place.path)
    else:
        _take_member(archive, file, place, expected, origin)
    sha256 = expected or sha256_of(place.path)
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
    record = DownloadRecord(file.url, sha256, place.path.stat().st_size, file.sha256 is not None, date)
    write_json(place.note, asdict(record))


def _take_member(archive: Path, file: ReleasedFile, place: CachedFile, expected: str | None, origin: str) -> None:
    """Replace an archive by the file that is wanted from it; reading it also checks its CRC-32."""
    try:
        with zipfile.ZipFile(archive) as opened, replacing(place.path) as temporary:
            named = [name for name in opened.namelist() if Path(name).name == file.member]
            if not named:
                raise ValueError(f'download: {file.url} has no {file.member}; it has {", ".join(opened.namelist())}.')
            with opened.open(named[0]) as member, temporary.open('wb') as target:
                shutil.copyfileobj(member, target)
            found = sha256_of(temporary)
            if expected not in (None, found):
                raise ValueError(_refusal(file, place, f'got the sha256 {found}, expected {expected}.', origin))
    except zipfile.BadZipFile as error:
        raise ValueError(f'download: {file.url} is no whole zip archive ({error}); try again.') from error
    finally:
        archive.unlink()


def _refusal(file: ReleasedFile, place: CachedFile, reason: object, origin: str) -> str:
    return (
        f'download: {file.url}: {reason} The expected hash was {origin}. The bytes were discarded; try again, or '
        f'another mirror (HF_ENDPOINT). If the file was replaced on purpose, delete {place.folder} first.'
    )


def _address(file: ReleasedFile) -> str:
    """Return the address to fetch `file` from: for the Hub, `HF_ENDPOINT` where that is set."""
    endpoint = os.environ.get('HF_ENDPOINT', '').rstrip('/')
    return endpoint + file.url.removeprefix(HUB) if endpoint and file.url.startswith(f'{HUB}/') else file.url


def _is_on_hub(url: str) -> bool:
    # with the slash: huggingface.co.example.org is another host, which must not get the user's token
    return url.startswith(tuple(f'{hub.rstrip("/")}/' for hub in (HUB, os.environ.get('HF_ENDPOINT') or HUB)))


def _ask_hub(url: str, patience: Patience) -> tuple[dict[str, str], str | None]:
    """Return the headers that log the user in, and the sha256 that the Hub states for a large file."""
    from huggingface_hub import get_hf_file_metadata, get_token
    from huggingface_hub.errors import HTTPError

    token = get_token()  # of HF_TOKEN, or of `hf auth login`
    try:
        etag = get_hf_file_metadata(url, timeout=patience.connect).etag or ''
    except (HTTPError, OSError):  # the download itself will say why, and some mirrors only answer GET
        etag = ''
    # of a small file, the ETag is git's hash
    return {'Authorization': f'Bearer {token}'} if token else {}, etag if re.fullmatch('[0-9a-f]{64}', etag) else None


class ResumingDownloader:
    """A downloader for pooch that continues a broken transfer, in the same call or in a later one.

    Args:
        part: The file that keeps what has come so far; its ETag is kept beside it.
        headers: Headers of each request; requests drops `Authorization` on the way to another host.
        license_page: The page where the licence is accepted, for the message.
        patience: How long to wait for the server.
    """

    def __init__(self, part: Path, headers: Mapping[str, str], *, license_page: str | None, patience: Patience) -> None:
        self.part, self.tag = part, part.with_name(f'{part.name}.etag')
        self.headers = {'Accept-Encoding': 'identity', **headers}  # a compressed body has no offsets
        self.license_page, self.patience = license_page, patience

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url` to `output_file`.

        Raises:
            FileNotFoundError: If there is no such file.
            PermissionError: If the server wants a licence accepted and a token.
            OSError: If the server fails, or stays silent, to the last attempt; the bytes that have
                come are kept for the next call.
        """
        for attempt in range(self.patience.attempts):
            try:
                self._attempt(url)
                break
            except _TransientError as error:
                if attempt + 1 == self.patience.attempts:
                    kept = self.part.stat().st_size if self.part.exists() else 0
                    raise OSError(
                        f'download: {url}: {error}, {self.patience.attempts} times; {kept:,} bytes are kept; run it '
                        'again to continue from there.'
                    ) from error
                time.sleep(self.patience.pause * 2**attempt)
        self.part.replace(output_file)
        self._discard()

    def _attempt(self, url: str) -> None:
        # a part without an ETag could be of another version of the file
        etag = self.tag.read_text() if self.tag.is_file() and self.part.is_file() else None
        have = self.part.stat().st_size if etag else 0
        headers = {**self.headers, 'Range': f'bytes={have}-', 'If-Range': etag} if have else self.headers
        timeout = (self.patience.connect, self.patience.read)
        try:
            with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
                self._check_status(response, url)
                self._write(response, have if response.status_code == requests.codes.partial_content else 0)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _TransientError(_failure(error)) from error
        except requests.RequestException as error:
            raise OSError(f'download: {url}: {error}; correct the URL.') from error

    def _write(self, response: requests.Response, start: int) -> None:
        """Append the body to the first `start` bytes of the part, and check that all of it has come."""
        length = response.headers.get('Content-Length')
        total = start + int(length) if length is not None else None
        if not start:
            etag = response.headers.get('ETag')
            self._discard()
            if etag is not None and not etag.startswith('W/'):  # a weak ETag does not promise the same bytes
                self.tag.write_text(etag)
        name = self.part.name.removesuffix('.part')
        bar = tqdm(desc=name, total=total, initial=start, unit='B', unit_scale=True, mininterval=1)
        with self.part.open('r+b' if start else 'wb') as file, bar:
            file.seek(start)
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            size = file.tell()
        if total is not None and size < total:
            raise _TransientError(f'the connection ended after {size:,} of {total:,} bytes')

    def _check_status(self, response: requests.Response, url: str) -> None:
        code = response.status_code
        if code in (requests.codes.not_found, requests.codes.gone):
            raise FileNotFoundError(f'download: {url}: there is no such file (status {code}); correct the name or URL.')
        if code in (requests.codes.unauthorized, requests.codes.forbidden):
            page = self.license_page or f'{urlsplit(url).scheme}://{urlsplit(url).netloc}'
            raise PermissionError(
                f'download: {url}: the server refuses (status {code}); accept the licence at {page} and set HF_TOKEN '
                'to a token of your account.'
            )
        if code == requests.codes.requested_range_not_satisfiable:
            self._discard()
            raise _TransientError('the server has fewer bytes than were kept')
        if code >= requests.codes.server_error or code == requests.codes.too_many_requests:
            raise _TransientError(f'the server answered with status {code}')
        if code >= requests.codes.bad_request:
            raise OSError(f'download: {url}: the server answered with status {code}; correct the URL.')

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


class _TransientError(OSError):
    """A transfer failed in a way that may pass."""


def _failure(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout) or 'Read timed out' in str(error):
        return 'the server stayed silent'
    return 'the connection broke' if isinstance(error, requests.exceptions.ChunkedEncodingError) else 'no connection'
