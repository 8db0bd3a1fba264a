"""Image decoding: upright RGB pixels of every mode and orientation, and the cause of damage."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from eqzoo.data import decoding
from eqzoo.data.decoding import FORMATS, UnreadableImageError, decode, decode_pixels


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


def png(depth: int, colour: int, key: bytes, row: bytes, width: int) -> bytes:
    """A PNG of one row with a transparent key (PNG, 11.3.1.1)."""
    header = struct.pack('>IIBBBBB', width, 1, depth, colour, 0, 0, 0)
    parts = [(b'IHDR', header), (b'tRNS', key), (b'IDAT', zlib.compress(b'\0' + row)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ('depth', 'key', 'row', 'shown'),
    [
        (2, 1, bytes([0b00_01_10_11]), [0, 255, 170, 255]),
        (4, 9, bytes([0x09, 0x5F]), [0, 255, 85, 255]),
        (8, 7, bytes([7, 8, 119, 255]), [255, 8, 119, 255]),
        (16, 0, struct.pack('>4H', 0, 1, 40092, 65535), [255, 0, 156, 255]),
        (16, 255, struct.pack('>4H', 255, 254, 256, 65535), [255, 1, 1, 255]),
    ],
)
def test_a_grey_key_has_the_depth_of_the_file(depth, key, row, shown):
    pixels = np.asarray(decode(png(depth, 0, struct.pack('>H', key), row, 4)))
    assert pixels[0, :, 0].tolist() == shown
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize('depth', [8, 16])
def test_a_colour_is_transparent_if_all_its_bits_are_the_keys(depth):
    # at 16 bits the second pixel differs from the key in a low byte alone, which 8-bit pixels do not have
    key, near, far = ((200, 100, 50), (200, 100, 51), (0, 0, 0)) if depth == 16 else ((9, 8, 7), (9, 8, 6), (7, 8, 9))
    pack = struct.Struct('>9H' if depth == 16 else '>9B').pack
    shown = np.asarray(decode(png(depth, 2, struct.pack('>3H', *key), pack(*key, *near, *far), 3)))
    high = 8 if depth == 16 else 0
    assert shown[0].tolist() == [[255] * 3, [each >> high for each in near], [each >> high for each in far]]


def tiff(image: Image.Image, **tags: int) -> bytes:
    """An uncompressed TIFF of `image` with some tags of its directory overwritten."""
    data = bytearray(encoded(image, 'TIFF'))
    numbers = dict(bits=258, photometric=262, sample_format=339)
    (start,) = struct.unpack_from('<I', data, 4)
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from('<H', data, start)[0], 12):
        for name, value in tags.items():
            if struct.unpack_from('<H', data, place)[0] == numbers[name]:
                struct.pack_into('<H', data, place + 8, value)
    return bytes(data)


def test_integer_tiffs_are_shown_over_their_range_or_refused():
    # of 12 bits, two values are three bytes: 0xfff 0x800, 0x7ff 0x010
    data = bytearray(tiff(Image.fromarray(np.zeros((1, 4), np.uint16)), bits=12))
    (where,) = struct.unpack_from('<I', data, data.index(struct.pack('<HHI', 273, 4, 1)) + 8)
    data[where : where + 6] = bytes([0xFF, 0xF8, 0x00, 0x7F, 0xF0, 0x10])
    assert np.asarray(decode(bytes(data)))[0, :, 0].tolist() == [255, 128, 127, 1]
    deep = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert np.asarray(decode(tiff(deep, photometric=0)))[0, :, 0].tolist() == [255, 254, 0]
    for values in (np.array([[0, 255]], np.int32), np.array([[0, 2**31 - 1]], np.int32)):
        with pytest.raises(UnreadableImageError, match='32-bit integers of unknown range; save the image with 8 or 16'):
            decode(encoded(Image.fromarray(values), 'TIFF'))


@pytest.mark.parametrize('kind', ['AVIF', 'BMP', 'GIF', 'JPEG', 'JPEG2000', 'PNG', 'PPM', 'TIFF', 'WEBP'])
def test_every_format_is_read(kind):
    if kind not in FORMATS:
        pytest.skip(f'this build of Pillow does not read {kind}')
    flat = Image.new('RGB', (16, 16), (40, 120, 200))
    assert np.abs(np.asarray(decode(encoded(flat, kind))).astype(int) - (40, 120, 200)).max() <= 3


def test_the_first_frame_of_an_animation_is_shown():
    frames = [Image.new('RGB', (4, 4), colour) for colour in ('red', 'blue')]
    for kind, options in (('GIF', {}), ('WEBP', dict(lossless=True))):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.unique(np.asarray(decode(data)).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_no_program_is_started_whatever_the_name(tmp_path, monkeypatch):
    """Pillow opens EPS by starting `gs`; an EPS may be called .jpg."""
    program, trace = tmp_path / 'gs', tmp_path / 'started'
    program.write_text(f'#!/bin/sh\ntouch {trace}\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    eps = encoded(Image.fromarray(picture()), 'EPS')
    with pytest.raises(UnreadableImageError, match='no image format that is read here .*PNG'):
        decode(eps)
    assert not trace.exists()


class PluginError(Exception):
    """An exception of a plugin's own."""


@pytest.mark.parametrize('error', [RuntimeError, NotImplementedError, SystemError, struct.error, PluginError])
def test_any_failure_of_a_decoder_is_an_unreadable_image(error, monkeypatch):
    def fail(*_):
        raise error('frame 0')

    data = encoded(Image.fromarray(picture()))
    monkeypatch.setattr('PIL.PngImagePlugin.PngImageFile.load', fail)
    with pytest.raises(UnreadableImageError, match=f'{error.__name__}: frame 0'):
        decode(data)


