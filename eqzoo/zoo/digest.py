"""The hash that tells files apart."""

import hashlib
from pathlib import Path


def digest(*paths: Path) -> str:
    """Return the sha256 of files' bytes, one after the other."""
    hashed = hashlib.sha256()
    for path in paths:
        with path.open('rb') as file:
            while chunk := file.read(1 << 20):
                hashed.update(chunk)
    return hashed.hexdigest()
