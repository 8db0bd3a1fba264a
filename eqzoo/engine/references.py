"""Reference sets: open images and samples, measure their statistics, and keep them in files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from eqzoo.autoencoders import Autoencoder
from eqzoo.checkpoints.autoencoder import autoencoder_digest
from eqzoo.config import Config
from eqzoo.data import ImageFolder, NpzImages
from eqzoo.data.decoding import UnreadableImageError, decode
from eqzoo.data.loaders import build_eval_loader
from eqzoo.data.opening import open_source
from eqzoo.data.sources import left_out_remark
from eqzoo.distributed import rank_and_world_size, wait_for_all
from eqzoo.engine.evaluation import autoencoder_view, evaluate, sample_view
from eqzoo.engine.generator_training import latents_card
from eqzoo.engine.preflight import missing
from eqzoo.engine.sampling import ImageSampler
from eqzoo.evaluators.base import SampleView
from eqzoo.evaluators.latent_frechet import (
    LATENT_FEATURES,
    GenerationLatentFrechet,
    LatentReference,
    LatentReferenceMoments,
)
from eqzoo.evaluators.reference import ReferenceMoments, read_reference, write_reference
from eqzoo.files import did_you_mean
from eqzoo.randomness import seeded
from eqzoo.registry import VISION, build, find_component
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
        raise ValueError(
            f'{path}: no images in this {source.kind}; give a folder, a zip or an npz file of samples. '
            f'{left_out_remark(source, with_companions=True)}'.rstrip()
        )
    try:
        width, height = decode(source.read(names[0])).size
    except (UnreadableImageError, OSError) as error:
        raise ValueError(f'{path}: cannot read {names[0]} ({error}); replace or remove the file.') from None
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


def build_extractor(name: str, *, weights: str | None = None, dtype: str = 'float32') -> FeatureExtractor:
    """Build a feature extractor.

    Args:
        name: Its registered name.
        weights: Path or URL of its weights, instead of the known file; 'random' for trials.
        dtype: 'float32' or 'bfloat16'.

    Raises:
        ValueError: If there is no extractor of that name, or its weights are missing.
    """
    extractors = [known for known in VISION.names() if issubclass(VISION.module_dict[known], FeatureExtractor)]
    if name not in extractors:
        hint = did_you_mean(name, extractors)
        raise ValueError(f'Unknown feature extractor {name!r}.{hint} Registered: {", ".join(extractors)}.')
    # what is not given keeps the extractor's own default
    given = {key: value for key, value in (('weights', weights), ('dtype', dtype)) if value not in (None, 'float32')}
    config = dict(type=name, **given)
    lacks = missing({'extractor': config}, ['extractor'])
    if lacks:
        wanted = lacks[0][1]
        raise ValueError(
            f'{name}: {wanted.what} is missing.\n   looked for: {wanted.where}\n   {wanted.remedy}\n'
            'Without it, --extractor EfficientNetLite0 gives fd_effnet_lite0, which is comparable with itself only, '
            'not with FID.'
        )
    return build(config)


def reference_of_config(config: Config, against: str = 'images') -> tuple[Dataset, Any]:
    """Return the data set that a config's evaluators use as their reference, and their extractor.

    Args:
        config: A config with `test_evaluators`.
        against: Of those that compare with 'images', or with 'reconstructions'.

    Raises:
        ValueError: If no evaluator has both, or something they or the autoencoder need is missing.
    """
    found = next(
        (
            each
            for each in config.get('test_evaluators', [])
            if _is_data(each.get('reference')) and each.get('extractor') and each.get('against', 'images') == against
        ),
        None,
    )
    if found is None:
        wanted = "reference=dict(type='ImageFolder', …)" + (
            '; or give the images themselves' if against == 'images' else ''
        )
        raise ValueError(
            f'{config.filename}: none of its test_evaluators has an extractor and a data set for its reference of '
            f'{against}; expected one with {wanted}.'
        )
    check_reference_sizes(config)
    parts = dict(reference=found.reference, extractor=found.extractor)
    if against == 'reconstructions':
        parts['autoencoder'] = config.model.autoencoder
    lacks = missing(Config(parts), tuple(parts))
    if lacks:
        listed = '; '.join(f'{each.what} (looked for: {each.where}). {each.remedy}' for _, each in lacks)
        raise ValueError(f'{config.filename} cannot be measured yet: {listed}')
    return build(found.reference), build(found.extractor)


def check_reference_sizes(config: Config) -> None:
    """Refuse references of another size than the images whose latents a generator learns, where its config has both.

    Raises:
        ValueError: Naming both sizes.
    """
    learned = (config.get('cache_dataloader') or {}).get('dataset', {}).get('size')
    for evaluator in config.get('test_evaluators') or []:
        _check_size(evaluator.get('reference'), learned)


def _check_size(reference: Any, size: int | None) -> None:
    theirs = reference.get('size', size) if _is_data(reference) else size
    if size is not None and theirs != size:
        raise ValueError(
            f'test_evaluators: the reference {reference["type"]} has images of {theirs} x {theirs} pixels, the samples '
            f'have {size} x {size}; set size={size} of the reference.'
        )


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
    autoencoder: Autoencoder | None = None,
) -> int:
    """Write the statistics of `data` on `extractor` to `out`, and return the number of images stored in it.

    The work is divided among the processes.

    Args:
        data: The reference set.
        extractor: The features.
        out: The npz file; its folder is created.
        num_stored: Images to store at most; unreadable ones are left out.
        labels: The choice of these: 'balanced', an equal number per class where available, or 'random'.
        loading: Batch size over all processes, and worker processes.
        autoencoder: Measure its reconstructions from the posterior mean instead of the images. Then none is stored.
    """

    def reconstructions(batch: Mapping[str, Any]) -> SampleView:
        view = autoencoder_view(autoencoder, batch)
        return SampleView(view.reconstruction_uint8, view.numbers)

    moments = ReferenceMoments(extractor, choose_stored(data, num_stored, labels) if autoencoder is None else ())
    view_of, title = (sample_view, 'reference') if autoencoder is None else (reconstructions, 'reconstructions')
    evaluate([moments], _loader(data, loading), view_of, title=title)
    rank, _ = rank_and_world_size()
    numbers = moments.stored.tolist()
    if rank == 0:
        write_reference(
            out,
            extractor,
            moments.pooled,
            spatial=moments.spatial,
            data=data.identity(),
            num_listed=len(data),
            images=(data[number]['image'][None] for number in numbers),
            num_stored=len(numbers),
            features=moments.features,
            autoencoder=None if autoencoder is None else autoencoder_digest(autoencoder),
        )
    wait_for_all()
    return len(numbers)


def measure_latents(
    data: Dataset,
    autoencoder: Autoencoder,
    shape: tuple[int, int, int],
    *,
    features: Sequence[str] = LATENT_FEATURES,
    loading: tuple[int, int] = (64, 0),
) -> LatentReference:
    """Return the moments of the posterior means of `data`, in generator units; the work is divided among the processes.

    Args:
        data: The reference set.
        autoencoder: In evaluation mode, on the device.
        shape: (C, h, w) of the generator's latents.
        features: Of 'full' and 'cells'; see `GenerationLatentFrechet`.
        loading: Batch size over all processes, and worker processes.

    Raises:
        ValueError: If the latents have another shape.
    """
    moments = LatentReferenceMoments(shape, features)
    evaluate([moments], _loader(data, loading), partial(autoencoder_view, autoencoder), title='latents')
    return LatentReference(shape, moments.num_images, moments.gaussians, data.identity(), latents_card(autoencoder))


def measured_references(
    evaluators: Sequence[Mapping[str, Any]], folder: Path, draw: ImageSampler, *, batch_size: int = 64
) -> list[dict[str, Any]]:
    """Return evaluators' configs with measured references in place of data sets.

    Images are measured once, into `reference_<extractor>_<hash>.npz`; their reconstructions, by the autoencoder that
    decodes the samples, once into `reconstructions_<extractor>_<hash>.npz`. The hashes are of the data set, and of the
    autoencoder. Latents are measured in every test: encoding is fast beside sampling.

    Args:
        evaluators: Configs; `reference` is a file, or the config of a data set.
        folder: The folder of the files.
        draw: The sampler whose samples are evaluated.
        batch_size: Images that this process encodes and decodes at a time.

    Raises:
        ValueError: If latents are to be compared and the generator makes codes or latents of another shape; if a
            file is of another autoencoder's reconstructions; or if a data set has images of another size than samples.
    """
    if any(map(_is_latent, evaluators)):
        _check_has_latents(draw)
    loading = batch_size * rank_and_world_size()[1], 0
    found = []
    # an evaluator without an extractor reads only the reference's images, so any extractor's file will do
    extractors = [each['extractor'] for each in evaluators if each.get('extractor')]
    default = extractors[0] if extractors else dict(type='EfficientNetLite0')
    for evaluator in evaluators:
        _check_size(evaluator.get('reference'), draw.image_size)  # not after measuring it
        evaluator = dict(evaluator)
        reference = evaluator.get('reference')
        if _is_latent(evaluator) and _is_data(reference):
            options = dict(features=evaluator.get('features', LATENT_FEATURES), loading=loading)
            shape = draw.generator.latent_shape
            evaluator['reference'] = measure_latents(build(reference), draw.autoencoder, shape, **options)
        elif evaluator.get('against') == 'reconstructions':
            evaluator['reference'] = _reconstructions(evaluator, folder, draw.autoencoder, loading)
        elif _is_data(reference):
            data, network = build(reference), build(evaluator.get('extractor') or default)
            file = folder / f'reference_{network.key}_{_short_hash(data.identity())}.npz'
            if not _is_whole(file, network):
                make_reference(data, network, file, loading=loading)
            evaluator['reference'] = str(file)
        found.append(evaluator)
    return found


def _reconstructions(
    evaluator: Mapping[str, Any], folder: Path, autoencoder: Autoencoder, loading: tuple[int, int]
) -> str:
    """Return the file of the features of an autoencoder's reconstructions; a data set is measured if there is none."""
    reference, digest = evaluator.get('reference'), autoencoder_digest(autoencoder)
    if _is_data(reference):
        data, network = build(reference), build(evaluator['extractor'])
        file = folder / f'reconstructions_{network.key}_{_short_hash([data.identity(), digest])}.npz'
        if not _is_whole(file, network):
            make_reference(data, network, file, loading=loading, autoencoder=autoencoder)
        return str(file)
    theirs = read_reference(reference).autoencoder
    if theirs not in (None, digest):  # the evaluator refuses a file of images
        raise ValueError(
            f'GenerationMetric.reference: {reference} is of reconstructions by the autoencoder {theirs[:12]}…, the '
            f"samples are decoded by {digest[:12]}…; give the data set, reference=dict(type='ImageFolder', …)."
        )
    return reference


def _is_latent(evaluator: Mapping[str, Any]) -> bool:
    cls = evaluator['type'] if callable(evaluator['type']) else find_component(evaluator['type'])
    return isinstance(cls, type) and issubclass(cls, GenerationLatentFrechet)


def _check_has_latents(draw: ImageSampler) -> None:
    if draw.generator.learns == 'codes':
        raise ValueError(
            'test_evaluators: GenerationLatentFrechet compares continuous latents, and '
            f'{type(draw.generator).__name__} makes codes; leave it out, or take the decoder out with '
            "dict(type='GenerationMetric', against='reconstructions', …)."
        )


def _loader(data: Dataset, loading: tuple[int, int]) -> DataLoader:
    rank, world_size = rank_and_world_size()
    batch_size, num_workers = loading
    return build_eval_loader(data, batch_size=batch_size, num_workers=num_workers, rank=rank, world_size=world_size)


def _short_hash(identity: Any) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


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
