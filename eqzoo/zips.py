"""Zip members in place: where their bytes lie in the file."""

import os
import zipfile
from struct import unpack_from

# A local header: 30 bytes, then name and extra field, whose lengths are at byte 26 (APPNOTE.TXT 4.3.7).
_LOCAL_HEADER = 30
_SIGNATURE = b'PK\x03\x04'
_ENCRYPTED = 0x1


def is_encrypted(info: zipfile.ZipInfo) -> bool:
    """Return whether a member needs a password."""
    return bool(info.flag_bits & _ENCRYPTED)


def starts_as_zip(content: bytes) -> bool:
    """Return whether a file with these first bytes begins as a zip does."""
    return content[:4] == _SIGNATURE


def data_offset(file: int, header_offset: int) -> int:
    """Return where the bytes of a member begin, after its local header.

    The directory does not say so: the extra field of the local header may be longer than the
    directory's. Read with `pread`, so that processes may share the descriptor.

    Args:
        file: Descriptor of the open archive.
        header_offset: `zipfile.ZipInfo.header_offset`.

    Raises:
        OSError: If there is no local header.
    """
    header = os.pread(file, _LOCAL_HEADER, header_offset)
    if len(header) < _LOCAL_HEADER or not starts_as_zip(header):
        raise OSError('no member where the directory of the zip says')
    name_length, extra_length = unpack_from('<HH', header, 26)
    return header_offset + _LOCAL_HEADER + name_length + extra_length
