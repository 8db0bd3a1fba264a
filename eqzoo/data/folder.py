"""Image folders: the images of a folder, of an archive, of shards or of a table as a dataset."""

import hashlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from eqzoo.data.crops import CROPS, PIXEL_CROPS, RANDOM_CROPS, width_and_height
from eqzoo.data.decoding import UnreadableImageError, decode, decode_pixels
from eqzoo.data.loaders import Key, split_key
from eqzoo.data.opening import Root, open_source
from eqzoo.data.sources import EXTENSIONS, ImageSource, Names, left_out_remark
from eqzoo.data.workers import BatchRows
from eqzoo.distributed import say_once
from eqzoo.files import did_you_mean
from eqzoo.registry import DATASETS, Requirement
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt, Probability
from eqzoo.text import counted, printable

WHOLE = (0.0, 1.0)

# The memory of the batch that this thread reads.
_ROWS: ContextVar[BatchRows | None] = ContextVar('rows', default=None)


@DATASETS.register_module()
class ImageFolder(Dataset):
    """The images below a folder, inside an archive, in shards or in a table, cropped to squares.

    An item is `dict(image, label, index, draw)`. The image is (3, size, size) uint8. The label is the number of its
    first-level folder in sorted order (images directly in the root have the folder '.'), unless the source states
    labels. Every random choice is a function of (seed, draw). Files that are no images by their names are left out, and
    counted in a remark, as are masks beside their images.

    Args:
        root: A folder of any depth; a zip or tar archive, which is read in place; WebDataset's tar shards, parquet or
            Arrow files as a folder, a list, a pattern or with braces (`{000..099}`); a folder that
            `datasets.save_to_disk` wrote; LMDB; URLs of these; `hf://datasets/org/name[:config]`. See docs/data.md.
        size: Side of the square images, in pixels.
        below: Use only images below this folder of the root, such as 'train'; classes are then the folders in it.
            Splits of `datasets` are such folders.
        crop: 'center' for evaluation (ADM's), 'random_square' for training (EQ-VAE's); 'resize_tensor',
            'resize_tensor_aliased' and 'resize_pil' for torchvision's `Resize` after or before
            `ToTensor`; 'exact' for images that already have this size.
        flip: Whether to mirror left and right with probability 0.5.
        part: The share (from, to) of the images to use, after a fixed shuffle by the hash of the
            names: (0, 0.95) and (0.95, 1) are disjoint and together complete.
        limit: Use at most this many images of the part, the first of that shuffle.
        on_unreadable: 'skip' leaves an image that cannot be decoded out of its batch, which lists
            it; 'fail' raises an error.
        on_small: What to do with an image whose short side is below `size`: 'enlarge' it, which the batch lists, 'skip'
            it as an unreadable one, or 'refuse' it with an error.
        image: The images to read: of files the ending of their names, such as '.jpg' or '.input.jpg' ('*': all that are
            images by their names, also where a sample of a tar has several); of a table the column. Default: all of a
            folder, the one of a sample, the column 'image' or the only one of bytes.
        label: The labels: 'auto' for `.cls` members of tars and the column 'label' of tables, where they are, otherwise
            folders; 'folder'; '.cls', '.txt' or '.json:KEY' of tars; a column's name; None for none.
        decoding: 'exact', or 'scaled' to decode JPEG files at a half, a quarter or an eighth of their sides where that
            is enough for `size`, twice that for 'random_square' (libjpeg's scaled inverse DCT). Large photographs take
            half the time and differ (docs/performance.md); it is in the identity of the set, so that metric cards and
            latent stores of both kinds are not mixed.
        seed: Seed of the random crops and flips.

    Raises:
        FileNotFoundError: If `root` does not exist.
        ValueError: If `root` cannot be read as images, or no image is left.
    """

    def __init__(
        self,
        root: str | Path | Sequence[str | Path],
        size: PositiveInt,
        *,
        below: str = '',
        crop: str = 'center',
        flip: bool = False,
        part: tuple[Probability, Probability] = WHOLE,
        limit: PositiveInt | None = None,
        on_unreadable: Literal['skip', 'fail'] = 'skip',
        on_small: Literal['enlarge', 'skip', 'refuse'] = 'enlarge',
        image: str | None = None,
        label: str | None = 'auto',
        decoding: Literal['exact', 'scaled'] = 'exact',
        seed: NonNegativeInt = 0,
    ) -> None:
        if crop not in CROPS:
            raise ValueError(f'ImageFolder.crop must be one of {", ".join(map(repr, CROPS))}, got {crop!r}.')
        self.size, self.crop, self.flip, self.seed = size, crop, flip, seed
        self.part, self.limit = tuple(part), limit
        self.on_unreadable, self.on_small, self.decoding = on_unreadable, on_small, decoding
        self.is_random = flip or crop in RANDOM_CROPS
        self.below = _as_prefix(below)
        self.image, self.label = image, label
        self.source, names = _open(root, self.below, image, label)
        self.names = _select(names, self.part, limit, root=self.source.root)
        self._labels: np.ndarray | None = None
        if label is not None and self.source.classes is not None:
            self.classes = list(self.source.classes)
            self._labels = np.array(self.source.labels_of(self.names), np.int32)
        else:
            self.classes = sorted({self._folder_of(name) for name in names})
            self._label_of = {name: number for number, name in enumerate(self.classes)}
        if remark := left_out_remark(self.source):
            say_once(remark)

    @classmethod
    def requirements(cls, arguments: Mapping[str, Any]) -> list[Requirement]:
        """Return the reason why the images cannot be read: a missing, damaged or empty root."""
        root = arguments.get('root')
        remedy = 'Set root=PATH of this dataset to any folder or zip of images.'
        if not root:
            return [Requirement('ImageFolder: no root is given.', 'the config', remedy)]
        try:
            options = arguments.get('image'), arguments.get('label', 'auto')
            names = _open(root, _as_prefix(arguments.get('below', '')), *options)[1]
            _select(names, arguments.get('part', WHOLE), arguments.get('limit'), root=root)
        except (OSError, ValueError) as error:
            return [Requirement(f'ImageFolder: {error}', str(root), remedy)]
        return []

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of a few built-in pictures, used instead."""
        return dict(type='Shapes', num_images=16, size=64)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`, an index or (index, draw).

        An image that is left out is `dict(unreadable=NAME, reason, index, draw)`. An enlarged one has its original
        size in `enlarged`, 'NAME (WIDTH x HEIGHT)'.

        Raises:
            ValueError: If the image cannot be decoded and `on_unreadable='fail'`, is smaller than `size` and
                `on_small='refuse'`, or has another size and `crop='exact'`.
        """
        index, draw = split_key(key, len(self))
        return self._item(self.names[index], (self.size, self.size), index, draw)

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
        """Return the items of a batch; images of one size are in one memory, where `collate` leaves them."""
        before = _ROWS.set(BatchRows(len(keys)))
        try:
            return [self[key] for key in keys]
        finally:
            _ROWS.reset(before)

    def _item(self, name: str, size: tuple[int, int], index: int, draw: int) -> dict[str, Any]:
        """Return the item of the image `name`, cropped to `size` (H, W)."""
        try:
            image = self._decode(self.source.read(name), size)
        except (UnreadableImageError, OSError) as error:
            if self.on_unreadable == 'fail':
                raise ValueError(
                    f'{self.source.root}: cannot read {name} ({error}); replace or remove the file. (In a config, '
                    "on_unreadable='skip' of a dataset leaves such images out.)"
                ) from None
            return dict(unreadable=name, reason=str(error), index=index, draw=draw)
        height, width = size
        found_width, found_height = width_and_height(image)
        is_small = (found_height < height or found_width < width) and self.crop != 'exact'
        if is_small and self.on_small != 'enlarge':
            wanted = width if width == height else f'{width} x {height}'
            reason = f'{found_width} x {found_height} pixels, smaller than {wanted}'
            if self.on_small == 'skip':
                return dict(unreadable=name, reason=reason, index=index, draw=draw)
            raise ValueError(f"{self.source.root}: {name}: {reason}; remove it, or set on_small='skip' or 'enlarge'.")
        # a generator takes as long as a tenth of decoding a small image
        rng = np.random.default_rng([self.seed, draw]) if self.is_random else None
        try:
            pixels = self._cut(image, size, rng)
        except ValueError as error:
            raise ValueError(f'{self.source.root}: {name}: {error}; give a set of one size, or another crop.') from None
        if self.flip and rng.random() < 0.5:
            pixels = cv2.flip(pixels, 1)
        rows = _ROWS.get()
        planes = torch.empty(3, height, width, dtype=torch.uint8) if rows is None else rows.take(height, width)
        cv2.split(pixels, list(planes.numpy()))  # a third of the time of numpy's transposed copy
        item = dict(image=planes, label=self._label(index, name), index=index, draw=draw)
        return {**item, 'enlarged': f'{name} ({found_width} x {found_height})'} if is_small else item

    def _decode(self, data: bytes, size: tuple[int, int]) -> Image.Image | np.ndarray:
        if self.decoding == 'scaled':
            # the smallest random square has half the short side
            share = 2 if self.crop in RANDOM_CROPS else 1
            return decode(data, at_least=(share * size[1], share * size[0]))
        return decode_pixels(data) if self.crop in PIXEL_CROPS else decode(data)

    def _cut(
        self, image: Image.Image | np.ndarray, size: tuple[int, int], rng: np.random.Generator | None
    ) -> np.ndarray:
        """Return the pixels (H, W, 3), uint8, of `image` cropped to `size` (H, W)."""
        return CROPS[self.crop](image, size[0], rng)

    def labels(self) -> list[int]:
        """Return the label of each image, without reading an image."""
        if self._labels is not None:
            return self._labels.tolist()
        return [self._label_of[self._folder_of(name)] for name in self.names]

    def identity(self) -> dict[str, Any]:
        """Return the identity of this set of images for metric cards; no image is read.

        The hash is over the sorted names and sizes in bytes, and over stated labels: a folder, a zip and a tar of it
        agree.
        """
        listing = hashlib.sha256()
        for name in self.names:
            listing.update(f'{name}\0{self.source.byte_size(name)}\n'.encode(errors='surrogateescape'))
        if self._labels is not None:  # of folders, names have the classes
            listing.update(self._labels.astype('<i4').tobytes())
        return dict(
            kind=type(self).__name__,
            root=_name_of(self.source),
            num_images=len(self),
            crop=self.crop,
            flip=self.flip,
            size=self.size,
            **({} if self.on_small == 'enlarge' else {'on_small': self.on_small}),
            **({} if self.decoding == 'exact' else {'decoding': self.decoding}),
            sha256=listing.hexdigest(),
        )

    def _label(self, index: int, name: str) -> int:
        return self._label_of[self._folder_of(name)] if self._labels is None else int(self._labels[index])

    def _folder_of(self, name: str) -> str:
        if self.label is None:
            return '.'
        folder, slash, _ = self.source.inside(name).removeprefix(self.below).partition('/')
        return folder if slash else '.'

    def describe(self) -> str:
        """Return one line about this dataset."""
        images, classes = counted(len(self), 'image'), counted(len(self.classes), 'class')
        flip = ', flipped at random' if self.flip else ''
        kind, place = type(self).__name__, self._place()
        return printable(f'{kind}: {images} of {classes} from {place}, {self.crop} crop to {self.size} px{flip}')

    def _place(self) -> str:
        return f'{self.source.kind} {_name_of(self.source)}' + (f' below {self.below}' if self.below else '')


