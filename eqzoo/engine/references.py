"""Sets of images to compare with: opened, measured, kept."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import Dataset

from eqzoo.config import load_config
from eqzoo.data import ImageFolder, NpzImages
from eqzoo.data.decoding import decode
from eqzoo.data.loaders import build_eval_loader
from eqzoo.data.sources import open_source
from eqzoo.distributed import get_device, rank_and_world_size, use_device, wait_for_all
from eqzoo.engine.evaluation import evaluate
from eqzoo.engine.preflight import missing
from eqzoo.evaluators.base import SampleView
from eqzoo.evaluators.reference import ReferenceMoments, read_reference, write_reference
from eqzoo.images import to_float
from eqzoo.randomness import seeded
from eqzoo.registry import VISION, build
from eqzoo.vision import FeatureExtractor


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


def reference_of_config(config_file: str, overrides: Sequence[str]) -> tuple[Dataset, Any]:
    """Return the data set that a config's evaluators compare with, and their extractor."""
    config = load_config(config_file, overrides)
    use_device(config)
    evaluators = config.get('test_evaluators', [])
    found = next((each for each in evaluators if _is_data(each.get('reference')) and each.get('extractor')), None)
    if found is None:
        raise ValueError(
            f'{config_file}: none of its test_evaluators has an extractor and a data set for its reference; '
            "accepted is one with reference=dict(type='ImageFolder', …); or give the images themselves."
        )
    lacks = missing(Config(dict(reference=found.reference, extractor=found.extractor)), ('reference', 'extractor'))
    if lacks:
        said = '; '.join(f'{each.what} (looked for: {each.where}). {each.remedy}' for _, each in lacks)
        raise ValueError(f'{config_file} cannot be measured yet: {said}')
    return build(found.reference), build(found.extractor)


def _is_data(reference: Any) -> bool:
    return isinstance(reference, Mapping)


def make_reference(
    data: Dataset,
    extractor: Any,
    out: Path,
    *,
    num_stored: int = 10_000,
    labels: str = 'balanced',
    loading: tuple[int, int] = (64, 0),
) -> int:
    """Write the statistics of `data` on `extractor` to `out`, and return how many images are kept in it."""
    rank, world_size = rank_and_world_size()
    batch_size, num_workers = loading
    loader = build_eval_loader(data, batch_size=batch_size, num_workers=num_workers, rank=rank, world_size=world_size)
    moments, device = ReferenceMoments(extractor, _stored(data, num_stored, labels)), get_device()
    evaluate(
        [moments], loader, lambda images, numbers: SampleView(to_float(images.to(device)), numbers), title='reference'
    )
    numbers = moments.stored.tolist()  # without those that cannot be read
    if rank == 0:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_reference(
            out,
            extractor,
            moments.pooled,
            spatial=moments.spatial,
            data=data.identity(),
            images=_batches(data, numbers),
            num_stored=len(numbers),
            features=moments.features,
        )
    wait_for_all()
    return len(numbers)


def measured_references(evaluators: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Return evaluators' configs whose references are files: a data set is measured, into `folder`, unless it was.

    Args:
        evaluators: Configs; `reference` is a file, or the config of a data set.
        folder: Where files of statistics go, `reference_<extractor>_<hash of the data set>.npz`.
    """
    found = []
    # an evaluator without an extractor looks at the reference's images alone, whatever its statistics are of
    extractors = [each['extractor'] for each in evaluators if each.get('extractor')]
    default = extractors[0] if extractors else dict(type='EfficientNetLite0')
    for evaluator in evaluators:
        evaluator = dict(evaluator)
        if _is_data(evaluator.get('reference')):
            data, network = build(evaluator['reference']), build(evaluator.get('extractor') or default)
            name = hashlib.sha256(json.dumps(data.identity(), sort_keys=True).encode()).hexdigest()[:8]
            file = folder / f'reference_{network.key}_{name}.npz'
            if not _is_whole(file, network):
                make_reference(data, network, file)
            evaluator['reference'] = str(file)
        found.append(evaluator)
    return found


def _is_whole(file: Path, extractor: Any) -> bool:
    try:
        read_reference(file, extractor)
    except (OSError, ValueError):
        return False
    return True


def _stored(data: Dataset, count: int, labels: str) -> list[int]:
    """Return the numbers of `count` images: of each class alike many, to within what it has, or of all at random."""
    order = torch.randperm(len(data), generator=seeded(0)).numpy()
    if count >= len(data) or labels == 'random':
        return sorted(order[:count].tolist())
    classes = np.asarray(data.labels())[order]
    # the n-th image of each class, in the shuffled order, for n = 0, 1, …
    place = np.empty(len(order), np.int64)
    for each in np.unique(classes):
        own = np.flatnonzero(classes == each)
        place[own] = np.arange(len(own))
    return sorted(order[np.argsort(place, kind='stable')][:count].tolist())


def _batches(data: Dataset, numbers: list[int]) -> Iterator[Tensor]:
    for number in numbers:
        yield data[number]['image'][None]
