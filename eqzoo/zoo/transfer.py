"""Bytes from a URL to a file, going on where an earlier attempt stopped."""

import os
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from eqzoo.zoo.cache import Entry
from eqzoo.zoo.sources import HUB

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
