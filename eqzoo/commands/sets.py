"""Sets of images that a command line names: a folder, a zip, or an npz file."""

from pathlib import Path

from torch.utils.data import Dataset

from eqzoo.data import ImageFolder, NpzImages
from eqzoo.data.decoding import decode
from eqzoo.data.sources import open_source
from eqzoo.engine.preflight import missing
from eqzoo.extractors import FeatureExtractor
from eqzoo.registry import EXTRACTORS, build


def open_samples(path: str) -> Dataset:
    """Open samples as they are: all of one size, none resampled, none left out.

    Raises:
        FileNotFoundError: If nothing is at `path`.
        ValueError: If it holds no images, or not square ones.
    """
    if Path(path).suffix == '.npz':
        return NpzImages(path)
    source = open_source(path)
    names = source.names()
    if not names:
        raise ValueError(f'{path}: no images in this {source.kind}; give a folder, a zip or an npz file of samples.')
    width, height = decode(source.read(names[0])).size
    if width != height:
        raise ValueError(f'{path}: {names[0]} has {width} x {height} pixels; samples have to be square.')
    return ImageFolder(path, width, crop='exact', on_unreadable='fail')


def open_images(path: str, size: int, crop: str, limit: int | None = None) -> Dataset:
    """Open photographs, cropped to `size` x `size` pixels; those of an npz file have that size already.

    Raises:
        FileNotFoundError: If nothing is at `path`.
        ValueError: If it holds no images, or an npz file images of another size.
    """
    if Path(path).suffix == '.npz':
        return NpzImages(path, size, limit=limit)
    return ImageFolder(path, size, crop=crop, limit=limit, on_unreadable='fail')


def build_extractor(name: str) -> FeatureExtractor:
    """Build the feature extractor registered as `name`, with its default arguments.

    Raises:
        ValueError: If there is none of that name, or its weights are not here.
    """
    if name not in EXTRACTORS.names():
        EXTRACTORS.build(dict(type=name))  # raises, with the nearest name
    lacks = missing({'extractor': dict(type=name)}, ['extractor'])
    if lacks:
        wanted = lacks[0][1]
        raise ValueError(
            f'{name}: {wanted.what} is not here.\n   looked for: {wanted.where}\n   {wanted.remedy}\n'
            'Without it, --extractor EfficientNetLite0 gives fd_effnet_lite0, which compares with itself, not with FID.'
        )
    return build(dict(type=name))
