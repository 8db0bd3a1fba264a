"""Image decoding: upright RGB pixels of every mode and orientation, and the cause of damage."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from eqzoo.data.decoding import UnreadableImageError, decode


def encoded(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


# EXIF 2.3: the stored rows and columns of an upright picture.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('orientation', STORED)
def test_exif_orientation_is_undone_pixel_exactly(orientation, kind):
    upright = picture()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = dict(lossless=True) if kind == 'WEBP' else {}
    np.testing.assert_array_equal(np.asarray(decode(encoded(stored, kind, exif=exif, **options))), upright)


def test_an_impossible_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 9
    np.testing.assert_array_equal(np.asarray(decode(encoded(Image.fromarray(picture()), exif=exif))), picture())


def test_greyscale_is_repeated():
    grey = picture()[..., 0]
    np.testing.assert_array_equal(np.asarray(decode(encoded(Image.fromarray(grey)))), np.stack([grey] * 3, 2))


def test_sixteen_bits_are_rounded_over_their_whole_range():
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    for kind in ('PNG', 'TIFF'):
        pixels = np.asarray(decode(encoded(Image.fromarray(deep), kind)))
        assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
        assert (pixels == pixels[..., :1]).all()


def test_cmyk_inks_darken():
    inks = Image.new('CMYK', (16, 16), (255, 0, 0, 0))
    assert np.abs(np.asarray(decode(encoded(inks, 'JPEG', quality=100))).astype(int) - (0, 255, 255)).max() <= 2
    inks = Image.new('CMYK', (16, 16), (0, 0, 0, 255))
    assert np.asarray(decode(encoded(inks, 'TIFF'))).max() <= 2


def test_palette():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert('P')
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert np.asarray(decode(encoded(palette))).tolist() == [[[10, 20, 30], [200, 100, 50]]]


def test_one_bit():
    assert np.asarray(decode(encoded(Image.fromarray(np.array([[True, False]]))))).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_transparent_parts_become_white(mode):
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[0, 1, 3] = 255
    image = Image.fromarray(pixels)
    if mode == 'P':
        image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert('P')
        image.putpalette([40, 40, 40, 0, 0, 0])
        data = encoded(image, transparency=0)
    else:
        data = encoded(image.convert(mode))
    assert np.asarray(decode(data)).tolist() == [[[255, 255, 255], [0, 0, 0]]]


def test_half_transparent_is_blended():
    assert np.asarray(decode(encoded(Image.new('RGBA', (1, 1), (0, 0, 0, 128))))).tolist() == [[[127] * 3]]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def bomb() -> bytes:
    header = struct.pack('>IIBBBBB', 30_000, 30_000, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


@pytest.mark.parametrize(
    ('data', 'cause'),
    [
        (b'', 'the file is empty'),
        (b'not an image at all', 'no image format'),
        (encoded(Image.fromarray(picture(64, 64)), 'JPEG')[:1200], 'truncated'),
        (encoded(Image.fromarray(picture(64, 64)))[:600], 'truncated'),
        (bomb(), 'decompression bomb'),
        (encoded(Image.fromarray(np.ones((2, 2), np.float32)), 'TIFF'), 'unknown range'),
    ],
    ids=['empty', 'text', 'cut JPEG', 'cut PNG', 'bomb', 'float'],
)
def test_damage_is_reported_with_its_cause(data, cause):
    with pytest.raises(UnreadableImageError, match=cause):
        decode(data)


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
def test_broken_exif_does_not_hide_the_picture():
    whole = encoded(Image.fromarray(picture()), exif=b'Exif\0\0II*\0\xff\xff\xff\x7f')
    np.testing.assert_array_equal(np.asarray(decode(whole)), picture())
