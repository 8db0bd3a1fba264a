"""Photographs: reading them, and cropping them to squares that all autoencoders accept."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eqzoo.data import ImageFolder
from eqzoo.data.crops import center
from eqzoo.data.decoding import UnreadableImageError, decode
from eqzoo.data.sources import EXTENSIONS, FolderSource


class Photographs(NamedTuple):
    """Decoded images of any sizes.

    Args:
        names: One for each image.
        images: Upright, RGB.
        remarks: Remarks on their choice.
    """

    names: list[str]
    images: list[Image.Image]
    remarks: list[str]


class Squares(NamedTuple):
    """Images of one size.

    Args:
        names: One for each image.
        pixels: (B, 3, S, S), uint8.
        sizes: Each photograph's original (width, height).
        cuts: How each was cropped, in words.
        remarks: Remarks on all of them.
    """

    names: list[str]
    pixels: Tensor
    sizes: list[tuple[int, int]]
    cuts: list[str]
    remarks: list[str]


def read_photographs(places: Sequence[str], limit: int) -> Photographs:
    """Read image files, or at most `limit` images of each folder or zip.

    Raises:
        FileNotFoundError: If a file, folder or zip does not exist.
        ValueError: If there is no image that can be read.
    """
    names: list[str] = []
    images: list[Image.Image] = []
    remarks: list[str] = []
    unreadable = []
    for place in places:
        chosen, read, choice = _open(place, limit)
        remarks += choice
        for name in chosen:
            try:
                image = decode(read(name))
            except (UnreadableImageError, OSError) as error:
                unreadable.append(f'{name} ({error})')
            else:
                names.append(name)
                images.append(image)
    if not images:
        raise ValueError(f'images: none can be read: {"; ".join(unreadable)}. Give at least one readable image.')
    if unreadable:
        remarks.append(f'Left out because they cannot be read: {"; ".join(unreadable)}.')
    return Photographs(names, images, remarks)


def crop_all(photographs: Photographs, size: int, factors: Sequence[int]) -> Squares:
    """Crop photographs to squares of one side: at most `size`, and a multiple of all `factors`.

    Larger photographs are first shrunk by `eqzoo.data.crops.center` to `size`, or to the short side of the
    smallest photograph; none is enlarged.

    Raises:
        ValueError: If an image, or `size`, is smaller than the multiple.
    """
    multiple = math.lcm(*factors)
    shortest = min(photographs.images, key=lambda image: min(image.size))
    base = min(size, *shortest.size)
    side = base // multiple * multiple
    if not side:
        smallest = photographs.names[photographs.images.index(shortest)]
        who = f'{smallest} has {shortest.width} x {shortest.height} pixels; leave it out'
        who = f'--size is {size}; give more' if size < multiple else who
        raise ValueError(f'images: {who}: these models need multiples of {multiple} pixels a side.')
    rng = np.random.default_rng(0)  # a centre crop draws nothing
    start = (base - side) // 2
    pixels = [center(image, base, rng)[start : start + side, start : start + side] for image in photographs.images]
    return Squares(
        photographs.names,
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
        [image.size for image in photographs.images],
        [_cut(image.size, base, side) for image in photographs.images],
        [*photographs.remarks, *_crop_remarks(photographs, size, base, side, multiple)],
    )


def _open(place: str, limit: int) -> tuple[list[str], Callable[[str], bytes], list[str]]:
    """Return the names to read at `place`, the function that reads one's bytes, and remarks."""
    path = Path(place).expanduser()
    if path.suffix.lower() in EXTENSIONS and not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f'images: there is no file {place!r}.')
        return [path.name], FolderSource(path.parent).read, []
    folder = ImageFolder(place, 1, limit=limit)  # chooses the images; they are cropped later, when their size is known
    total = len(folder.source.names())
    chosen = f'{len(folder)} of the {total} images in {path.name} (--limit), always the same.'
    return list(folder.names), folder.source.read, [chosen] if total > len(folder) else []


def _cut(size: tuple[int, int], base: int, side: int) -> str:
    shrunk = f'short side to {base}, ' if min(size) > base else ''
    return f'{shrunk}middle {side} x {side}' if size != (side, side) else 'whole'


def _crop_remarks(photographs: Photographs, size: int, base: int, side: int, multiple: int) -> list[str]:
    """Return remarks on the common size, if it is smaller than the requested one."""
    remarks = []
    if base < size and len(photographs.images) > 1 and any(min(image.size) > base for image in photographs.images):
        smallest = min(zip(photographs.names, photographs.images, strict=True), key=lambda pair: min(pair[1].size))[0]
        remarks.append(f'All images have the size of the smallest, {smallest}; leave it out to see more.')
    if side < base:
        remarks.append(
            f'Cut at the centre from {base} to {side} pixels a side: these models need multiples of {multiple}.'
        )
    return remarks
