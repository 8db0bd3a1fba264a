"""Tables of images: parquet files, and the Arrow files of Hugging Face `datasets`.

A column has the images, as bytes or as `datasets` writes them: a struct of `bytes` and `path`. An Arrow file has each
image in one piece, which is indexed in place. A parquet file has pages that are packed together, and a row group has to
be read for one image: its images are unpacked once to a file in the cache, as `datasets` does.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eqzoo.data.packed import NO_BYTES, FileIndex, kept_place
from eqzoo.data.sources import Names
from eqzoo.files import WriteError, did_you_mean, replacing, writing_to
from eqzoo.text import printable
from eqzoo.zoo.download import OTHER_CACHE

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE_COLUMNS = ('image', 'img', 'jpg', 'png', 'webp')  # the first that is there; `datasets` names those of tars so
_LABEL_COLUMN = 'label'
_ROWS = 64  # read at once
_BUFFER = 1 << 20  # bytes of a column that are read at once
_SECONDS_TO_LINE = 2
_DIGITS = 8  # of a row's number, so that names sort as rows do


def index_arrow(path: Path, image: str | None, label: str | None) -> FileIndex:
    """Return the index of the images in an Arrow file of `datasets` (the IPC stream format, or the file format).

    Args:
        path: The file.
        image: The column of the images; None for 'image' and other usual names, or the only one of bytes.
        label: The column of labels; 'auto' for 'label', if there is one; None for none.

    Raises:
        ValueError: If it is damaged, or a column is missing or of another type.
    """
    pa = _pyarrow(path)
    with _errors(path, 'an Arrow file'), pa.memory_map(str(path)) as mapped:
        end = mapped.size()
        start = mapped.read_buffer(1).address if end else 0
        mapped.seek(0)
        reader = pa.ipc.open_file(mapped) if _is_file_format(path) else pa.ipc.open_stream(mapped)
        image, label, classes, notes = _columns(path, reader.schema, image, label)
        columns, rest = [image, label] if label else [image], dict(classes=classes, notes=notes)
        places, texts = [np.empty((0, 2), np.int64)], []
        for batch in _batches(reader):
            places.append(_places_in(batch.column(image), start, end))
            if places[-1] is None:  # of a compressed file
                break
            texts += _texts(batch.column(label)) if label else []
        else:
            return _index(path, np.concatenate(places), texts if label else None, **rest)
        mapped.seek(0)
        reader = pa.ipc.open_file(mapped) if _is_file_format(path) else pa.ipc.open_stream(mapped)
        return _unpacked(path, columns, _batches(reader), end, **rest)


def index_parquet(path: Path, image: str | None, label: str | None) -> FileIndex:
    """Return the index of the images in a parquet file, which are unpacked to the cache first.

    See `index_arrow` for arguments and errors.

    Raises:
        WriteError: If the cache cannot be written to, or has no room.
    """
    _pyarrow(path)
    import pyarrow.parquet as pq

    # `pre_buffer` would read whole row groups ahead
    options = dict(pre_buffer=False, buffer_size=_BUFFER, memory_map=False)
    with _errors(path, 'a parquet file'), pq.ParquetFile(path, **options) as file:
        image, label, classes, notes = _columns(path, file.schema_arrow, image, label)
        columns = [image, label] if label else [image]
        batches = file.iter_batches(_ROWS, columns=columns, use_threads=False)
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        needed = sum(group.column(column).total_uncompressed_size for group in groups for column in _of(image, group))
        return _unpacked(path, columns, batches, needed, classes=classes, notes=notes)


def saved_files(root: Path) -> dict[str, Path] | None:
    """Return the Arrow files of a data set that `datasets.save_to_disk` wrote, by name; None if it is none.

    Raises:
        ValueError: If its description is damaged, or names files elsewhere.
    """
    if (root / 'dataset_dict.json').is_file():
        splits = _json(root / 'dataset_dict.json').get('splits')
        if not isinstance(splits, list) or not all(isinstance(each, str) and each.isidentifier() for each in splits):
            raise ValueError(f'{root}: dataset_dict.json names no splits; save the data set again.')
        return {f'{split}/{name}': file for split in splits for name, file in (saved_files(root / split) or {}).items()}
    if not (root / 'state.json').is_file() or not (root / 'dataset_info.json').is_file():
        return None
    files = _json(root / 'state.json').get('_data_files')
    names = [each.get('filename') if isinstance(each, dict) else None for each in files or []]
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise ValueError(f'{root}: state.json names no files of this folder; save the data set again.')
    return {name: root / name for name in names}


def hub_files(name: str, config: str | None) -> dict[str, Path]:
    """Return the Arrow files of a data set of the Hub by split and name, after `datasets` has fetched what is missing.

    Raises:
        ValueError: If `datasets` cannot load it; the message has its reason.
    """
    if find_spec('datasets') is None:
        raise ValueError(f"{name}: a data set of the Hub needs datasets; expected: pip install 'eqzoo[hub]'.")
    import datasets

    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:  # of the Hub, of fsspec, of each format's reader
        reason = printable(' '.join(str(error).split()))[:300]
        raise ValueError(
            f'hf://datasets/{name}: datasets cannot load it ({type(error).__name__}: {reason}); correct the name, or '
            'log in with `hf auth login`; without a connection give a folder that datasets.save_to_disk wrote.'
        ) from None
    return {
        f'{split}/{Path(file["filename"]).name}': Path(file['filename'])
        for split, data in loaded.items()
        for file in data.cache_files
    }


def _pyarrow(path: Path) -> Any:
    if find_spec('pyarrow') is None:
        raise ValueError(f"{path}: a table of images needs pyarrow; expected: pip install 'eqzoo[parquet]'.")
    import pyarrow as pa

    return pa


@contextmanager
def _errors(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of pyarrow on a damaged file into one message."""
    import pyarrow as pa

    try:
        yield
    except WriteError:
        raise
    except (pa.ArrowException, OSError, OverflowError) as error:
        reason = printable(' '.join(str(error).split()))[:200]
        raise ValueError(f'{path}: not {what}, or damaged ({reason}); write or fetch it again.') from None


