"""Image decoding: the bytes of an image file to upright RGB pixels."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)

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
_SIXTEEN_BIT = ('I', 'I;16', 'I;16B', 'I;16L', 'I;16N')

# The errors of Pillow on damaged files, which depend on the format.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    MemoryError,
    struct.error,
    zlib.error,
)


class UnreadableImageError(ValueError):
    """An image file that cannot be decoded; the message has the reason."""


def decode(data: bytes) -> Image.Image:
    """Decode an image file to RGB, upright, with transparent parts on white.

    16 bits per channel are rounded to 8 over the whole range 0 to 65535. CMYK is converted by Pillow,
    without a colour profile. Animations are reduced to their first frame.

    Raises:
        UnreadableImageError: If the bytes are empty, cut off or not an image, or if the image is larger
            than Pillow's limit against decompression bombs (2 x `PIL.Image.MAX_IMAGE_PIXELS`).
    """
    if not data:
        raise UnreadableImageError('the file is empty')
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        orientation = _orientation(image)
        image = _to_rgb(image)
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(str(error)) from None
    except Image.UnidentifiedImageError:
        raise UnreadableImageError('no image format that Pillow reads') from None
    except _DAMAGE as error:
        raise UnreadableImageError(f'{type(error).__name__}: {error}') from None
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _orientation(image: Image.Image) -> int:
    if image.format == 'TIFF':  # turned by Pillow on load; Pillow 10.0 keeps the tag, 13.0 does not
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:  # only the EXIF data are damaged: viewers show the pixels unturned
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        pixels = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8)).convert('RGB')
    if image.mode == 'F':
        raise ValueError('floating-point pixels of unknown range')
    if image.mode in ('RGBA', 'RGBa', 'LA', 'La', 'PA') or 'transparency' in image.info:
        image = image.convert('RGBA')
        ground = Image.new('RGB', image.size, WHITE)
        ground.paste(image, mask=image.getchannel('A'))
        return ground
    return image.convert('RGB')
