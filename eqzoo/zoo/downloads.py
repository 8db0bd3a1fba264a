"""Public files on this machine: looked up, or downloaded and checked."""

import datetime
import os
import shlex
import zipfile
from pathlib import Path
from typing import NoReturn

from filelock import FileLock

from eqzoo.zoo.cache import Entry, Record
from eqzoo.zoo.digest import digest
from eqzoo.zoo.index import ReleasedFile, models
from eqzoo.zoo.sources import address, is_remote, resolve
from eqzoo.zoo.transfer import Patience, transfer

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
    found, size = digest(entry.part), entry.part.stat().st_size
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