def _is_file_format(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(6) == b'ARROW1'


def _of(image: str, group: Any) -> list[int]:
    """Return the columns of a row group that have the images: of a struct, one for each of its fields."""
    numbers = range(group.num_columns)
    return [number for number in numbers if group.column(number).path_in_schema.split('.')[0] == image]


def _batches(reader: Any) -> Iterator['pa.RecordBatch']:
    if hasattr(reader, 'num_record_batches'):  # the file format
        return map(reader.get_batch, range(reader.num_record_batches))
    return iter(reader)


def _columns(
    path: Path, schema: 'pa.Schema', image: str | None, label: str | None
) -> tuple[str, str | None, list[str] | None, list[str]]:
    """Return the columns of images and labels, the names of the classes, and a note on the columns that are not read.

    Raises:
        ValueError: If there is no such column, or it is of another type.
    """
    import pyarrow as pa

    names = schema.names
    shown = printable(', '.join(f'{field.name} ({field.type})' for field in schema))[:400]
    if image is None:
        fitting = [name for name in names if names.count(name) == 1 and _has_bytes(schema.field(name).type)]
        usual = [name for name in _IMAGE_COLUMNS if name in fitting]
        if not usual and len(fitting) != 1:
            raise ValueError(
                f"{path}: no column 'image' of bytes, or of a struct with bytes; set image to that of the images. "
                f'Its columns: {shown}.'
            )
        image = (usual or fitting)[0]
    wanted = [image, *([label] if label not in (None, 'auto') else [])]
    for name in wanted:
        if names.count(name) != 1:
            hint = did_you_mean(name, names)
            raise ValueError(f'{path}: no column {name!r}, or several.{hint} Its columns: {shown}.')
    if not _has_bytes(schema.field(image).type):
        raise ValueError(
            f'{path}: column {image!r} is of type {schema.field(image).type}; expected the bytes of image files, or a '
            f'struct with bytes, as `datasets` writes it. Its columns: {shown}.'
        )
    if label == 'auto':
        is_there = names.count(_LABEL_COLUMN) == 1 and _has_labels(schema.field(_LABEL_COLUMN).type)
        label = _LABEL_COLUMN if is_there else None
    if label is not None and not _has_labels(schema.field(label).type):
        raise ValueError(
            f'{path}: column {label!r} is of type {schema.field(label).type}; expected whole numbers or text.'
        )
    others = [name for name in names if name not in (image, label)]
    notes = [f'Columns that are not read: {printable(", ".join(others))[:200]}.'] if others else []
    is_number = label is not None and pa.types.is_integer(schema.field(label).type)
    return image, label, _class_names(schema, label) if is_number else None, notes


def _has_bytes(kind: 'pa.DataType') -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index('bytes') >= 0 and _has_bytes(kind.field('bytes').type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _has_labels(kind: 'pa.DataType') -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or texts


def _class_names(schema: 'pa.Schema', label: str) -> list[str] | None:
    """Return the names of the classes that `datasets` has written into a schema, if it has."""
    try:
        feature = json.loads((schema.metadata or {})[b'huggingface'])['info']['features'][label]
        names = feature['names'] if feature['_type'] == 'ClassLabel' else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) and names and all(isinstance(name, str) for name in names) else None


def _values(column: 'pa.Array') -> tuple[Any, np.ndarray]:
    """Return the bytes of a column, and which of its rows have any."""
    import pyarrow as pa

    has_row = column.is_valid().to_numpy(zero_copy_only=False)
    if not pa.types.is_struct(column.type):
        return column, has_row
    values = column.field('bytes')
    return values, has_row & values.is_valid().to_numpy(zero_copy_only=False)


def _places_in(column: 'pa.Array', start: int, end: int) -> np.ndarray | None:
    """Return where the bytes of a column are in the mapped file; None if they are not in it, being compressed.

    Args:
        column: N rows.
        start: The address of the file in memory.
        end: Its bytes.

    Returns:
        (N, 2): first byte and number of bytes.
    """
    import pyarrow as pa

    values, has_bytes = _values(column)
    if not len(values):
        return np.empty((0, 2), np.int64)
    kind = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, kind)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    lengths = np.diff(bounds)
    first = data.address - start if data is not None and data.size else 0
    if not 0 <= first <= end:
        return None
    if len(bounds) != len(values) + 1 or (lengths < 0).any() or bounds[0] < 0 or first + bounds[-1] > end:
        raise pa.ArrowInvalid('places of images beyond the end of the file')
    return np.stack([first + bounds[:-1], np.where(has_bytes, lengths, NO_BYTES)], axis=1)


