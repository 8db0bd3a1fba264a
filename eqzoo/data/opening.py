"""Open a source of images: folder, zip, tar shards, tables or LMDB, on this machine, a server or the Hub."""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from eqzoo.data.folder_index import IndexedFolder
from eqzoo.data.lmdbs import LmdbSource
from eqzoo.data.packed import FileIndex, PackedSource, indices_of
from eqzoo.data.sources import EXTENSIONS, FolderSource, ImageSource, ZipSource, is_folder
from eqzoo.data.tables import hub_files, index_arrow, index_parquet, saved_files
from eqzoo.data.tars import compression_of, index_tar, is_tar
from eqzoo.files import replacing
from eqzoo.text import printable
from eqzoo.zoo.download import cache_folder, fetch
from eqzoo.zoo.index import HUB, bare_url

Root = str | Path | Sequence[str | Path]

_HUB_DATA = re.compile(r'hf://datasets/(?P<name>([\w.-]+/)?[\w.-]+)(:(?P<config>[\w.+-]+))?/?')
_HUB_FILE = re.compile(r'hf://datasets/(?P<name>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+?))?/(?P<path>[^@]+)')
_URL = re.compile(r'[a-z][a-z0-9+.-]*://', re.IGNORECASE)
_BRACES = re.compile(r'\{([^{}]*)\}')
_RANGE = re.compile(r'(\d+)\.\.(\d+)')
_MOST_SHARDS = 1 << 20  # that braces may name
_LOOK_AT = 64  # folders, and entries of each, that are looked at to see whether a folder has shards

_LMDB_MAGIC = (0xBEEFC0DE).to_bytes(4, 'little')  # after a page header of 16 bytes (lmdb's mdb.c)

_INDEXERS: dict[str, Callable[[Path, str | None, str | None], FileIndex]] = {
    'tar': index_tar,
    'parquet file': index_parquet,
    'Arrow file': index_arrow,
}
_KINDS = {'.tar': 'tar', '.parquet': 'parquet file', '.arrow': 'Arrow file'}  # that may be many files


def open_source(root: Root, image: str | None = None, label: str | None = 'auto') -> ImageSource:
    """Open images, wherever they are; files on servers are first downloaded to the cache.

    Args:
        root: A folder of images, a zip archive, a tar archive, a parquet or Arrow file, an LMDB data base, or a folder
            of tars or of parquet files, or one that `datasets.save_to_disk` wrote. Several files of one kind as a list,
            a pattern (`*`, `**`) or braces (`{000..099}`, `{train,val}`). A URL of files: `https://…`, or one that
            fsspec knows, such as `s3://…`; `hf://datasets/org/name[:config]`, or a file in it.
        image: The ending of the images' names, or the column of the images in a table.
        label: Where labels are: 'auto', 'folder', an ending ('.cls', '.json:KEY'), a column, or None for nowhere.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is empty text, cannot be read as images, or `image` or `label` is for another kind of source.
    """
    if '' in ([root] if isinstance(root, str | Path) else root):  # of root=$DATA without DATA; a Path would be '.'
        raise ValueError("root is empty; expected a folder or files of images, '.' for the current folder.")
    if isinstance(root, str | Path):
        if match := _HUB_DATA.fullmatch(str(root)):
            return _packed(str(root), hub_files(match['name'], match['config']), image, label)
        path = Path(root).expanduser()
        if not _URL.match(str(root)) and path.exists():
            return _open_folder(path, image, label) if path.is_dir() else _open_file(path, path, image, label)
    places = [place for each in ([root] if isinstance(root, str | Path) else root) for place in _expanded(str(each))]
    if not places:
        raise ValueError('root is an empty list; expected a folder, or a list of files.')
    shown = bare_url(root) if isinstance(root, str | Path) else _shortened(places)
    files = {name: _local(place) for name, place in _by_name(places).items()}
    folders = [path for path in files.values() if path.is_dir()]
    if folders == [*files.values()] and len(folders) == 1:
        return _open_folder(folders[0], image, label)
    if folders:
        raise ValueError(
            f'{shown}: {printable(folders[0])} is a folder; of several places, all must be tars, parquet or Arrow '
            'files. Expected one folder, which may have links to others in it, or files, such as FOLDER/*.tar.'
        )
    if isinstance(root, str | Path) and places == [str(root)]:
        (file,) = files.values()
        return _open_file(file, shown, image, label)
    return _packed(shown, files, image, label)


