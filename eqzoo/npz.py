"""Npz files: read arrays by mapping them, write arrays in pieces, both with little memory."""

import hashlib
import math
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from eqzoo.files import replacing
from eqzoo.zips import data_offset, is_encrypted, starts_as_zip

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    struct.error,
)

# An array that is read as a whole has at most these bytes: ten times the statistics and features of a reference.
MAX_READ = 1 << 32
_MOST_PACKED = 1032  # deflate packs at most so many bytes into one (RFC 1951: 258 bytes in two bits)


class NpzArchive:
    """An npz file for reading. Objects are never unpickled.

    Args:
        path: The file. Arrays of version 1 or 2 of numpy's format, stored or deflated.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If the file is not an npz file, is cut off, or is encrypted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(f'{self.path}: no such npz file.')
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except _DAMAGE as error:
            # The directory is at the end of a zip: without it, a file that begins as a zip is cut off.
            with self.path.open('rb') as file:
                is_cut = starts_as_zip(file.read(4))
            raise ValueError(
                f'{self.path}: damaged or incomplete npz ({error}); fetch or write it again.'
                if is_cut
                else f'{self.path}: not an npz file ({error}); give a file written by numpy.savez.'
            ) from None
        self._members = {info.filename.removesuffix('.npy'): info for info in members}
        if any(map(is_encrypted, members)):
            raise ValueError(f'{self.path}: encrypted; write it without a password.')

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        """The arrays' names, sorted."""
        return sorted(self._members)

    def read(self, name: str) -> np.ndarray:
        """Return an array, verified against its checksum.

        Raises:
            ValueError: If the array does not exist, is damaged, holds Python objects, or is larger than `MAX_READ`.
        """
        info = self._info(name)
        with self._naming_damage(name), zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
            self._layout(info, member)
            if info.file_size > MAX_READ:
                raise ValueError(f'{info.file_size:,} bytes, more than {MAX_READ:,}')
            member.seek(0)
            return np.lib.format.read_array(member, allow_pickle=False)

    def map(self, name: str) -> np.ndarray:
        """Return a read-only array whose pages are read from the disk on access.

        A stored array is mapped in place and not verified. A deflated array is first unpacked to a nameless
        file in `tempfile.gettempdir()`, which is freed with the array.

        Raises:
            ValueError: As `read`.
        """
        info = self._info(name)
        with self._naming_damage(name), zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
            shape, is_fortran, dtype = self._layout(info, member)
            start = member.tell()
            layout = dict(dtype=dtype, shape=shape, order='F' if is_fortran else 'C')
            if 0 in shape:
                return np.empty(**layout)
            if info.compress_type == zipfile.ZIP_STORED:
                with self.path.open('rb') as file:
                    start += data_offset(file.fileno(), info.header_offset)
                return np.memmap(self.path, mode='r', offset=start, **layout).view(np.ndarray)
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if info.file_size > free:
                raise ValueError(
                    f'unpacked, it has {info.file_size:,} bytes; {tempfile.gettempdir()} has room for {free:,}: '
                    'set TMPDIR'
                )
            with tempfile.TemporaryFile() as file:
                member.seek(0)
                shutil.copyfileobj(member, file, 1 << 20)
                file.flush()
                return np.memmap(file, mode='r', offset=start, **layout).view(np.ndarray)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a sha256 over the names, sizes and CRC-32s of arrays, which the directory lists; no array is read."""
        listing = hashlib.sha256()
        for name in names:
            info = self._info(name)
            listing.update(f'{name}\0{info.file_size}\0{info.CRC}\n'.encode())
        return listing.hexdigest()

    def _layout(self, info: zipfile.ZipInfo, member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
        """Return shape, order and type of an open member, if they fill the bytes that it can really have."""
        most = self.path.stat().st_size
        if info.compress_size > most or info.file_size > _MOST_PACKED * max(info.compress_size, 1):
            raise ValueError(f'the file has {most:,} bytes, too few for the {info.file_size:,} that it claims')
        shape, is_fortran, dtype = _header(member)
        if dtype.hasobject:
            raise ValueError('it holds Python objects')
        if member.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f'shape {shape} and {dtype} do not fill its {info.file_size} bytes')
        return shape, is_fortran, dtype

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise ValueError(
                f'{self.path}: no array {name!r}; it has {", ".join(self.names) or "none"}; give a file that has it.'
            )
        return self._members[name]

    @contextmanager
    def _naming_damage(self, name: str) -> Iterator[None]:
        """Turn the errors of zipfile, zlib and numpy for a damaged array into one message."""
        try:
            yield
        except _DAMAGE as error:
            raise ValueError(
                f'{self.path}: array {name!r} cannot be read ({error}); fetch or write the file again.'
            ) from None


class NpzWriter:
    """An npz file for writing; `write_npz` opens it."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add(self, name: str, array: Any) -> None:
        """Add an array.

        Raises:
            ValueError: If it holds Python objects.
        """
        array = np.asarray(array)
        if array.dtype.hasobject:
            raise ValueError(f'npz: array {name!r} holds Python objects; give numbers or text.')
        with self._archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as member:
            np.lib.format.write_array(member, array, allow_pickle=False)

    def add_pieces(self, name: str, pieces: Iterable[np.ndarray], shape: Sequence[int], dtype: Any) -> None:
        """Add an array of `shape` from pieces along its first axis, holding one piece at a time.

        Raises:
            ValueError: If the shape or type of a piece differs, or the rows do not add up to `shape[0]`.
        """
        dtype = np.dtype(dtype)
        header = dict(descr=np.lib.format.dtype_to_descr(dtype), fortran_order=False, shape=tuple(shape))
        written = 0
        with self._archive.open(zipfile.ZipInfo(f'{name}.npy'), 'w', force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for piece in pieces:
                if piece.shape[1:] != tuple(shape[1:]) or piece.dtype != dtype:
                    raise ValueError(
                        f'npz: array {name!r} of {dtype}: a piece is {piece.shape} of {piece.dtype}; '
                        f'expected (B, {", ".join(map(str, shape[1:]))}); give all pieces one shape and type.'
                    )
                written += len(piece)
                member.write(np.ascontiguousarray(piece).data)
        if written != shape[0]:
            raise ValueError(f'npz: array {name!r}: got {written} rows, expected {shape[0]}.')

    def add_images(self, name: str, batches: Iterable[Tensor], count: int) -> None:
        """Add `count` images from `batches` (B, C, H, W), uint8, in ADM's layout (N, H, W, C).

        Raises:
            ValueError: If the images differ in size, are not uint8, or are not `count`.
        """
        pieces = (batch.permute(0, 2, 3, 1).cpu().numpy() for batch in batches)
        first = next(pieces, None)
        if first is None:
            raise ValueError(f'npz: array {name!r}: got 0 rows, expected {count}.')
        self.add_pieces(name, chain([first], pieces), (count, *first.shape[1:]), np.uint8)


@contextmanager
def write_npz(path: str | Path) -> Iterator[NpzWriter]:
    """Write an uncompressed npz file atomically: it appears at `path` complete, or not at all.

    The same arrays give the same bytes. The folder is created if it does not exist.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_npz(Path(folder) / 'a.npz') as npz:
        ...         npz.add('mu', [1.0, 2.0])
        ...     NpzArchive(Path(folder) / 'a.npz').read('mu').tolist()
        [1.0, 2.0]
    """
    path = Path(path).expanduser()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED) as archive:
        yield NpzWriter(archive)


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f'version {version} of the npy format')
    return readers[version](member)
