"""Samples of images on disk: npz files as ADM writes them, and folders of numbered PNG files."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eqzoo.data.decoding import UnreadableImageError, decode_pixels
from eqzoo.data.loaders import Key, split_key
from eqzoo.files import replacing, write_json
from eqzoo.npz import NpzArchive, write_npz
from eqzoo.registry import DATASETS, Requirement
from eqzoo.registry.ranges import PositiveInt
from eqzoo.text import counted, printable

_IMAGES, _LABELS = 'arr_0', 'arr_1'  # ADM's names
_MOST_CLASSES = 1 << 20  # a name is kept for each
_PART = re.compile(r'\d{8}-\d+\.npz')  # a batch of samples: its first number, and how many
_PIECE = 256  # images read and written at once when an npz file is put together


@DATASETS.register_module()
class NpzImages(Dataset):
    """Square images in ADM's layout of sample files, read in place: `arr_0` (N, size, size, 3), uint8.

    An item is `dict(image, label, index, draw)`: the image (3, size, size) uint8, the label of
    `arr_1` (N,), or 0 if the file has no labels. Other arrays are ignored, also `mu` and `sigma`,
    which ADM's evaluator uses as the statistics of the samples.

    An uncompressed array is mapped. A deflated one is first unpacked to a nameless temporary file,
    once in this process and its forks, and once in each spawned process.

    Args:
        path: The npz file.
        size: Side that the images must have, in pixels. Default: any.
        limit: Use at most the first `limit` images.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If it is not a readable npz file, has no images, or images of another form.
    """

    def __init__(self, path: str | Path, size: PositiveInt | None = None, *, limit: PositiveInt | None = None) -> None:
        self._archive = NpzArchive(path)
        self._mapped: np.ndarray | None = None
        num_images, *sides = _checked_shape(self._archive, self._pixels, size)
        self.size, self.limit = sides[0], limit
        self._labels = _read_labels(self._archive, num_images)[:limit]

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the reason why the images cannot be read: a missing, damaged or unsuitable file."""
        path = arguments.get('path')
        remedy = 'Set path=FILE of this dataset to an npz file of samples.'
        if not path:
            return [Requirement('NpzImages: no path is given.', 'the config', remedy)]
        try:
            cls(path, arguments.get('size'), limit=arguments.get('limit'))
        except (OSError, ValueError) as error:
            return [Requirement(f'NpzImages: {error}', str(path), remedy)]
        return []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of a few built-in pictures, used instead."""
        return dict(type='Shapes', num_images=16, size=64)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`, an index or (index, draw)."""
        index, draw = split_key(key, len(self))
        pixels = np.array(self._pixels[index].transpose(2, 0, 1), order='C')
        return dict(image=torch.from_numpy(pixels), label=int(self._labels[index]), index=index, draw=draw)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_mapped': None}  # a pickled array holds its bytes: all images

    def labels(self) -> list[int]:
        """Return the label of each image, without reading an image."""
        return self._labels.tolist()

    def identity(self) -> dict[str, Any]:
        """Return the identity of this set of images for metric cards; no image is read.

        The hash is over the checksums of images and labels in the directory of the file, so an
        uncompressed file and a deflated one agree.
        """
        names = [name for name in (_IMAGES, _LABELS) if name in self._archive]
        return dict(
            kind='NpzImages',
            root=self._archive.path.name,
            num_images=len(self),
            size=self.size,
            sha256=self._archive.fingerprint(names),
        )

    def describe(self) -> str:
        """Return one line about this dataset."""
        return printable(f'NpzImages: {counted(len(self), "image")} of {self.size} px from {self._archive.path.name}')

    @property
    def classes(self) -> list[str]:
        """The labels as names."""
        return [str(label) for label in range(int(self._labels.max()) + 1)]

    @property
    def _pixels(self) -> np.ndarray:
        if self._mapped is None:
            self._mapped = self._archive.map(_IMAGES)
        return self._mapped


