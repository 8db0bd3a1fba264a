"""Reference sets: open images and samples, measure their statistics, and keep them in files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from eqzoo.config import Config
from eqzoo.data import ImageFolder, NpzImages
from eqzoo.data.decoding import decode
from eqzoo.data.loaders import build_eval_loader
from eqzoo.data.sources import open_source
from eqzoo.distributed import rank_and_world_size, wait_for_all
from eqzoo.engine.evaluation import evaluate, sample_view
from eqzoo.engine.preflight import missing
from eqzoo.evaluators.reference import ReferenceMoments, read_reference, write_reference
from eqzoo.files import did_you_mean
from eqzoo.randomness import seeded
from eqzoo.registry import VISION, build
from eqzoo.vision import FeatureExtractor


def open_samples(path: str) -> Dataset:
    """Open samples without any change: all must have one size, and all must be readable.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If it has no images, or they are not square.
    """
    if Path(path).suffix == '.npz':
        return NpzImages(path)
    source = open_source(path)
    names = source.names()
    if not names:
        raise ValueError(f'{path}: no images in this {source.kind}; give a folder, a zip or an npz file of samples.')
    width, height = decode(source.read(names[0])).size
    if width != height:
        raise ValueError(f'{path}: {names[0]} has {width} x {height} pixels; expected square samples.')
    return ImageFolder(path, width, crop='exact', on_unreadable='fail')


def open_images(path: str, size: int, crop: str, limit: int | None = None) -> Dataset:
    """Open photographs, cropped to `size` x `size` pixels; those of an npz file must have that size.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If it has no images, or an npz file has images of another size.
    """
    if Path(path).suffix == '.npz':
        return NpzImages(path, size, limit=limit)
    return ImageFolder(path, size, crop=crop, limit=limit, on_unreadable='fail')


def build_extractor(name: str) -> FeatureExtractor:
    """Build the feature extractor registered as `name`, with its default arguments.

    Raises:
        ValueError: If there is no extractor of that name, or its weights are missing.
    """
    extractors = [known for known in VISION.names() if issubclass(VISION.module_dict[known], FeatureExtractor)]
    if name not in extractors:
        hint = did_you_mean(name, extractors)
        raise ValueError(f'Unknown feature extractor {name!r}.{hint} Registered: {", ".join(extractors)}.')
    lacks = missing({'extractor': dict(type=name)}, ['extractor'])
    if lacks:
        wanted = lacks[0][1]
        raise ValueError(
            f'{name}: {wanted.what} is missing.\n   looked for: {wanted.where}\n   {wanted.remedy}\n'
            'Without it, --extractor EfficientNetLite0 gives fd_effnet_lite0, which is comparable with itself only, '
            'not with FID.'
        )
    return build(dict(type=name))


def reference_of_config(config: Config) -> tuple[Dataset, Any]:
    """Return the data set that a config's evaluators use as their reference, and their extractor.

    Raises:
        ValueError: If no evaluator has both, or something they need is missing.
    """
    evaluators = config.get('test_evaluators', [])
    found = next((each for each in evaluators if _is_data(each.get('reference')) and each.get('extractor')), None)
    if found is None:
        raise ValueError(
            f'{config.filename}: none of its test_evaluators has an extractor and a data set for its reference; '
            "expected one with reference=dict(type='ImageFolder', …); or give the images themselves."
        )
    lacks = missing(Config(dict(reference=found.reference, extractor=found.extractor)), ('reference', 'extractor'))
    if lacks:
        listed = '; '.join(f'{each.what} (looked for: {each.where}). {each.remedy}' for _, each in lacks)
        raise ValueError(f'{config.filename} cannot be measured yet: {listed}')
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
    """Write the statistics of `data` on `extractor` to `out`, and return the number of images stored in it.

    Args:
        data: The reference set.
        extractor: The features.
        out: The npz file; its folder is created.
        num_stored: Images to store at most; unreadable ones are left out.
        labels: The choice of these: 'balanced', an equal number per class where available, or 'random'.
        loading: Batch size over all processes, and worker processes.
    """
    rank, world_size = rank_and_world_size()
    batch_size, num_workers = loading
    loader = build_eval_loader(data, batch_size=batch_size, num_workers=num_workers, rank=rank, world_size=world_size)
    moments = ReferenceMoments(extractor, choose_stored(data, num_stored, labels))
    evaluate([moments], loader, sample_view, title='reference')
    numbers = moments.stored.tolist()
    if rank == 0:
        write_reference(
            out,
            extractor,
            moments.pooled,
            spatial=moments.spatial,
            data=data.identity(),
            images=(data[number]['image'][None] for number in numbers),
            num_stored=len(numbers),
            features=moments.features,
        )
    wait_for_all()
    return len(numbers)


def measured_references(evaluators: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Return evaluators' configs with files as references; a data set is measured once, into a file in `folder`.

    Args:
        evaluators: Configs; `reference` is a file, or the config of a data set.
        folder: The folder of the files, `reference_<extractor>_<hash of the data set>.npz`.
    """
    found = []
    # an evaluator without an extractor reads only the reference's images, so any extractor's file will do
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


def choose_stored(data: Dataset, count: int, labels: str) -> list[int]:
    """Return the numbers of `count` images: an equal number per class where available, or a random choice."""
    order = torch.randperm(len(data), generator=seeded(0)).numpy()
    if count >= len(data) or labels == 'random':
        return sorted(order[:count].tolist())
    classes = np.asarray(data.labels())[order]
    # rank of each image within its class, in the shuffled order: all first images, then all second ones, …
    rank_in_class = np.empty(len(order), np.int64)
    for each in np.unique(classes):
        own = np.flatnonzero(classes == each)
        rank_in_class[own] = np.arange(len(own))
    return sorted(order[np.argsort(rank_in_class, kind='stable')][:count].tolist())