def _texts(column: 'pa.Array') -> list[str]:
    """Return the labels of a column as text, '' for null."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return [text or '' for text in column.cast(pa.string()).to_pylist()]


def _unpacked(
    path: Path, columns: Sequence[str], batches: Iterable['pa.RecordBatch'], needed: int, **rest: Any
) -> FileIndex:
    """Write the images of a table to a file in the cache, one after the other, and return their index.

    Args:
        path: The table, for its place in the cache and messages.
        columns: Of the images, and of the labels if there are any.
        batches: The rows.
        needed: Bytes that are needed, as the table says.
        rest: Further parts of the index.

    Raises:
        WriteError: If the cache cannot be written to, or has no room.
    """
    target = kept_place(path, columns[0], 'images', '.pack')
    with writing_to(target, target.parent, remedy=OTHER_CACHE):
        target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise WriteError(
            f'{path}: its images take {needed / 2**30:,.1f} GiB, and {target.parent} has {free / 2**30:,.1f} GiB left; '
            'make room, or set EQZOO_CACHE to another folder.'
        )
    sizes: list[np.ndarray] = []
    texts: list[str] = []
    next_line = time.monotonic() + _SECONDS_TO_LINE
    with replacing(target) as temporary, temporary.open('wb') as file:
        for batch in batches:
            values, has_bytes = _values(batch.column(columns[0]))
            images = values.to_pylist()
            file.writelines(image for image, is_there in zip(images, has_bytes, strict=True) if is_there)
            lengths = [len(image) if is_there else NO_BYTES for image, is_there in zip(images, has_bytes, strict=True)]
            sizes.append(np.array(lengths, np.int64))
            if len(columns) > 1:
                texts += _texts(batch.column(columns[1]))
            if time.monotonic() >= next_line:
                next_line += _SECONDS_TO_LINE
                print(f'Unpacking {path.name} to {target.parent}, once: {file.tell():,} bytes …', file=sys.stderr)
    lengths = np.concatenate(sizes) if sizes else np.empty(0, np.int64)
    ends = np.maximum(lengths, 0).cumsum()
    places = np.stack([ends - np.maximum(lengths, 0), lengths], axis=1)
    return _index(target, places, texts if len(columns) > 1 else None, **rest)


def _index(path: Path, places: np.ndarray, texts: list[str] | None, **rest: Any) -> FileIndex:
    names = Names(f'{row:0{_DIGITS}d}' for row in range(len(places)))
    return FileIndex(path, path.stat().st_size, names, places, None if texts is None else Names(texts), **rest)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f'{path}: no JSON as `datasets` writes it; save the data set again.')
    return found
