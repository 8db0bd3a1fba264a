"""Public files on this machine: found in the cache, or downloaded and checked.

pooch puts a file into its place when it is whole and has the expected hash. huggingface_hub supplies the user's token
and the hash that the Hub states. The bytes come through `ResumingDownloader`, because both libraries restart a broken
download from the beginning: pooch always, `hf_hub_download` (of 2.4) in every later call. It also does without the
Hub's own headers, which plain mirrors do not send.
"""

import datetime
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from filelock import FileLock, Timeout

from eqzoo.config import configs_folder
from eqzoo.files import expand_home, replacing, sha256_of, write_json, writing_to
from eqzoo.registry import Requirement
from eqzoo.zoo.index import (
    DIFFUSERS_COMPANION,
    DIFFUSERS_CONFIG,
    DIFFUSERS_WEIGHTS,
    HUB,
    PACKAGED,
    ReleasedFile,
    bare_url,
    is_hub_folder,
    is_remote,
    models,
    resolve,
)
from eqzoo.zoo.transfer import Patience, ResumingDownloader

_HUB_ID = re.compile(r'[\w-][\w.-]*/[\w.-]+')

_PATIENCE = Patience()


@dataclass(frozen=True)
class DownloadRecord:
    """The note about a downloaded file that is kept beside it, as `eqzoo.json`.

    Args:
        url: Its address, without a password.
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
        file: The file; its URL alone decides the place, whatever mirror it is fetched from. One that comes with eqzoo
            is where it was installed, and has no note.
    """

    def __init__(self, file: ReleasedFile) -> None:
        self.folder = _place_of(file.url)
        self.path = self.folder / file.name
        self.is_packaged = file.url.startswith(PACKAGED)
        if self.is_packaged:
            self.path = configs_folder() / file.url.removeprefix(PACKAGED)
        self.part = self.folder / f'{file.name}.part'
        self.note = self.folder / 'eqzoo.json'

    def record(self) -> DownloadRecord | None:
        """Return the note of the last complete download, if there was one.

        Raises:
            ValueError: If it is damaged.
        """
        if self.is_packaged or not self.note.is_file():
            return None
        try:
            record = DownloadRecord(**json.loads(self.note.read_text()))
            int(record.size), bytes.fromhex(record.sha256), datetime.datetime.fromisoformat(record.date)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'download: {self.note} is damaged; delete {self.folder} to download the file again.'
            ) from error
        return record

    def is_whole(self) -> bool:
        """Return whether the file is there and has the size that was downloaded."""
        if self.is_packaged:
            return self.path.is_file()
        record = self.record()
        return record is not None and self.path.is_file() and self.path.stat().st_size == record.size


