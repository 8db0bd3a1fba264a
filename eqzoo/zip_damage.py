"""Torch files are zips: their checksums tell damage, which torch itself does not look at."""

import zipfile
from pathlib import Path


def zip_damage(file: Path) -> str | None:
    """Read every byte of a torch file, and return what is wrong with it, or None."""
    try:
        with zipfile.ZipFile(file) as archive:
            entry = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        return f'{type(error).__name__}: {error}'
    return None if entry is None else f'the checksum of {entry} fails'
