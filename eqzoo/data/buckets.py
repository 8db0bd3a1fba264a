"""Aspect-ratio buckets: images of one shape share a batch, so that photographs of any shape are hardly cropped."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image

from eqzoo.data.decoding import UnreadableImageError, upright_size
from eqzoo.data.folder import WHOLE, ImageFolder
from eqzoo.data.loaders import Key, split_key
from eqzoo.data.shapes import Shapes
from eqzoo.data.sources import FolderSource, ImageSource, Names
from eqzoo.distributed import say_once
from eqzoo.files import replacing
from eqzoo.registry import DATASETS
from eqzoo.registry.ranges import Filled, NonNegativeInt, PositiveInt, Probability, Range
from eqzoo.text import counted, printable
from eqzoo.zoo import cache_folder

Size = tuple[int, int]  # height and width, in pixels

_READERS = 8  # threads: reading a header waits for the disk
_WORTH_A_LINE = 10_000  # images whose headers take seconds to read
_UNREAD = -1  # the size of an image whose bytes could not be read, now


@DATASETS.register_module()
class BucketedImageFolder(ImageFolder):
    """The images below a folder or inside an archive, each cropped to the nearest of several shapes.

    The shapes of a resolution r are the largest H x W with H · W <= r² whose sides are multiples of `multiple`. No side
    is more than `max_ratio` times the other. An image goes to the shape with the nearest logarithm of H / W. It is used
    at each resolution at which it need not be enlarged, and always at the smallest; so an image may be several items of
    an epoch. Each batch has items of one shape (`BucketSampler`), and its objective is drawn for the latents of that
    shape.

    The sizes of the images are read once, from the files' headers, and kept in eqzoo's cache. An item is that of
    `ImageFolder`, with an image (3, H, W).

    Args:
        root: See `ImageFolder`.
        size: The resolutions r, in pixels: one number or several.
        multiple: Of what all sides are multiples: itself one of the autoencoder's downsampling factor. Larger ones
            leave fewer shapes and more scales that are exact on their latents; 64 in SDXL's fine-tuning.
        max_ratio: The largest ratio of the sides.
        place: Where an image is cropped to the shape: at 'random', or in the 'center'.
        flip: Whether to mirror left and right with probability 0.5.
        below: See `ImageFolder`, also for the next five.
        part: The share (from, to) of the images to use.
        limit: Use at most this many images of the part.
        on_unreadable: What to do with an image that cannot be decoded.
        on_small: What to do with an image that is smaller than its shape at the smallest resolution: 'enlarge' it,
            'skip' it, so that it is no item, or 'refuse' the images.
        seed: Seed of the places and flips.

    Raises:
        FileNotFoundError: If `root` does not exist.
        ValueError: If a resolution is no multiple of `multiple`, if no image is left, or as for `ImageFolder`.
    """

    def __init__(
        self,
        root: str | Path | Sequence[str | Path],
        size: PositiveInt | Filled[PositiveInt],
        *,
        multiple: PositiveInt = 64,
        max_ratio: Annotated[float, Range(at_least=1)] = 2.0,
        place: Literal['random', 'center'] = 'random',
        flip: bool = False,
        below: str = '',
        part: tuple[Probability, Probability] = WHOLE,
        limit: PositiveInt | None = None,
        on_unreadable: Literal['skip', 'fail'] = 'skip',
        on_small: Literal['enlarge', 'skip', 'refuse'] = 'enlarge',
        decoding: Literal['exact', 'scaled'] = 'exact',
        seed: NonNegativeInt = 0,
    ) -> None:
        resolutions = sorted({size} if isinstance(size, int) else set(size))
        shapes = [bucket_sizes(each, multiple, max_ratio) for each in resolutions]
        super().__init__(
            root,
            resolutions[0],
            flip=flip,
            below=below,
            part=part,
            limit=limit,
            on_unreadable=on_unreadable,
            on_small=on_small,
            decoding=decoding,
            seed=seed,
        )
        self.size, self.multiple, self.max_ratio, self.place = tuple(resolutions), multiple, max_ratio, place
        self.is_random = flip or place == 'random'
        self.sizes = [each for group in shapes for each in group]
        """(H, W) of each bucket."""
        self._image_of, self.bucket_of = self._without_small(read_sizes(self.source, self.names), shapes)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of a few built-in pictures of three shapes, used instead."""
        return dict(type='BucketedShapes', num_images=24, sizes=[(64, 64), (64, 128), (128, 64)])

    def __len__(self) -> int:
        return len(self.bucket_of)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`, an index or (index, draw), as `ImageFolder` does."""
        index, draw = split_key(key, len(self))
        return self._item(self.names[self._image_of[index]], self.sizes[self.bucket_of[index]], index, draw)

    def labels(self) -> list[int]:
        """Return the label of each item, without reading an image."""
        of_images = super().labels()
        return [of_images[image] for image in self._image_of]

    def identity(self) -> dict[str, Any]:
        """Return the identity of this set of images for metric cards; no image is read."""
        identity = super().identity()
        del identity['crop']
        return {**identity, 'num_images': self._num_images(), **_settings(self, 'multiple', 'max_ratio', 'place')}

    def describe(self) -> str:
        """Return one line about this dataset, with its largest buckets."""
        flip = ', flipped at random' if self.flip else ''
        return printable(
            f'BucketedImageFolder: {counted(self._num_images(), "image")} from {self._place()}, {len(self)} items '
            f'{describe_buckets(self.sizes, self.bucket_of)}{flip}'
        )

    def _num_images(self) -> int:
        return len(np.unique(self._image_of))

    def _without_small(self, images: np.ndarray, shapes: Sequence[Sequence[Size]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the items of `assign_buckets` without those that `on_small` refuses; images of unknown size stay."""
        numbers, buckets = assign_buckets(images, shapes)
        if self.on_small == 'enlarge':
            return numbers, buckets
        width, height = images[numbers].T
        wanted_height, wanted_width = np.array(self.sizes)[buckets].T
        is_small = (width > 0) & ((width < wanted_width) | (height < wanted_height))
        if not is_small.any():
            return numbers, buckets
        first = int(np.argmax(is_small))
        small = (
            f'{self.source.root}: {counted(int(is_small.sum()), "image")} smaller than the nearest shape, such as '
            f'{printable(self.names[numbers[first]])} ({width[first]} x {height[first]}, smaller than '
            f'{wanted_width[first]} x {wanted_height[first]})'
        )
        if self.on_small == 'refuse':
            raise ValueError(f"{small}; remove them, or set on_small='skip' or 'enlarge'.")
        if is_small.all():
            raise ValueError(f"{small}, and no other; give larger images, set a smaller size, or on_small='enlarge'.")
        say_once(f'{small}: left out.')
        return numbers[~is_small], buckets[~is_small]

    def _cut(self, image: Image.Image, size: Size, rng: np.random.Generator | None) -> np.ndarray:
        return cover(image, size, rng if self.place == 'random' else None)


@DATASETS.register_module()
class BucketedShapes(Shapes):
    """`Shapes` cut to several sizes in turn: buckets without any download, for smoke runs and tests.

    Args:
        num_images: Number of pictures; picture i has the size i % len(sizes).
        sizes: (H, W) of each bucket.
        seed: Seed of the pictures and of the flips.
        flip: Whether to mirror left and right with probability 0.5.

    Example:
        >>> data = BucketedShapes(4, [(32, 32), (32, 64)])
        >>> [tuple(data[index]['image'].shape) for index in range(2)]
        [(3, 32, 32), (3, 32, 64)]
    """

    def __init__(
        self,
        num_images: PositiveInt = 10_000,
        sizes: Filled[tuple[PositiveInt, PositiveInt]] = ((64, 64), (64, 128), (128, 64)),
        *,
        seed: NonNegativeInt = 0,
        flip: bool = False,
    ) -> None:
        super().__init__(num_images, max(side for size in sizes for side in size), seed=seed, flip=flip)
        self.sizes = [tuple(size) for size in sizes]
        self.bucket_of = np.arange(num_images) % len(self.sizes)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for a few pictures."""
        return {**arguments, 'num_images': min(arguments.get('num_images', 24), 24)}

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """Return the item of `key`: the middle of the picture."""
        item = super().__getitem__(key)
        height, width = self.sizes[self.bucket_of[item['index']]]
        top, left = (self.size - height) // 2, (self.size - width) // 2
        return {**item, 'image': item['image'][:, top : top + height, left : left + width].contiguous()}

    def identity(self) -> dict[str, Any]:
        """Return the identity of this set of pictures for metric cards."""
        identity = {**super().identity(), 'kind': 'BucketedShapes', 'sizes': [list(size) for size in self.sizes]}
        del identity['size'], identity['sha256']
        return {**identity, 'sha256': hashlib.sha256(json.dumps(identity).encode()).hexdigest()}

    def describe(self) -> str:
        """Return one line about this dataset, with its largest buckets."""
        return f'{super().describe().rpartition(", ")[0]}, {describe_buckets(self.sizes, self.bucket_of)}'


def bucket_sizes(resolution: int, multiple: int = 64, max_ratio: float = 2.0) -> list[Size]:
    """Return the shapes (H, W) of a resolution, flattest first; see `BucketedImageFolder`.

    Raises:
        ValueError: If the resolution is no multiple of `multiple`.

    Example:
        >>> bucket_sizes(256)
        [(192, 320), (256, 256), (320, 192)]
    """
    if resolution % multiple:
        below, above = resolution // multiple * multiple, -(-resolution // multiple) * multiple
        near = ' or '.join(str(each) for each in (below, above) if each)
        raise ValueError(
            f'BucketedImageFolder.size must be multiples of multiple={multiple}, got {resolution}; set {near}, or '
            'another multiple.'
        )
    cells = (resolution // multiple) ** 2
    pairs = {(short, cells // short) for short in range(1, math.isqrt(cells) + 1)}
    kept = [pair for pair in pairs if pair[1] <= max_ratio * pair[0]]
    both = {size for short, long in kept for size in ((short, long), (long, short))}
    return [(height * multiple, width * multiple) for height, width in sorted(both, key=lambda each: each[0] / each[1])]


def assign_buckets(images: np.ndarray, shapes: Sequence[Sequence[Size]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the items of images in buckets: for each the image's number, and the bucket's.

    Args:
        images: Widths and heights (N, 2) in pixels; (0, 0) if that could not be read, which counts as a square.
        shapes: The sizes (H, W) of the buckets of each resolution, smallest resolution first; buckets are numbered
            through all of them.

    Returns:
        Two arrays (M,), by image, then by resolution.
    """
    width, height = np.maximum(images, 1).T
    ratio = np.log(height) - np.log(width)
    numbers, buckets, start = [], [], 0
    for level, group in enumerate(shapes):
        sizes = np.array(group)
        of_sizes = np.log(
            sizes[:, 0] / sizes[:, 1]
        )  # ascending: an image is nearest to what its neighbours' middles bound
        nearest = np.searchsorted((of_sizes[1:] + of_sizes[:-1]) / 2, ratio)
        is_large = (height >= sizes[nearest, 0]) & (width >= sizes[nearest, 1])
        taken = np.flatnonzero(is_large | (level == 0))
        numbers.append(taken)
        buckets.append(start + nearest[taken])
        start += len(group)
    order = np.argsort(np.concatenate(numbers), kind='stable')
    return np.concatenate(numbers)[order], np.concatenate(buckets)[order]


def cover(image: Image.Image, size: Size, rng: np.random.Generator | None = None) -> np.ndarray:
    """Resize an image so that it covers `size` (H, W), and crop the rest.

    One bicubic resampling of the part that is kept, with Pillow's filter against aliasing.

    Args:
        image: Of any size.
        size: Height and width of the result.
        rng: Draws the place of the part; None takes the middle.

    Returns:
        Pixels (H, W, 3), uint8.
    """
    height, width = size
    scale = max(height / image.height, width / image.width)
    kept = min(width / scale, image.width), min(height / scale, image.height)
    share = rng.random() if rng is not None else 0.5  # of what is too much, which is on one axis alone
    left, top = ((whole - part) * share for whole, part in zip(image.size, kept, strict=True))
    box = (left, top, min(left + kept[0], image.width), min(top + kept[1], image.height))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))


def read_sizes(source: ImageSource, names: Names) -> np.ndarray:
    """Return the widths and heights (N, 2) of images after their rotation by EXIF, int32; 0 where it is unreadable.

    Headers are read, no pixels. The result is kept in eqzoo's cache, for a listing of the same names and bytes; images
    whose bytes could not be read are tried again the next time.
    """
    listing = hashlib.sha256(str(Path(source.root).absolute()).encode(errors='surrogateescape'))
    for name in names:
        listing.update(f'{name}\0{source.byte_size(name)}\n'.encode(errors='surrogateescape'))
    kept = cache_folder() / 'image_sizes' / f'{listing.hexdigest()}.npy'
    found = np.full((len(names), 2), _UNREAD, np.int32)
    with suppress(OSError, EOFError, ValueError):  # there is none, or it is damaged
        earlier = np.load(kept)
        found = earlier if earlier.shape == found.shape else found
    missing = np.flatnonzero(found[:, 0] == _UNREAD)
    if len(missing) >= _WORTH_A_LINE:
        say_once(f'{source.root}: reading the sizes of {len(missing):,} images, once.')
    with ThreadPoolExecutor(_READERS) as readers:
        # in pieces: `map` makes a task of each item at once
        for start in range(0, len(missing), _WORTH_A_LINE):
            places = missing[start : start + _WORTH_A_LINE]
            found[places] = list(readers.map(lambda place: _size_of(source, names[place]), places.tolist()))
    if len(missing):
        try:
            with replacing(kept) as temporary, temporary.open('wb') as file:
                np.save(file, found)
        except OSError as error:  # they are read again the next time
            say_once(f'The sizes of the images of {source.root} are not kept: {error}')
    return np.maximum(found, 0)


def describe_buckets(sizes: Sequence[Size], bucket_of: np.ndarray) -> str:
    """Return the number of buckets that have images, and the largest with their numbers of images, in words.

    Example:
        >>> describe_buckets([(64, 64), (64, 128), (128, 64)], np.array([0, 0, 2]))
        'in 2 buckets: 64 x 64 (2), 128 x 64 (1)'
    """
    counts = Counter(bucket_of.tolist()).most_common()
    shown = ', '.join(f'{sizes[bucket][0]} x {sizes[bucket][1]} ({count})' for bucket, count in counts[:3])
    return f'in {counted(len(counts), "bucket")}: {shown}{", …" if len(counts) > 3 else ""}'


def _size_of(source: ImageSource, name: str) -> tuple[int, int]:
    try:
        if isinstance(source, FolderSource):
            with (source.root / name).open('rb') as file:  # of which Pillow reads the beginning
                return upright_size(file)
        return upright_size(BytesIO(source.read(name)))
    except UnreadableImageError:  # its item says why, and is left out of its batch
        return 0, 0
    except (OSError, ValueError):  # of the disk, or a file server
        return _UNREAD, _UNREAD


def _settings(dataset: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(dataset, name) for name in names}