def expand_braces(pattern: str) -> list[str]:
    """Return the names that a pattern with braces stands for, as a shell does.

    Raises:
        ValueError: If there are more than 2^20.

    Example:
        >>> expand_braces('s-{08..10}.tar'), expand_braces('{train,val}.tar')
        (['s-08.tar', 's-09.tar', 's-10.tar'], ['train.tar', 'val.tar'])
    """
    pieces, start, total = [], 0, 1
    for match in _BRACES.finditer(pattern):
        words = _words(match[1])
        if words is None:  # of one word: no braces of a shell
            continue
        total *= len(words)
        if total > _MOST_SHARDS:
            raise ValueError(f'{pattern}: its braces name more than {_MOST_SHARDS:,} files; expected fewer.')
        pieces += [[pattern[start : match.start()]], words]
        start = match.end()
    return [''.join(parts) for parts in product(*pieces, [pattern[start:]])]


def _words(content: str) -> Sequence[str] | None:
    if match := _RANGE.fullmatch(content):
        first, last = int(match[1]), int(match[2])
        padded = any(each.startswith('0') and len(each) > 1 for each in match.groups())
        width = max(map(len, match.groups())) if padded else 0
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        if len(numbers) > _MOST_SHARDS:
            raise ValueError(f'{{{content}}}: more than {_MOST_SHARDS:,} files; expected fewer.')
        return [f'{number:0{width}d}' for number in numbers]
    return content.split(',') if ',' in content else None


def _expanded(place: str) -> Iterator[str]:
    """Yield the files that a place with braces and wildcards names, sorted where they are listed."""
    if not _URL.match(place) and Path(place).expanduser().exists():
        yield place
        return
    for each in expand_braces(place):
        if _URL.match(each):
            yield from _remote_files(each) if set('*[') & set(each) else [each]
            continue
        each = str(Path(each).expanduser())
        found = sorted(glob.glob(each, recursive=True)) if set('*?[') & set(each) else [each]  # noqa: PTH207
        if not found or not os.path.exists(found[0]):  # noqa: PTH110
            raise FileNotFoundError(f'{each}: no such folder or zip of images (or tar, parquet, Arrow, LMDB).')
        yield from found


def _remote_files(pattern: str) -> list[str]:
    if pattern.startswith(('http://', 'https://')):
        raise ValueError(
            f'{bare_url(pattern)}: a web server lists no files; expected a number in braces, such as '
            'shard-{000..099}.tar, or a list of URLs.'
        )
    system, path = _file_system(pattern)
    found = sorted(system.glob(path))
    if not found:
        raise FileNotFoundError(f'{bare_url(pattern)}: no file there matches.')
    return [system.unstrip_protocol(each) for each in found]


def _file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    if find_spec('fsspec') is None:
        raise ValueError(f"{bare_url(url)}: this needs fsspec; expected: pip install 'eqzoo[webdataset]'.")
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ValueError(f'{bare_url(url)}: fsspec cannot read it: {printable(error)}') from None


def _local(place: str) -> Path:
    """Return the local path of a file, which is downloaded to the cache if it is on a server and not there yet."""
    if not _URL.match(place):
        return Path(place)
    if match := _HUB_FILE.fullmatch(place):
        place = f'{HUB}/datasets/{match["name"]}/resolve/{match["revision"] or "main"}/{match["path"]}'
    if place.startswith(('http://', 'https://')):
        return fetch(place)
    system, path = _file_system(place)
    if 'file' in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
        return Path(path)
    target = cache_folder() / 'shards' / hashlib.sha256(place.encode()).hexdigest()[:16] / PurePosixPath(path).name
    if not target.is_file():
        try:
            with replacing(target) as temporary:
                system.get_file(path, str(temporary))
        except FileNotFoundError:
            raise FileNotFoundError(f'{bare_url(place)}: there is no such file.') from None
    return target


def _by_name(places: Sequence[str]) -> dict[str, str]:
    """Return files by their paths below the folder that they have in common."""
    paths = [os.path.abspath(place) if not _URL.match(place) else _path_of(place) for place in places]  # noqa: PTH100
    common = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    names = [Path(path).relative_to(common).as_posix() for path in paths]
    if len(set(names)) < len(names):
        twice = next(place for name, place in zip(names, places, strict=True) if names.count(name) > 1)
        raise ValueError(f'{bare_url(twice)}: named twice; expected each file once.')
    return dict(zip(names, places, strict=True))


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    return str(Path('/', parts.netloc.rpartition('@')[2], parts.path.lstrip('/')))


def _shortened(places: Sequence[str]) -> str:
    more = f' and {len(places) - 1} more' if len(places) > 1 else ''
    return f'{bare_url(places[0])}{more}'