@pytest.mark.parametrize('error', [MemoryError, KeyboardInterrupt])
def test_what_is_not_the_images_fault_passes(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr('PIL.PngImagePlugin.PngImageFile.load', fail)
    with pytest.raises(error):
        decode(encoded(Image.fromarray(picture())))


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


# Files of every kind that `decode_pixels` may give to OpenCV, and of those that it must not.
PLAIN = {
    'jpeg 4:4:4': dict(kind='JPEG', subsampling=0),
    'jpeg 4:2:2': dict(kind='JPEG', subsampling=1),
    'jpeg 4:2:0': dict(kind='JPEG', subsampling=2, quality=30),
    'jpeg restarts': dict(kind='JPEG', restart_marker_rows=1),
    'jpeg grey': dict(kind='JPEG', mode='L'),
    'png': dict(kind='PNG'),
    'png grey': dict(kind='PNG', mode='L'),
}
OTHER = {
    'jpeg progressive': dict(kind='JPEG', progressive=True),
    'jpeg cmyk': dict(kind='JPEG', mode='CMYK'),
    'jpeg turned': dict(kind='JPEG', orientation=6),
    'png turned': dict(kind='PNG', orientation=8),
    'png palette': dict(kind='PNG', mode='P'),
    'png alpha': dict(kind='PNG', mode='LA'),
    'png key': dict(kind='PNG', transparency=(9, 9, 9)),
    'png bits': dict(kind='PNG', mode='1'),
    'png deep': dict(kind='PNG', mode='I;16'),
    'webp': dict(kind='WEBP'),
}


def smooth_file(kind, mode='RGB', orientation=None, **options):
    image = Image.fromarray(picture(3, 4)).resize((150, 101), Image.Resampling.BICUBIC)
    if mode == 'I;16':
        image = Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    if orientation:
        options['exif'] = Image.Exif()
        options['exif'][0x0112] = orientation
    return encoded(image, kind, **options)


@pytest.mark.parametrize('name', [*PLAIN, *OTHER])
def test_pixels_are_those_of_pillow(name, monkeypatch):
    content = smooth_file(**(PLAIN | OTHER)[name])
    assert all(decoding._is_exact(kind) for kind in ('JPEG', 'PNG'))
    calls, by_opencv = [], decoding._by_opencv
    monkeypatch.setattr(decoding, '_by_opencv', lambda *given: calls.append(1) or by_opencv(*given))
    np.testing.assert_array_equal(decode_pixels(content), np.asarray(decode(content)))
    assert bool(calls) == (name in PLAIN)


def outcome(read, content):
    try:
        return np.asarray(read(content))
    except UnreadableImageError as error:
        return str(error)


@pytest.mark.parametrize('name', [*PLAIN, 'jpeg progressive'])
def test_damaged_files_have_pillows_pixels_or_pillows_reason(name):
    content, rng = smooth_file(**(PLAIN | OTHER)[name]), np.random.default_rng(1)
    outcomes = set()
    for number in range(24):
        damaged = bytearray(content)
        if number % 2:
            for place in rng.integers(2, len(content), 2):
                damaged[place] = rng.integers(256)
        else:
            damaged = damaged[: rng.integers(len(content) // 4, len(content))]
        expected, found = (outcome(read, bytes(damaged)) for read in (decode, decode_pixels))
        assert type(expected) is type(found)
        np.testing.assert_array_equal(found, expected)
        outcomes.add(type(found))
    assert str in outcomes


def test_pillow_stays_where_the_other_library_rounds_otherwise(monkeypatch):
    by_opencv = decoding._by_opencv
    monkeypatch.setattr(decoding, '_by_opencv', lambda *given: by_opencv(*given) // 2)
    monkeypatch.setattr(decoding, '_is_exact', decoding._is_exact.__wrapped__)
    assert not decoding._is_exact('JPEG')
    content = smooth_file('JPEG')
    np.testing.assert_array_equal(decode_pixels(content), np.asarray(decode(content)))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_pillow_reads_all_where_opencv_is_older_than_its_order_rgb(kind, monkeypatch):
    monkeypatch.delattr(decoding.cv2, 'IMREAD_COLOR_RGB')
    monkeypatch.setattr(decoding, '_is_exact', decoding._is_exact.__wrapped__)
    content = smooth_file(kind)
    np.testing.assert_array_equal(decode_pixels(content), np.asarray(decode(content)))


@pytest.mark.parametrize(
    ('at_least', 'size'),
    [((150, 101), (150, 101)), ((75, 50), (75, 51)), ((76, 50), (150, 101)), ((30, 25), (38, 26)), ((1, 1), (19, 13))],
)
def test_a_scaled_jpeg_is_large_enough_and_near_the_shrunk_image(at_least, size):
    content = smooth_file('JPEG', quality=95)
    scaled = decode(content, at_least=at_least)
    assert scaled.size == size
    shrunk = np.asarray(decode(content).reduce(round(150 / size[0]))).astype(int)
    assert np.abs(np.asarray(scaled) - shrunk).mean() < 2
    # a photograph on its side is measured upright, and a PNG has no scales
    turned = smooth_file('JPEG', quality=95, orientation=6)
    assert decode(turned, at_least=at_least[::-1]).size == size[::-1]
    assert decode(smooth_file('PNG'), at_least=(1, 1)).size == (150, 101)
