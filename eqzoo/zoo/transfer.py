"""The transfer of one file over HTTP, which continues where it broke, in the same call or in a later one."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from eqzoo.lazy import LazyModule
from eqzoo.zoo.index import bare_url

requests = LazyModule('requests')

# A server may pack an answer that was asked for unpacked. Weights shrink by a tenth; this much is no weights file.
_MAX_UNPACKING, _SLACK = 20, 1 << 20

_HTML = re.compile(rb'\s*<(!doctype\s+html|html)', re.IGNORECASE)

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


class ResumingDownloader:
    """A downloader for pooch that continues a broken transfer, in the same call or in a later one.

    Args:
        part: The file for the bytes received so far; its ETag is kept beside it.
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
                        f'download: {bare_url(url)}: {error}, {self.patience.attempts} times; {kept:,} bytes are kept; '
                        'run it again to continue from there.'
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
            raise OSError(f'download: {bare_url(url)}: {type(error).__name__}; correct the URL.') from error

    def _write(self, response: 'requests.Response', start: int) -> None:
        """Append the body to the first `start` bytes of the part, and check that all of it has come."""
        length = response.headers.get('Content-Length')
        is_packed = response.headers.get('Content-Encoding', 'identity') != 'identity'  # then the length is of the pack
        total = start + int(length) if length is not None and not is_packed else None
        if not start:
            etag = response.headers.get('ETag')
            self._discard()
            if (
                etag is not None and not is_packed and not etag.startswith('W/')
            ):  # a weak ETag does not promise the same bytes
                self.tag.write_text(etag)
        name = self.part.name.removesuffix('.part')
        bar = tqdm(desc=name, total=total, initial=start, unit='B', unit_scale=True, mininterval=1)
        with self.part.open('r+b' if start else 'wb') as file, bar:
            file.seek(start)
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if is_packed and file.tell() > _MAX_UNPACKING * response.raw.tell() + _SLACK:
                    raise OSError(
                        f'download: {bare_url(response.url)}: the answer is packed and unpacks to more than '
                        f'{_MAX_UNPACKING} times its bytes; expected a weights file; correct the URL.'
                    )
            size = file.tell()
        if total is not None and size < total:
            raise _TransientError(f'the connection ended after {size:,} of {total:,} bytes')
        with self.part.open('rb') as file:
            is_page = _HTML.match(file.read(64)) is not None
        if is_page or not size:
            self._discard()
            raise OSError(
                f'download: {bare_url(response.url)}: the server sent {"a web page" if is_page else "nothing"}; '
                'expected a file; correct the URL, or log in.'
            )

    def _check_status(self, response: 'requests.Response', url: str) -> None:
        url = bare_url(url)
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


def _failure(error: 'requests.RequestException') -> str:
    if isinstance(error, requests.Timeout) or 'Read timed out' in str(error):
        return 'the server stayed silent'
    return 'the connection broke' if isinstance(error, requests.exceptions.ChunkedEncodingError) else 'no connection'
