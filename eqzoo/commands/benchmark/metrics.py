"""Benchmarks of metrics: the Fréchet distance, reconstructions, and the networks that both use."""

from eqzoo.benchmarks.measurements import Row, time_rows, with_out
from eqzoo.registry import VISION
from eqzoo.registry.ranges import PositiveInt


@with_out
def frechet(*, features: int = 2048, images: int = 5000, rounds: int = 2) -> list[Row]:
    """Compare the time of the Fréchet distance with scipy's `sqrtm` formula, which ADM's evaluator and pytorch-fid use.

    Args:
        features: Number of features; Inception has 2,048.
        images: Number of images in each of the two sets.
        rounds: Runs of each; the fastest counts.
    """
    import torch

    from eqzoo.benchmarks.evaluation import compare_frechet

    ours, theirs, difference = compare_frechet(features, images, rounds)
    print(f'{features} features, {images} images a set, CPU, {torch.get_num_threads()} threads')
    print(f'eqzoo         {ours:8.2f} s\nscipy sqrtm   {theirs:8.2f} s')
    print(f'ratio: {theirs / ours:.1f}x, values differ by {difference:.1e} relatively')
    return [Row('distance', {'time': ours / theirs}, dict(eqzoo=ours, sqrtm=theirs, difference=difference))]


@with_out
def rfid(*, extractor: str = 'EfficientNetLite0', images: int = 200, size: int = 256, rounds: int = 2) -> list[Row]:
    """Compare the time of rFID from images in memory with saving PNGs and reading them back.

    Images are the built-in Shapes, reconstructions are the same with noise; the time of an
    autoencoder is not included. The usual way extracts batches of 50, as pytorch-fid does.

    Args:
        extractor: Name of a feature extractor; weights are random, except EfficientNetLite0's.
        images: Number of images, a multiple of 50.
        size: Pixels a side.
        rounds: Runs of each; the fastest counts.
    """
    import torch

    from eqzoo.benchmarks.evaluation import compare_pipelines, streamed_memory
    from eqzoo.data import Shapes
    from eqzoo.distributed import get_device
    from eqzoo.images import to_float

    weights = {} if extractor == 'EfficientNetLite0' else {'weights': 'random'}
    network = VISION.build(dict(type=extractor, **weights))
    data, device = Shapes(images, size), get_device()
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for start in range(0, images, 50):
        batch = to_float(torch.stack([data[number]['image'] for number in range(start, min(start + 50, images))]))
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
    speeds = {name: cost.images_per_second for name, (cost, _) in costs.items()}
    memory = Row('eightfold number of images', {'memory': many / few}, dict(few=few, many=many))
    return [*time_rows(speeds, ('streamed', 'again'), ('through PNGs',)), memory]


@with_out
def networks(root: str, *, images: PositiveInt = 6, size: PositiveInt = 64, rounds: PositiveInt = 3) -> list[Row]:
    """Compare the time of metric networks with their original packages, and bfloat16 with float32, on photographs.

    Inception and LPIPS have random weights: neither time nor rounding depends on them.

    Args:
        root: Photographs: a folder, a zip, or another place (docs/data.md).
        images: Number of photographs for the times, an even number; bfloat16 uses 32 times as many.
        size: Pixels a side.
        rounds: Passes of each network; the median ratio counts.
    """
    import torch

    from eqzoo.benchmarks.networks import compare_networks, reduced_distances
    from eqzoo.data import ImageFolder

    data = ImageFolder(root, size)
    step = max(1, len(data) // (32 * images))
    pixels = torch.stack([data[index]['image'] for index in range(0, len(data), step)][: 32 * images])
    print(f'{size} px, {torch.get_num_threads()} threads; CPU time beside the package, and difference of the values')
    rows = []
    for name, cost in compare_networks(pixels[:images], rounds=rounds).items():
        print(f'{name:<16}{cost.ratio:>8.2f}{cost.difference:>12.1e}', flush=True)
        rows.append(Row(name, {'time': cost.ratio}, dict(difference=cost.difference)))
    halves = pixels[::2].split(images), pixels[1::2].split(images)
    for name, (plain, reduced) in reduced_distances(*halves).items():
        print(f'{name:<16}{plain:>12.4f} in float32, {reduced:.4f} in bfloat16')
        rows.append(Row(f'{name} in bfloat16', {}, dict(float32=plain, bfloat16=reduced)))
    return rows
