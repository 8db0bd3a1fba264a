"""Images for tests of containers: the same few in a folder, a tar, a table."""

import io
import tarfile

import numpy as np
from PIL import Image


def png(value, size=(12, 10)):
    """The bytes of a PNG file of random pixels."""
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'png')
    return buffer.getvalue()


def pixels_of(content):
    """The pixels of the bytes of an image, (3, H, W)."""
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB')).transpose(2, 0, 1)


def write_tar(path, members, kind=tarfile.PAX_FORMAT):
    """Write a tar of `members`, the bytes by name, with Python's own module."""
    with tarfile.open(path, 'w', format=kind) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
