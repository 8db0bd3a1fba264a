"""`tools/benchmark.py cache`, `store` and `growth`: what writing and reading latents cost, and how it grows."""

import tempfile
from pathlib import Path
from typing import Literal

from mmengine.device import get_device

from eqzoo.benchmarks.growth import growth as measure_growth
from eqzoo.benchmarks.latents import compare_reading, compare_writing
from eqzoo.data import Shapes
from eqzoo.registry import build
from eqzoo.zoo import autoencoder_config


def cache(
    config_file: str = 'configs/_base_/autoencoders/sd_vae.py',
    *,
    size: int = 128,
    images: int = 32,
    batch_size: int = 8,
    workers: int = 0,
    rounds: int = 2,
) -> None:
    """Time writing a latent store beside encoding images that are in memory, and beside a batch of 1.

    Weights are random and images are the built-in Shapes: neither changes the speed.

    Args:
        config_file: One base config of an autoencoder, such as configs/_base_/autoencoders/sd_vae.py.
        size: Pixels of a side.
        images: How many.
        batch_size: Images at once.
        workers: Processes that read images.
        rounds: Of each; the fastest counts.
    """
    autoencoder = build({**autoencoder_config(config_file), 'weights': None}).to(get_device()).eval()
    # cache_bytes=0: else the second pass would not draw them again
    dataset = Shapes(images, size, cache_bytes=0)
    speeds = compare_writing(autoencoder, dataset, batch_size=batch_size, num_workers=workers, rounds=rounds)
    print(f'{Path(config_file).stem}, {size} px, batch {batch_size}, {workers} workers, {get_device()}')
    for name, speed in speeds.items():
        print(f'{name:<16}{speed:>10.3g} images/s')
    print(f'ratio to the encoder alone: {speeds["store"] / speeds["encoder"]:.2f}x')
    print(f'ratio to a batch of 1: {speeds["store"] / speeds["store, batch 1"]:.2f}x')


def store(
    *,
    images: int = 4096,
    batch_size: int = 256,
    workers: int = 0,
    dtype: Literal['float32', 'float16', 'bfloat16'] = 'float32',
    mean_only: bool = False,
    rounds: int = 3,
) -> None:
    """Time reading a latent store, shuffled, beside one `.npy` file an image; latents are 4 x 32 x 32.

    Files come from the page cache. The store checks each row.

    Args:
        images: How many.
        batch_size: Of the loaders.
        workers: Processes that read for each loader.
        dtype: How the store has its moments; files have float32.
        mean_only: The store has one latent an image, as latents.npy does; else mean and std, as moments.npy.
        rounds: Of each; the fastest counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        speeds = compare_reading(
            Path(folder),
            num_images=images,
            batch_size=batch_size,
            num_workers=workers,
            dtype=dtype,
            posterior=not mean_only,
            rounds=rounds,
        )
    what = 'mean' if mean_only else 'mean and std'
    print(f'{images} latents, store of {what} in {dtype}, batch {batch_size}, {workers} workers')
    print(f'{"layout":<28}{"latents/s":>12}{"store is":>12}')
    for name, speed in speeds.items():
        ratio = f'{speeds["store"] / speed:.1f}x'
        print(f'{name:<28}{speed:>12,.0f}{ratio:>12}')


def growth(*, most: int = 10_000_000) -> None:
    """Show how start-up time and memory grow with the number of images, from a thousand on; on Linux.

    Images are simulated: their names, their order, and a latent store of as many rows.

    Args:
        most: Where to stop; ten million takes about two minutes and 2 GiB.
    """
    print(f'{"images":>12}  {"part":<18}{"seconds":>10}{"MiB":>10}{"bytes an image":>16}')
    count = 1000
    while count <= most:
        for name, (seconds, memory) in measure_growth(count).items():
            print(f'{count:>12,}  {name:<18}{seconds:>10.3f}{memory:>10.1f}{memory * 2**20 / count:>16.1f}', flush=True)
        count *= 10
