"""Arrays in npz files: mapped where they lie, written in pieces; neither needs the memory of a large one."""

import hashlib
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from struct import unpack_from
from typing import Any

import numpy as np
from torch import Tensor

# A local header of a zip: 30 bytes, the lengths of name and extra field at byte 26 (APPNOTE.TXT 4.3.7).
_LOCAL_HEADER = 30
_ENCRYPTED = 0x1
_DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class NpzArchive:
    """The arrays of an npz file. Nothing in it is ever unpickled.

    Args:
        path: The file. Arrays of version 1 or 2 of numpy's format, stored or deflated.

    Raises:
        FileNotFoundError: If nothing is at `path`.
        ValueError: If it is no npz, is cut off, or is encrypted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(f'{self.path}: no such npz file.')
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            # a zip begins so, and is cut off if its end, which has the directory, is not there
            with self.path.open('rb') as file:
                is_cut = file.read(4) == b'PK\x03\x04'
            raise ValueError(
                f'{self.path}: damaged or incomplete npz ({error}); fetch or write it again.'
                if is_cut
                else f'{self.path}: no npz file ({error}); give a file as numpy.savez writes it.'
            ) from None
        self._members = {info.filename.removesuffix('.npy'): info for info in members}
        if any(info.flag_bits & _ENCRYPTED for info in members):
            raise ValueError(f'{self.path}: encrypted; write it without a password.')

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        """The arrays' names, sorted."""
        return sorted(self._members)

    def read(self, name: str) -> np.ndarray:
        """Return an array, checked against its checksum.

        Raises:
            ValueError: If there is none of that name, it is damaged, or holds Python objects.
        """
        info = self._info(name)
        with self._told(name), zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def map(self, name: str) -> np.ndarray:
        """Return an array that cannot be written and is read from the disk when looked at.

        A stored one is mapped where it lies, and not checked. A deflated one is unpacked to a file in
        `tempfile.gettempdir()` that has no name and is gone with the array.

        Raises:
            ValueError: As `read`.
        """
        info = self._info(name)
        with self._told(name), zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
            shape, is_fortran, dtype = _header(member)
            start = member.tell()
            if dtype.hasobject:
                raise ValueError('it holds Python objects')
            if start + math.prod(shape) * dtype.itemsize != info.file_size:
                raise ValueError(f'shape {shape} and {dtype} do not fill its {info.file_size} bytes')
            layout = dict(dtype=dtype, shape=shape, order='F' if is_fortran else 'C')
            if 0 in shape:
                return np.empty(**layout)
            if info.compress_type == zipfile.ZIP_STORED:
                place = _data_offset(self.path, info) + start
                return np.memmap(self.path, mode='r', offset=place, **layout).view(np.ndarray)
            with tempfile.TemporaryFile() as file:
                member.seek(0)
                shutil.copyfileobj(member, file, 1 << 20)
                file.flush()
                return np.memmap(file, mode='r', offset=start, **layout).view(np.ndarray)

    def fingerprint(self, names: Iterable[str]) -> str:
        """Return a sha256 over names, sizes and CRC-32s of arrays: of their content, without reading it."""
        listing = hashlib.sha256()
        for name in names:
            info = self._info(name)
            listing.update(f'{name}\0{info.file_size}\0{info.CRC}\n'.encode())
        return listing.hexdigest()

    def _info(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise ValueError(
                f'{self.path}: no array {name!r}; it has {", ".join(self.names) or "none"}; give a file that has it.'
            )
        return self._members[name]

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn what zipfile, zlib and numpy say of damaged arrays into one message."""
        try:
            yield
        except _DAMAGE as error:
            raise ValueError(
                f'{self.path}: array {name!r} cannot be read ({error}); fetch or write the file again.'
            ) from None


class NpzWriter:
    """Adds arrays to an npz file; see `write_npz`."""

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
        """Add an array of `shape` from pieces along its first axis, holding one at a time.

        Raises:
            ValueError: If a piece has another shape or type, or there are too few or too many.
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
                        f'accepted are (B, {", ".join(map(str, shape[1:]))}); make all pieces alike.'
                    )
                written += len(piece)
                member.write(np.ascontiguousarray(piece).data)
        if written != shape[0]:
            raise ValueError(f'npz: array {name!r}: {written} rows came; {shape[0]} were announced.')

    def add_images(self, name: str, batches: Iterable[Tensor], count: int) -> None:
        """Add `count` images from `batches` (B, C, H, W), uint8, as (N, H, W, C), as ADM's files have them.

        Raises:
            ValueError: If they are of several sizes or not 8-bit, or not `count`.
        """
        pieces = (batch.permute(0, 2, 3, 1).cpu().numpy() for batch in batches)
        first = next(pieces, None)
        if first is None:
            raise ValueError(f'npz: array {name!r}: 0 rows came; {count} were announced.')
        self.add_pieces(name, chain([first], pieces), (count, *first.shape[1:]), np.uint8)


@contextmanager
def write_npz(path: str | Path) -> Iterator[NpzWriter]:
    """Write an npz file, stored, that appears at `path` when it is whole, or not at all.

    The same arrays give the same bytes. Its folder is made if it is not there.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_npz(Path(folder) / 'a.npz') as npz:
        ...         npz.add('mu', [1.0, 2.0])
        ...     NpzArchive(Path(folder) / 'a.npz').read('mu').tolist()
        [1.0, 2.0]
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with temporary.open('wb') as file:
            with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
                yield NpzWriter(archive)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f'version {version} of the npy format')
    return readers[version](member)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    with path.open('rb') as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    name_length, extra_length = unpack_from('<HH', header, 26)
    return info.header_offset + _LOCAL_HEADER + name_length + extra_length
