"""`tools/reference.py`: statistics of a reference set, in the layout of ADM's evaluator."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor
from torch.utils.data import Dataset

from eqzoo.commands.sets import build_extractor, open_images
from eqzoo.data import build_eval_loader
from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size, wait_for_all
from eqzoo.engine import load_config
from eqzoo.engine.autoencoder_training import to_float
from eqzoo.engine.device import use_device
from eqzoo.engine.evaluation import evaluate
from eqzoo.engine.preflight import missing
from eqzoo.evaluators import SampleView
from eqzoo.evaluators.reference import ReferenceMoments
from eqzoo.randomness import seeded
from eqzoo.registry import build
from eqzoo.statistics.reference import read_reference, write_reference


def reference(
    images: str,
    out: str,
    *,
    overrides: list[str],
    extractor: str = 'FIDInception',
    size: int = 256,
    crop: str = 'center',
    limit: int | None = None,
    num_stored: int = 10_000,
    labels: str = 'balanced',
    batch_size: int = 64,
    num_workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Measure a reference set, and write its statistics and some of its images to an npz file.

    Args:
        images: A folder, a zip or an npz file of images; or a generator's config, whose test_evaluators
            say what is measured on which features: each test would measure it anew.
        out: The npz file to write.
        overrides: Keys of the config to set, as key=value.
        extractor: FIDInception for FID; EfficientNetLite0 needs no download. A config names its own.
        size: Pixels of a side, of the samples to be compared with it.
        crop: How images become squares: center is ADM's.
        limit: Use at most this many images.
        num_stored: Images to keep in the file, for precision, recall, KID and swd; 10,000 in ADM's files.
        labels: Which images these are: balanced, alike many of each class; or random.
        batch_size: Images at once, over all processes.
        num_workers: Processes that read images.
        overwrite: Replace OUT if it is there.
    """
    if labels not in ('balanced', 'random'):
        raise ValueError(f'--labels must be balanced or random, got {labels!r}.')
    if Path(out).exists() and not overwrite:
        raise ValueError(f'{out} is there already; --overwrite replaces it.')
    if images.endswith('.py'):
        data, network = _of_config(images, overrides)
    elif overrides:
        raise ValueError(f'{overrides[0]}: keys are set in a config, and {images} is none; leave them out.')
    else:
        data, network = open_images(images, size, crop, limit), build_extractor(extractor)
    init_distributed()
    loading = (batch_size, num_workers)
    made = make_reference(data, network, Path(out), num_stored=num_stored, labels=labels, loading=loading)
    if rank_and_world_size()[0] == 0:
        print(data.describe())
        print(f'Written: {out}, statistics of {len(data)} images on {network.key}; {made} images are kept in it.')
    close_distributed()


def _of_config(config_file: str, overrides: Sequence[str]) -> tuple[Dataset, Any]:
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