def _open_folder(path: Path, image: str | None, label: str | None) -> ImageSource:
    if saved := saved_files(path):
        return _packed(path, saved, image, label)
    if (path / 'data.mdb').is_file():
        _check_folders(path, 'LMDB data base', label)
        return LmdbSource(path)
    # images have the first say: beside them the archive may lie that they were unpacked from
    if _may_have_shards(path) and not (IndexedFolder(path).names() and image is None):
        walk = FolderSource(path, tuple(_KINDS))
        if names := list(walk.names()):
            return _packed(path, {name: path / name for name in names}, image, label, beside=walk.left_out)
    _check_folders(path, 'folder', label)
    return IndexedFolder(path, _endings(image))


def _may_have_shards(path: Path) -> bool:
    """Return whether a folder has a file of `_KINDS` near its top; a look at some entries, not a walk."""
    entries = _first_entries(path)
    below = [entry for folder in entries if is_folder(folder) for entry in _first_entries(folder)]
    return any(entry.name.lower().endswith(tuple(_KINDS)) for entry in (*entries, *below))


def _first_entries(folder: Path | os.DirEntry) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(islice(entries, _LOOK_AT))
    except OSError:
        return []


def _open_file(path: Path, root: Path | str, image: str | None, label: str | None) -> ImageSource:
    kind = _kind_of(path)
    if kind in _INDEXERS:
        return _packed(root, {'': path}, image, label)
    _check_folders(root, kind, label)
    return ZipSource(path, _endings(image)) if kind == 'zip' else LmdbSource(path)


def _kind_of(path: Path) -> str:
    """Return the kind of a file, by its content and, where that says nothing, by its name."""
    with path.open('rb') as file:
        start = file.read(512)
    if start.startswith(b'PK'):
        return 'zip'
    if start.startswith(b'PAR1'):
        return 'parquet file'
    if start.startswith(b'ARROW1'):
        return 'Arrow file'
    if start[16:20] == _LMDB_MAGIC:
        return 'LMDB data base'
    if is_tar(start):
        return 'tar'
    compression = compression_of(start)
    if compression and {'.tar', '.tgz', '.tbz', '.txz'} & set(path.suffixes):
        raise ValueError(
            f'{path}: a tar packed by {compression} as a whole, in which no image can be found without unpacking those '
            'before it; unpack it to a plain .tar (images are compressed already).'
        )
    return _KINDS.get(path.suffix.lower(), 'zip')


def _packed(
    root: Path | str,
    files: Mapping[str, Path],
    image: str | None,
    label: str | None,
    beside: Mapping[str, int] | None = None,
) -> PackedSource:
    """Open files of one kind as one source."""
    kinds = {name: _kind_of(path) for name, path in files.items()}
    others = [name for name, kind in kinds.items() if kind not in _INDEXERS]
    if others:
        raise ValueError(
            f'{root}: {printable(others[0])} is no tar, parquet or Arrow file; of several files all must be of one of '
            'these kinds.'
        )
    if len(set(kinds.values())) > 1:
        found = ', '.join(f'{list(kinds.values()).count(kind)} {kind}s' for kind in sorted(set(kinds.values())))
        raise ValueError(f'{root}: {found}; expected files of one kind; name them by a pattern, such as *.tar.')
    kind = next(iter(kinds.values()))
    if kind == 'tar':
        image = image if image in (None, '*') or image.startswith('.') else f'.{image}'
        if label not in ('auto', 'folder', None) and not label.startswith('.'):
            raise ValueError(
                f"{root}: label={label!r}; expected 'auto', 'folder', None, or the ending of the members of a tar that "
                "have the labels: '.cls', '.txt' or '.json:KEY'."
            )
    elif label == 'folder':
        raise ValueError(f"{root}: label='folder', and a table has none; expected 'auto', None, or a column's name.")
    indices = indices_of(
        list(files.values()), f'{image}\0{label}', lambda path: _INDEXERS[kind](path, image, label), what=str(root)
    )
    shown = kind if list(files) == [''] else f'set of {kind}s'
    source = PackedSource(root, shown, dict(zip(files, indices, strict=True)), has_folders=kind == 'tar')
    source.left_out.update(beside or {})
    return source


def _endings(image: str | None) -> tuple[str, ...]:
    if image in (None, '*'):
        return EXTENSIONS
    return (image.lower() if image.startswith('.') else f'.{image.lower()}',)


def _check_folders(root: Path | str, kind: str, label: str | None) -> None:
    if label not in ('auto', 'folder', None):
        raise ValueError(f"{root}: label={label!r}, and a {kind} has folders as labels; expected 'auto' or None.")