OTHER_CACHE = 'set EQZOO_CACHE to a folder that you may write to'
"""The remedy where the cache cannot be written."""


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
        source: A path; a URL as `eqzoo.zoo.resolve` takes it; or `hf://org/repository`, also with
            a folder in it, for a folder of diffusers.
        patience: How long to wait for the server.

    Raises:
        FileNotFoundError: If there is no such file, here or on the server.
        PermissionError: If a licence has to be accepted first.
        OSError: If the server fails, `HF_HUB_OFFLINE` is set, or the disk is full.
        ValueError: If the source names no file, or the bytes have another hash.
    """
    if not is_remote(source):
        return located(source)
    if is_hub_folder(source):
        return _fetch_folder(str(source).rstrip('/'), patience)
    file = resolve(str(source))
    place = CachedFile(file)
    if place.is_whole():
        return place.path
    if place.is_packaged:
        raise FileNotFoundError(f'weights: {place.path}, which comes with eqzoo, is missing; install eqzoo again.')
    if os.environ.get('HF_HUB_OFFLINE', '').lower() in ('1', 'on', 'yes', 'true'):
        raise OSError(
            f'download: {bare_url(file.url)} is not in the cache, and HF_HUB_OFFLINE is set; unset it to download.'
        )
    with writing_to(place.folder, place.folder / '.lock', place.part, remedy=OTHER_CACHE):
        place.folder.mkdir(parents=True, exist_ok=True)
        with _turn(place.folder / '.lock', bare_url(file.url)):
            if not place.is_whole():
                _download(file, place, patience)
    return place.path


def cached(source: str | Path) -> Path | None:
    """Return the local path of `source` if it is on this machine; no server is asked."""
    if not is_remote(source):
        return path if (path := expand_home(source)).exists() else None
    if is_hub_folder(source):
        folder = _place_of(str(source).rstrip('/'))
        return folder if _is_whole_folder(folder) else None
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
        if str(source) in models():
            remedy = f'the model of the zoo is eqzoo://{source}.'
        if command is None and _HUB_ID.fullmatch(str(source)):
            remedy = f'correct weights=PATH; a repository of the Hugging Face Hub is hf://{source}.'
        raise FileNotFoundError(f'weights: there is no file {bare_url(source)!r}; {remedy}')
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
    file = None if is_hub_folder(source) else resolve(str(source))
    name = next((model.name for model in models().values() if file in model.files), None)
    return f'python tools/download.py {name or shlex.quote(bare_url(source))}'


def weights_files(weights: str | Path | Sequence[str | Path] | None) -> list[str | Path]:
    """Return the files that an argument `weights` names: none, one, or the two of 'ENCODER,DECODER'.

    Example:
        >>> weights_files('taesd_encoder.pth,taesd_decoder.pth')
        ['taesd_encoder.pth', 'taesd_decoder.pth']
    """
    if weights is None:
        return []
    if isinstance(weights, Path) or (
        isinstance(weights, str) and (',' not in weights or expand_home(weights).exists())
    ):
        return [weights]
    if not isinstance(weights, str):
        return list(weights)
    parts = weights.split(',')
    # a URL may have commas of its own
    return parts if all(map(is_remote, parts)) or not is_remote(weights) else [weights]


def weights_requirements(what: str, weights: str | Path | Sequence[str | Path] | None) -> list[Requirement]:
    """Return the files of an argument `weights` that are missing; for a component's `requirements`.

    Args:
        what: The name of the weights in messages.
        weights: A file, several files, or None for random weights.

    Example:
        >>> weights_requirements('weights of DiT', 'nowhere.pth')[0].remedy
        'correct weights=PATH'
    """
    return [
        Requirement(what, str(file), fetch_command(file) or 'correct weights=PATH')
        for file in weights_files(weights)
        if cached(file) is None
    ]


def _place_of(url: str) -> Path:
    """Return the folder in the cache of an address; a password in it leaves no trace there."""
    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2])) if '@' in parts.netloc else url
    readable = re.sub(r'[^\w.-]+', '-', bare_url(url).partition('://')[2])[:60].strip('-')
    return cache_folder() / f'{readable}-{hashlib.sha256(bare.encode()).hexdigest()[:12]}'


def _fetch_folder(source: str, patience: Patience) -> Path:
    """Download the files of a folder of diffusers, and return a folder of links to them."""
    place = _place_of(source)
    if _is_whole_folder(place):
        return place

    def find(names: Sequence[str]) -> Path | None:
        for name in names:
            try:
                return fetch(f'{source}/{name}', patience=patience)
            except FileNotFoundError:  # another variant, or none
                continue
        return None

    files = [find([DIFFUSERS_CONFIG]), find(DIFFUSERS_WEIGHTS), find([DIFFUSERS_COMPANION])]
    if None in files[:2]:
        lacking = DIFFUSERS_CONFIG if files[0] is None else 'diffusion_pytorch_model.safetensors or another variant'
        raise FileNotFoundError(
            f'download: {source} has no {lacking}; expected a folder of diffusers; of a pipeline, give {source}/vae; '
            'of another repository, a file: hf://org/repository/path/of/file.'
        )
    if files[1].suffix == '.json':
        files += [fetch(f'{source}/{name}', patience=patience) for name in shard_names(files[1])]
    with replacing(place) as temporary:
        temporary.mkdir()
        for file in filter(None, files):
            (temporary / file.name).symlink_to(os.path.relpath(file, place))
    return place


def _is_whole_folder(place: Path) -> bool:
    """Return whether a folder of links is there, with all files, which may have been deleted from the cache."""
    return place.is_dir() and all(link.is_file() for link in place.iterdir())


def shard_names(index: Path) -> list[str]:
    """Return the names of the files that an index of shards lists.

    Raises:
        ValueError: If it is no such index, or a name leaves its folder.
    """
    try:
        names = list(dict.fromkeys(json.loads(index.read_text())['weight_map'].values()))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        names = []
    if not names or not all(isinstance(name, str) and re.fullmatch(r'\w[\w.-]*', name) for name in names):
        raise ValueError(
            f"weights: {str(index)!r} is no index of shards; expected JSON with 'weight_map', from weights to names of "
            'files beside it; fetch it again.'
        )
    return names


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
    record = DownloadRecord(bare_url(file.url), sha256, place.path.stat().st_size, file.sha256 is not None, date)
    write_json(place.note, asdict(record))


def _take_member(archive: Path, file: ReleasedFile, place: CachedFile, expected: str | None, origin: str) -> None:
    """Replace an archive by the file that is wanted from it; reading it also checks its CRC-32."""
    url = bare_url(file.url)
    try:
        with zipfile.ZipFile(archive) as opened, replacing(place.path) as temporary:
            named = [name for name in opened.namelist() if Path(name).name == file.member]
            if not named:
                raise ValueError(
                    f'download: {bare_url(file.url)} has no {file.member}; it has {", ".join(opened.namelist())}.'
                )
            with opened.open(named[0]) as member, temporary.open('wb') as target:
                shutil.copyfileobj(member, target)
            found = sha256_of(temporary)
            if expected not in (None, found):
                raise ValueError(_refusal(file, place, f'got the sha256 {found}, expected {expected}.', origin))
    except zipfile.BadZipFile as error:
        raise ValueError(f'download: {url} is no whole zip archive ({error}); try again.') from error
    finally:
        archive.unlink()


def _refusal(file: ReleasedFile, place: CachedFile, reason: object, origin: str) -> str:
    return (
        f'download: {bare_url(file.url)}: {reason} The expected hash was {origin}. The bytes were discarded; try '
        f'again, or another mirror (HF_ENDPOINT). If the file was replaced on purpose, delete {place.folder} first.'
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