def write_npz_images(
    path: str | Path, batches: Iterable[Tensor], count: int, *, labels: Sequence[int] | Tensor | None = None
) -> None:
    """Write a file of samples for ADM's evaluator and `NpzImages` atomically, holding one batch at a time.

    Args:
        path: The npz file.
        batches: Images (B, 3, size, size), uint8.
        count: N, the images of all batches.
        labels: The classes (N,) of the images, for `arr_1`.

    Raises:
        ValueError: If the images are not uint8 or differ in size, or there are not `count`
            images or labels.
    """
    classes = None if labels is None else np.asarray(labels, np.int64)
    if classes is not None and classes.shape != (count,):
        raise ValueError(f'write_npz_images: labels {classes.shape} for {count} images; expected ({count},).')
    with write_npz(path) as npz:
        npz.add_images(_IMAGES, batches, count)
        if classes is not None:
            npz.add(_LABELS, classes)


class PngSamples:
    """A folder with one PNG file for each sample, named by its number: `000000.png`.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def numbers(self) -> set[int]:
        """Return the numbers of the existing samples."""
        return {int(file.stem) for file in self.path.glob('*.png') if file.stem.isdigit()}

    def write(self, numbers: Sequence[int], images: Tensor) -> None:
        """Add the samples `numbers`, `images` (B, 3, H, W), uint8; each file is written atomically."""
        for number, pixels in zip(numbers, images.permute(0, 2, 3, 1).numpy(), strict=True):
            with replacing(self._file(number)) as temporary:
                Image.fromarray(pixels).save(temporary, 'png')

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return the samples `numbers` as (B, 3, H, W), uint8; ValueError if one cannot be read."""
        images = [self._decoded(self._file(number)) for number in numbers]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    def finish(self, labels: Sequence[int]) -> None:
        """Do nothing: the folder is complete."""

    @staticmethod
    def _decoded(file: Path) -> np.ndarray:
        try:
            return decode_pixels(file.read_bytes())
        except UnreadableImageError as error:
            raise ValueError(f'{file}: cannot be read ({error}); delete it, and it is drawn again.') from None

    def _file(self, number: int) -> Path:
        return self.path / f'{number:06d}.png'


class NpzSamples:
    """An npz file for ADM's evaluator: `arr_0` images (N, H, W, 3), `arr_1` their classes (N,).

    Until `finish`, batches are files in the folder `<stem>.parts` beside it. Samples can be added to
    a finished file.

    Args:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._parts = self.path.with_name(f'{self.path.stem}.parts')
        self._places: dict[int, tuple[NpzArchive, int]] | None = None

    def numbers(self) -> set[int]:
        """Return the numbers of the existing samples."""
        return set(self._find())

    def write(self, numbers: Sequence[int], images: Tensor) -> None:
        """Add the samples `numbers`, `images` (B, 3, H, W), uint8, atomically."""
        file = self._parts / f'{numbers[0]:08d}-{len(numbers)}.npz'
        with write_npz(file) as npz:
            npz.add('numbers', np.asarray(numbers, np.int64))
            npz.add_images('images', [images], len(images))
        if self._places is not None:  # searching all parts again would cost more with every batch
            self._places |= _places_in(file)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return the samples `numbers` as (B, 3, H, W), uint8."""
        if self._places is None or not self._places.keys() >= set(numbers):  # another process may have written more
            self._places = self._find()
        places = self._places
        mapped: dict[int, np.ndarray] = {}
        images = []
        for number in numbers:
            archive, row = places[number]
            if id(archive) not in mapped:
                mapped[id(archive)] = archive.map(_IMAGES if archive.path == self.path else 'images')
            images.append(mapped[id(archive)][row])
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    def finish(self, labels: Sequence[int]) -> None:
        """Join the parts to the file, with the classes `labels` of all N samples, and remove them."""
        if self._parts.is_dir():
            write_npz_images(self.path, self._in_order(len(labels)), len(labels), labels=labels)
            for file in self._part_files():
                file.unlink()
            with suppress(OSError):  # it has files of others
                self._parts.rmdir()
            self._places = None

    def _in_order(self, count: int) -> Iterator[Tensor]:
        for start in range(0, count, _PIECE):
            yield self.read(range(start, min(start + _PIECE, count)))

    def _find(self) -> dict[int, tuple[NpzArchive, int]]:
        places: dict[int, tuple[NpzArchive, int]] = {}
        if self.path.is_file():
            archive = NpzArchive(self.path)
            places |= {number: (archive, number) for number in range(len(archive.map(_IMAGES)))}
        for file in self._part_files():
            places |= _places_in(file)
        return places

    def _part_files(self) -> list[Path]:
        return sorted(file for file in self._parts.glob('*.npz') if _PART.fullmatch(file.name))


