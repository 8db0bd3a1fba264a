"""Image decoding: the bytes of an image file to upright RGB pixels."""

import importlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import Image

WHITE = (255, 255, 255)

# Pillow's formats that are opened, by content and whatever a file is called, and the plugins that read them. Others
# stay shut: Pillow starts the program `gs` for EPS, and reads headers of forty more that no data set of images has.
_PLUGINS = {
    'AVIF': 'Avif',
    'BMP': 'Bmp',
    'GIF': 'Gif',
    'JPEG': 'Jpeg',
    'JPEG2000': 'Jpeg2K',
    'PNG': 'Png',
    'PPM': 'Ppm',
    'TIFF': 'Tiff',
    'WEBP': 'WebP',
}

_ORIENTATION = 0x0112  # EXIF 2.3, tag 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_DEEP = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N')

# TIFF 6.0: tags 256, 257, 274 (with their defaults), 258, 262, 339
_TIFF_SIZE = ((256, 0), (257, 0), (_ORIENTATION, 1))
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1

# Chunks of a PNG that change no pixel, here or in Pillow: neither an orientation (eXIf, XMP in iTXt) nor transparency,
# frames of an animation or profiles, about which libpng warns.
_PLAIN_CHUNKS = {b'IHDR', b'IDAT', b'IEND', b'cHRM', b'gAMA', b'pHYs', b'sRGB', b'tIME'}

# Chunks in which Pillow finds an orientation; behind the pixels only after it has decoded them.
_EXIF_CHUNKS = {b'eXIf', b'iTXt', b'tEXt', b'zTXt'}

# In a scan of a JPEG, 0xFF stands before 0, before the number of a restart, or before another 0xFF (ITU T.81, B.1.1.2)
_MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')


class UnreadableImageError(ValueError):
    """An image file that cannot be decoded; the message has the reason."""


def _opened_formats() -> tuple[str, ...]:
    """Return the formats of `_PLUGINS` that this build of Pillow reads."""
    found = []
    for name, plugin in _PLUGINS.items():
        try:
            module = importlib.import_module(f'PIL.{plugin}ImagePlugin')
        except ImportError:  # AVIF came with Pillow 11.3
            continue
        if getattr(module, 'SUPPORTED', True):  # the libraries of AVIF and WebP are optional
            found.append(name)
    return tuple(found)


FORMATS = _opened_formats()


