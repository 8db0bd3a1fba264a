"""Benchmarks of the Fréchet distance: its formula, and a streamed rFID against saved and re-read pictures."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import linalg
from torch import Tensor

from eqzoo.benchmarks.measure import Cost, peak_memory, timed
from eqzoo.evaluators import AutoencoderView, ReconstructionFrechet
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance
from eqzoo.evaluators.reference import write_reference
from eqzoo.images import to_uint8
from eqzoo.vision import FeatureExtractor

_BATCH = 50  # pytorch-fid's default


def compare_pipelines(
    extractor: FeatureExtractor, pairs: list[tuple[Tensor, Tensor]], *, rounds: int = 1
) -> dict[str, tuple[Cost, float]]:
    """Return cost and value of each way from images in memory to the distance.

    The ways are 'streamed', 'again' (with a reference file of the images), and 'through PNGs'.

    Args:
        extractor: Used by all ways.
        pairs: Batches of (images, reconstructions), each (B, 3, H, W), about [-1, 1], as in an evaluation.
        rounds: Runs of each way; the fastest counts.
    """
    device = pairs[0][0].device
    count = sum(len(images) for images, _ in pairs)
    extractor(to_uint8(pairs[0][0]))  # the first call initialises the network
    with tempfile.TemporaryDirectory() as folder:
        moments = FeatureMoments(extractor.num_features)
        for images, _ in pairs:
            moments.add(extractor(to_uint8(images)).pooled)
        write_reference(Path(folder) / 'reference.npz', extractor, moments, data={})
        metric = ReconstructionFrechet(extractor, min_images=2)
        again = ReconstructionFrechet(extractor, reference=f'{folder}/reference.npz', min_images=2)
        ways: dict[str, Callable[[], float]] = {
            'streamed': lambda: _stream(metric, pairs),
            'again': lambda: _stream(again, pairs),
            'through PNGs': lambda: _through_files(extractor, pairs, Path(folder)),
        }

        def measure(work: Callable[[], float]) -> tuple[Cost, float]:
            values: list[float] = []
            seconds, memory = timed(lambda: peak_memory(lambda: values.append(work()), device), device)
            return Cost(count / seconds, memory), values[0]

        return {name: max(measure(work) for _ in range(rounds)) for name, work in ways.items()}


def streamed_memory(extractor: FeatureExtractor, batch: Tensor, num_batches: int) -> float:
    """Return the peak memory in GiB of evaluating `num_batches` times the images `batch` (B, 3, H, W) in [-1, 1]."""
    metric = ReconstructionFrechet(extractor, min_images=2)
    return peak_memory(lambda: _stream(metric, ((batch, batch.flip(3)) for _ in range(num_batches))), batch.device)


def compare_frechet(num_features: int, num_images: int, rounds: int) -> tuple[float, float, float]:
    """Return the seconds of eqzoo's Fréchet distance and of scipy's `sqrtm` formula, and their relative difference."""
    generator = torch.Generator().manual_seed(0)
    moments = []
    for shift in (0.0, 0.1):
        mixing = torch.randn(num_features, num_features, generator=generator) / num_features**0.5
        moments.append(FeatureMoments(num_features))
        for _ in range(0, num_images, 1000):
            moments[-1].add((torch.randn(1000, num_features, generator=generator) @ mixing).relu() + shift)
    (ours, value), (theirs, other) = (
        min(timed(lambda distance=distance: distance(*moments)) for _ in range(rounds))
        for distance in (frechet_distance, sqrtm_distance)
    )
    return ours, theirs, abs(value / other - 1)


def sqrtm_distance(first: Any, second: Any) -> float:
    """Return the Fréchet distance as ADM's evaluator and pytorch-fid compute it."""
    difference = (first.mean - second.mean).numpy()
    root = linalg.sqrtm(first.covariance.numpy() @ second.covariance.numpy())
    traces = np.trace(first.covariance.numpy()) + np.trace(second.covariance.numpy())
    return float(difference @ difference + traces - 2 * np.trace(root.real))


def _stream(metric: ReconstructionFrechet, pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    seen = 0
    for images, reconstructions in pairs:
        view = AutoencoderView(None, images, torch.arange(seen, seen + len(images)))
        view.reconstruction = reconstructions
        metric.process(view)
        seen += len(images)
    (value,) = metric.evaluate(seen).values()
    return value


def _through_files(extractor: FeatureExtractor, pairs: list[tuple[Tensor, Tensor]], folder: Path) -> float:
    """Save both sets as PNGs, then read, extract and compare them as pytorch-fid does."""
    sides = {'images': [], 'reconstructions': []}
    for number, batches in enumerate(pairs):
        for (side, paths), images in zip(sides.items(), batches, strict=True):
            for index, pixels in enumerate(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()):
                paths.append(folder / f'{side}-{number}-{index}.png')
                Image.fromarray(pixels).save(paths[-1])
    moments = []
    for paths in sides.values():
        features = []
        for start in range(0, len(paths), _BATCH):
            pixels = np.stack([np.asarray(Image.open(path).convert('RGB')) for path in paths[start : start + _BATCH]])
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(pairs[0][0].device)
            with torch.no_grad():
                features.append(extractor.extract(images.float()).pooled.double().cpu())
        moments.append(FeatureMoments(extractor.num_features))
        moments[-1].add(torch.cat(features))
    return frechet_distance(*moments)
