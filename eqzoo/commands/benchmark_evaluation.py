"""`tools/benchmark.py frechet` and `rfid`: what an evaluation costs, beside what is usual."""

import torch
from mmengine.device import get_device

from eqzoo.benchmarks.evaluation import compare_frechet, compare_pipelines, streamed_memory
from eqzoo.data import Shapes
from eqzoo.registry import EXTRACTORS


def frechet(*, features: int = 2048, images: int = 5000, rounds: int = 2) -> None:
    """Time the Fréchet distance beside scipy's `sqrtm` formula, which ADM's evaluator and pytorch-fid use.

    Args:
        features: D; 2,048 of Inception.
        images: Of each of the two sets.
        rounds: Of each; the fastest counts.
    """
    ours, theirs, difference = compare_frechet(features, images, rounds)
    print(f'{features} features, {images} images a set, CPU, {torch.get_num_threads()} threads')
    print(f'eqzoo         {ours:8.2f} s\nscipy sqrtm   {theirs:8.2f} s')
    print(f'ratio: {theirs / ours:.1f}x, values differ by {difference:.1e} relatively')


def rfid(*, extractor: str = 'EfficientNetLite0', images: int = 200, size: int = 256, rounds: int = 2) -> None:
    """Time the Fréchet distance of reconstructions, streamed, beside saving PNGs and reading them back.

    Images are the built-in Shapes, reconstructions are those with noise; the autoencoder's own
    time is in neither way. The usual way extracts batches of 50, as pytorch-fid does.

    Args:
        extractor: A feature extractor's name; weights are random where they are not here.
        images: How many, a multiple of 50.
        size: Pixels of a side.
        rounds: Of each; the fastest counts.
    """
    network = EXTRACTORS.build(
        dict(type=extractor, **({} if extractor == 'EfficientNetLite0' else {'weights': 'random'}))
    )
    data, device = Shapes(images, size), get_device()
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for start in range(0, images, 50):
        batch = torch.stack([data[number]['image'] for number in range(start, min(start + 50, images))]) / 127.5 - 1
        noisy = batch + 0.03 * torch.randn(batch.shape, generator=generator)
        pairs.append((batch.to(device), noisy.to(device)))
    costs = compare_pipelines(network, pairs, rounds=rounds)
    print(f'{extractor}, {images} images of {size} px, {device}, {torch.get_num_threads()} threads')
    print(f'{"way":<14}{"images/s":>10}{"peak GiB":>10}')
    for name, (cost, _) in costs.items():
        print(f'{name:<14}{cost.images_per_second:>10.3g}{cost.peak_memory:>10.2f}')
    ours, again, usual = (costs[name][0].images_per_second for name in ('streamed', 'again', 'through PNGs'))
    print(f'ratio: {ours / usual:.1f}x; with the images measured before (reference=…): {again / usual:.1f}x')
    few, many = (streamed_memory(network, pairs[0][0], batches) for batches in (1, 8))
    print(f'peak memory of {len(pairs[0][0])} images: {few:.2f} GiB, of {8 * len(pairs[0][0])}: {many:.2f} GiB')