def decode(data: bytes, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image file of one of `FORMATS` to RGB, upright, with transparent parts on white.

    Grey images of 9 to 16 bits are rounded to 8 over their whole range, 0 to 2^bits - 1. CMYK is converted by
    Pillow, without a colour profile. Animations are reduced to their first frame.

    Args:
        data: The content of the file.
        at_least: A JPEG is decoded to a half, a quarter or an eighth of its sides (libjpeg's scaled inverse DCT) as
            long as the upright image has this width and height. Faster; other pixels than shrinking the whole image.

    Raises:
        UnreadableImageError: If the bytes are empty, cut off or no image of these formats, if the range of the pixels
            is unknown (floats, signed or 32-bit integers), or if the image is larger than Pillow's limit against
            decompression bombs (2 x `PIL.Image.MAX_IMAGE_PIXELS`).
    """
    with _readable(data):
        return _load(Image.open(io.BytesIO(data), formats=FORMATS), data, at_least)


def decode_pixels(data: bytes) -> np.ndarray:
    """Return the pixels (H, W, 3), uint8, of `decode`, to the bit; read-only or not.

    OpenCV decodes JPEG files of one scan and PNG files, of 8 bits, without Pillow's copies (docs/performance.md has the
    times). Pillow reads their headers, everything else, and any file that OpenCV refuses.

    Raises:
        UnreadableImageError: As `decode`.
    """
    with _readable(data):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if _is_plain(image, data):
            pixels = _by_opencv(data)
            if pixels is not None and pixels.shape == (image.height, image.width, 3):
                return pixels
        return np.asarray(_load(image, data, None))


@contextmanager
def _readable(data: bytes) -> Iterator[None]:
    """Raise an `UnreadableImageError` with the reason for any error of a decoder."""
    if not data:
        raise UnreadableImageError('the file is empty')
    try:
        yield
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(str(error)) from None
    except Image.UnidentifiedImageError:
        raise UnreadableImageError(f'no image format that is read here ({", ".join(FORMATS)})') from None
    except MemoryError:  # of this machine, not of the image
        raise
    except Exception as error:  # every format's decoder has errors of its own, RuntimeError of AVIF's, say
        reason = ' '.join(str(error).split())  # one line, as messages of loaders' processes are
        raise UnreadableImageError(f'{type(error).__name__}: {reason}') from None


def _load(image: Image.Image, data: bytes, at_least: tuple[int, int] | None) -> Image.Image:
    if at_least is not None and image.format == 'JPEG':
        image.draft(None, at_least[::-1] if _orientation(image) in _ON_ITS_SIDE else at_least)
    layout = image.tile[0] if image.tile else None  # gone after `load`
    image.load()
    orientation = _orientation(image)
    image = _to_rgb(image, data, layout)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _is_plain(image: Image.Image, data: bytes) -> bool:
    """Return whether an opened image is an upright JPEG or PNG of 8 bits, grey or RGB, without transparency."""
    if image.format not in ('JPEG', 'PNG') or image.mode not in ('L', 'RGB') or not _is_exact(image.format):
        return False
    if image.format == 'JPEG':
        # Pillow stands behind the header of the first scan. Another marker than the end follows in files of several
        # scans, and in damaged ones, of which OpenCV reads some that Pillow refuses.
        end = _MARKER.search(data, image.fp.tell())
        return end is not None and end.span() == (len(data) - 2, len(data)) and _orientation(image) == 1
    # Pillow looks for the orientation of a PNG behind its pixels, which it decodes for that
    return image.tile[0][3] in ('L', 'RGB') and set(_png_chunks(io.BytesIO(data))) <= _PLAIN_CHUNKS


def _png_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the names of a PNG's chunks (PNG, 5.3), the last being empty if the file is cut off."""
    position = 8
    while True:
        file.seek(position)
        length, name = file.read(4), file.read(4)
        yield name
        if len(name) < 4 or name == b'IEND':
            return
        position += 12 + int.from_bytes(length, 'big')


def _has_late_exif(png: BinaryIO) -> bool:
    """Return whether an orientation may stand behind the first pixels of a PNG; the place in the file stays."""
    place = png.tell()
    names = list(_png_chunks(png))
    png.seek(place)
    return b'IDAT' in names and not _EXIF_CHUNKS.isdisjoint(names[names.index(b'IDAT') :])


def _by_opencv(data: bytes) -> np.ndarray | None:
    """Return the pixels (H, W, 3), uint8, of a JPEG or PNG; None if OpenCV refuses it."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


@cache
def _is_exact(kind: str) -> bool:
    """Return whether OpenCV and Pillow, which bring libraries of their own, decode small files of a kind equally.

    So it is where they were measured; a distribution may have built one of them against another library. OpenCV before
    4.11, which another package may have brought, has no order RGB.
    """
    if not hasattr(cv2, 'IMREAD_COLOR_RGB'):
        return False
    generator = np.random.default_rng(0)
    smooth = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = Image.fromarray(smooth).resize((50, 35), Image.Resampling.BICUBIC)
    options = [dict(subsampling=each) for each in (0, 1, 2)] if kind == 'JPEG' else [{}]
    for option in options:
        for image in (picture, picture.convert('L')):
            file = io.BytesIO()
            image.save(file, kind, **option)
            pixels = _by_opencv(file.getvalue())
            if pixels is None or not np.array_equal(pixels, np.asarray(Image.open(file).convert('RGB'))):
                return False
    return True


def upright_size(file: BinaryIO) -> tuple[int, int]:
    """Return the width and height that `decode` gives an image file; only the header is read.

    Raises:
        UnreadableImageError: If there is no header of these formats.
        OSError: If the system cannot read the file.
    """
    try:
        image = Image.open(file, formats=FORMATS)
        width, height = image.size
        if image.format == 'TIFF':  # whether Pillow has turned its size already depends on the version
            width, height, orientation = (image.tag_v2.get(tag, value) for tag, value in _TIFF_SIZE)
        elif image.format == 'PNG' and not _has_late_exif(file):
            orientation = _orientation(image, Image.Image.getexif)  # that of a PNG decodes all pixels first
        else:
            orientation = _orientation(image)
    except MemoryError:
        raise
    except Exception as error:
        if getattr(error, 'errno', None) is not None:  # the disk's, not the image's
            raise
        raise UnreadableImageError(f'{type(error).__name__}: {error}') from None
    return (height, width) if orientation in _ON_ITS_SIDE else (width, height)


def _orientation(image: Image.Image, read_exif: Callable[[Any], Image.Exif] | None = None) -> int:
    if image.format == 'TIFF':  # turned by Pillow on load; Pillow 10.0 keeps the tag, 13.0 does not
        return 1
    try:
        exif = image.getexif() if read_exif is None else read_exif(image)
        return exif.get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # only the EXIF data are damaged: viewers show the pixels unturned
        return 1


def _to_rgb(image: Image.Image, data: bytes, layout: tuple | None) -> Image.Image:
    key = image.info.get('transparency')
    if image.format == 'PNG' and image.mode in (*_DEEP, 'L', 'RGB') and key is not None and layout is not None:
        return _without_key(image, data, layout, key)
    if image.mode in _DEEP:
        return _from_deep(image)
    if image.mode == 'F':
        raise ValueError('floating-point pixels of unknown range')
    if image.mode in ('RGBA', 'RGBa', 'LA', 'La', 'PA') or key is not None:
        image = image.convert('RGBA')
        ground = Image.new('RGB', image.size, WHITE)
        ground.paste(image, mask=image.getchannel('A'))
        return ground
    return image.convert('RGB')


def _from_deep(image: Image.Image) -> Image.Image:
    """Return a grey image of more than 8 bits in 8, over its whole range."""
    bits, is_inverted = 16, False
    if image.format == 'TIFF':
        tags = image.tag_v2
        (bits,) = tags.get(_BITS_PER_SAMPLE, (16,))
        is_inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # as Pillow does for 8 bits
        if bits > 16 or tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] != _UNSIGNED:
            raise ValueError(f'{bits}-bit integers of unknown range; save the image with 8 or 16 bits, unsigned')
    largest = 2**bits - 1
    pixels = np.asarray(image).astype(np.int64).clip(0, largest)
    pixels = (pixels * 510 + largest) // (2 * largest)
    return Image.fromarray((255 - pixels if is_inverted else pixels).astype(np.uint8)).convert('RGB')


def _without_key(image: Image.Image, data: bytes, layout: tuple, key: int | tuple[int, ...]) -> Image.Image:
    """Return a PNG with the pixels of its transparent colour in white.

    The colour has the file's depth (PNG, 11.3.1.1), Pillow's pixels have 8 bits: those of 2 and 4 bits are multiples
    of 85 and 17, and those of three 16-bit channels have lost their low bytes.
    """
    raw = layout[3]  # such as 'L;4', 'RGB;16B'
    depth = int(raw.partition(';')[2].removesuffix('B') or 8)
    pixels = np.asarray(image).astype(np.int64)
    if depth < 8:
        pixels = pixels // (255 // (2**depth - 1))
    elif raw == 'RGB;16B':
        low = Image.open(io.BytesIO(data), formats=['PNG'])
        low.tile = [(*layout[:3], 'RGB;16L')]  # read the other byte of each pair as the high one
        low.load()
        pixels = pixels * 256 + np.asarray(low)
    is_key = pixels == np.asarray(key) % 2**depth
    rgb = np.array(_from_deep(image) if image.mode in _DEEP else image.convert('RGB'))
    rgb[is_key.all(axis=2) if is_key.ndim == 3 else is_key] = WHITE
    return Image.fromarray(rgb)