def open_sample_files(path: str | Path) -> PngSamples | NpzSamples:
    """Return the writer of samples to `path`: an npz file if it ends in `.npz`, otherwise a folder of PNG files."""
    return NpzSamples(path) if Path(path).suffix == '.npz' else PngSamples(path)


def card_of(path: str | Path) -> Path:
    """Return the path of the card of samples: a JSON file beside them, so that a folder has only images."""
    path = Path(path)
    return path.with_name(f'{path.stem if path.suffix == ".npz" else path.name}.json')


def write_card(path: str | Path, card: Mapping[str, Any]) -> None:
    """Write the card of the samples at `path`, atomically."""
    write_json(card_of(path), card)


def check_card(path: str | Path, plan: Mapping[str, Any]) -> None:
    """Refuse to add samples to those of another plan. A card without samples, of a run that drew none, binds nobody.

    Args:
        path: The samples.
        plan: Everything that decides sample n, in JSON's types.

    Raises:
        ValueError: If there are samples of another plan, or without a card.
    """
    file = card_of(path)
    if not open_sample_files(path).numbers():
        return
    if not file.is_file():
        raise ValueError(
            f'{path}: there are samples, but no {file.name} with their plan; choose another --out, or delete them.'
        )
    try:
        existing = json.loads(file.read_text())['plan']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{file}: damaged ({type(error).__name__}: {error}); delete it and {path}.') from None
    wanted = json.loads(json.dumps(plan))
    differences = [
        f'{name} {existing.get(name)!r} there, {wanted.get(name)!r} asked'
        for name in {**existing, **wanted}
        if existing.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(
            f'{path}: has other samples: {"; ".join(differences)}; choose another --out, or delete {path} and {file}.'
        )


def _checked_shape(archive: NpzArchive, pixels: np.ndarray, size: int | None) -> tuple[int, ...]:
    shape = pixels.shape
    is_square = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3 and 0 not in shape
    if not is_square or pixels.dtype != np.uint8:
        raise ValueError(
            f'{archive.path}: {_IMAGES} is {shape} of {pixels.dtype}; expected (N, size, size, 3) of uint8; '
            'write the samples in this layout, with values 0 to 255.'
        )
    if size is not None and shape[1] != size:
        raise ValueError(f'{archive.path}: images of {shape[1]} pixels; expected {size}; set size={shape[1]}.')
    return shape


def _read_labels(archive: NpzArchive, num_images: int) -> np.ndarray:
    if _LABELS not in archive:
        return np.zeros(num_images, np.int64)
    labels = archive.read(_LABELS)
    if (
        labels.shape != (num_images,)
        or labels.dtype.kind not in 'iu'
        or not 0 <= labels.min() <= labels.max() < _MOST_CLASSES
    ):
        ends = f', from {labels.min()} to {labels.max()}' if labels.size and labels.dtype.kind in 'iu' else ''
        raise ValueError(
            f'{archive.path}: {_LABELS} is {labels.shape} of {labels.dtype}{ends}; expected the {num_images} '
            f'classes of the images, whole numbers from 0 to {_MOST_CLASSES - 1}.'
        )
    return labels.astype(np.int64)


def _places_in(part: Path) -> dict[int, tuple[NpzArchive, int]]:
    archive = NpzArchive(part)
    return {int(number): (archive, row) for row, number in enumerate(archive.read('numbers'))}