def _as_prefix(below: str) -> str:
    return f'{below.strip("/")}/' if below else ''


def _name_of(source: ImageSource) -> str:
    """Return the last part of the place of a source."""
    return str(source.root).rstrip('/').rpartition('/')[2]


def _open(root: Root, below: str, image: str | None, label: str | None) -> tuple[ImageSource, Names]:
    source = open_source(root, image, label)
    root, names = source.root, source.names()
    if below:
        folders = {part.partition('/')[0] for name in names for part in (name, source.inside(name)) if '/' in part}
        names = Names(name for name in names if name.startswith(below) or source.inside(name).startswith(below))
        if not names:
            hint = did_you_mean(below.strip('/'), folders)
            raise ValueError(
                f'{root}: no images below {below.strip("/")!r}.{hint} Its folders: {", ".join(sorted(folders)[:20])}.'
            )
    if not names:
        remark = left_out_remark(source, with_companions=True).removeprefix(f'{source.root}:')
        raise ValueError(f'{root}: no images in this {source.kind}; expected {", ".join(EXTENSIONS)}.{remark}')
    return source, names


def _select(names: Names, part: Sequence[float], limit: int | None, *, root: Root) -> Names:
    """Return the names in `part` of the fixed shuffle, at most `limit`, sorted."""
    if not part[0] < part[1]:
        raise ValueError(f'ImageFolder.part must be (from, to) with 0 <= from < to <= 1, got {tuple(part)}.')
    if tuple(part) == WHOLE and (limit is None or limit >= len(names)):
        return names
    shuffled = sorted(names, key=lambda name: hashlib.sha256(name.encode(errors='surrogateescape')).digest())
    chosen = shuffled[round(part[0] * len(names)) : round(part[1] * len(names))][:limit]
    if not chosen:
        raise ValueError(f'{root}: part {tuple(part)} of {counted(len(names), "image")} has no image; widen the part.')
    return Names(sorted(chosen))
