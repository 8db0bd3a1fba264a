"""Benchmarks of decoding: libraries beside Pillow, the loader beside decoding alone, and scaled decoding."""

import io
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from eqzoo.benchmarks.measure import cpu_seconds, ratio_of
from eqzoo.data import ImageFolder, build_eval_loader
from eqzoo.data.crops import center
from eqzoo.data.decoding import decode, decode_pixels
from eqzoo.data.opening import open_source

Read = Callable[[bytes], np.ndarray]


class Decoding(NamedTuple):
    """A way to decode, beside Pillow on the same files.

    Args:
        milliseconds: CPU time of an image.
        ratio: To Pillow's time; the median over rounds.
        equal: The share of files whose pixels are Pillow's.
    """

    milliseconds: float
    ratio: float
    equal: float


def photographs(root: str, count: int, side: int | None, kind: str) -> list[bytes]:
    """Return photographs as files, enlarged by Lanczos with a grain of noise where `side` is larger than they are.

    Args:
        root: Any place that `ImageFolder` reads.
        count: Number of photographs, spread evenly over the place.
        side: Pixels of the short side; None takes the files as they are.
        kind: 'jpeg' (quality 90), 'progressive' or 'png'.
    """
    source = open_source(root)
    names = list(source.names())
    chosen = [source.read(name) for name in names[:: max(1, len(names) // count)][:count]]
    return chosen if side is None else [_enlarged(content, side, kind) for content in chosen]


def _enlarged(content: bytes, side: int, kind: str) -> bytes:
    image = decode(content)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    # enlarged photographs are smoother, and so smaller, than those of a camera
    grain = np.random.default_rng(0).integers(-6, 7, (image.height, image.width, 1))
    image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    stream = io.BytesIO()
    image.save(stream, 'png' if kind == 'png' else 'jpeg', **({} if kind == 'png' else _jpeg_options(kind)))
    return stream.getvalue()


def _jpeg_options(kind: str) -> dict[str, object]:
    return dict(quality=90, progressive=kind == 'progressive')


def decoders(is_jpeg: bool) -> dict[str, Read]:
    """Return the ways to decode that are installed, from bytes to pixels (H, W, 3), uint8; Pillow comes first."""
    found: dict[str, Read] = {
        'Pillow': lambda content: np.asarray(decode(content)),
        'eqzoo': decode_pixels,
        'OpenCV': lambda content: cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB),
    }
    if is_jpeg and find_spec('simplejpeg') is not None:
        import simplejpeg

        found['simplejpeg'] = simplejpeg.decode_jpeg
    return found


def compare_decoders(files: Sequence[bytes], *, rounds: int) -> dict[str, Decoding]:
    """Return what each of `decoders` takes for `files`, and how many have Pillow's pixels; ways take turns."""
    ways = decoders(is_jpeg=files[0].startswith(b'\xff\xd8'))
    expected = [ways['Pillow'](content) for content in files]
    equal = {
        name: sum(np.array_equal(read(content), pixels) for content, pixels in zip(files, expected, strict=True))
        for name, read in ways.items()
    }
    seconds = cpu_seconds(
        {name: lambda read=read: [read(each) for each in files] for name, read in ways.items()}, rounds
    )
    return {
        name: Decoding(1e3 * median(each) / len(files), ratio_of(each, seconds['Pillow']), equal[name] / len(files))
        for name, each in seconds.items()
    }


def compare_scaled(files: Sequence[bytes], side: int, *, rounds: int) -> tuple[float, float]:
    """Return the ratio of times, and the PSNR in dB, of scaled to exact decoding, with ADM's crop to `side`."""
    ways = {
        'exact': lambda: [center(decode(each), side, None) for each in files],
        'scaled': lambda: [center(decode(each, at_least=(side, side)), side, None) for each in files],
    }
    errors = [np.square(a.astype(float) - b).mean() for a, b in zip(*(way() for way in ways.values()), strict=True)]
    seconds = cpu_seconds(ways, rounds)
    return ratio_of(seconds['scaled'], seconds['exact']), float(10 * np.log10(255**2 / np.mean(errors)))


def compare_loader(folder: Path, files: Sequence[bytes], *, batch_size: int, rounds: int) -> dict[str, float]:
    """Return the time of the evaluation loader, in this process, relative to decoding alone, for each crop.

    'exact' has files of the wanted size; 'random_square' cuts and shrinks, which is counted as the loader's.

    Args:
        folder: An empty folder.
        files: Square JPEG or PNG files of one size.
        batch_size: Of the loader.
        rounds: Timed passes, alternating.
    """
    ending = 'jpg' if files[0].startswith(b'\xff\xd8') else 'png'
    for number, content in enumerate(files):
        (folder / f'{number:06d}.{ending}').write_bytes(content)
    side = decode(files[0]).width
    found = {}
    for crop, size in (('exact', side), ('random_square', side // 2)):
        loader = build_eval_loader(ImageFolder(folder, size, crop=crop), batch_size=batch_size, num_workers=0)
        ways = {
            'decoding': lambda: [decode_pixels(each) for each in files],
            'loader': lambda loader=loader: list(islice(loader, len(files))),
        }
        seconds = cpu_seconds(ways, rounds)
        found[crop] = ratio_of(seconds['loader'], seconds['decoding'])
    return found


def square_files(files: Sequence[bytes], side: int) -> Iterator[bytes]:
    """Yield the middle square of JPEG files, as JPEG files of quality 90."""
    for content in files:
        stream = io.BytesIO()
        image = decode(content)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image.crop((left, top, left + side, top + side)).save(stream, 'jpeg', quality=90)
        yield stream.getvalue()
