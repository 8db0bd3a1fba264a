"""Benchmarks of data: images read from files and containers, latents written and read."""

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from eqzoo.benchmarks.measurements import Row, print_speeds, time_rows, with_out
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt


@with_out
def decoding(root: str, *, images: PositiveInt = 24, sizes: str = '512,1024', rounds: PositiveInt = 5) -> list[Row]:
    """Compare CPU times: eqzoo's decoding with Pillow's, scaled with exact decoding, the loader with decoding alone.

    Photographs are decoded at their own size and enlarged, from JPEG, progressive JPEG and PNG files. simplejpeg is
    measured if it is installed.

    Args:
        root: Photographs: a folder, a zip, or another place (docs/data.md).
        images: Number of photographs.
        sizes: Pixels of the short side of the enlarged ones, separated by commas.
        rounds: Passes of each way; the median ratio counts.
    """
    from eqzoo.benchmarks.decoding import compare_decoders, compare_loader, compare_scaled, photographs, square_files

    print(f'{images} photographs; CPU time of decoding, as a ratio to Pillow, and the share of files with equal pixels')
    print(f'{"files":<20}{"way":<12}{"ms":>8}{"ratio":>8}{"equal":>8}')
    rows = []
    sides = [int(size) for size in sizes.split(',')]
    cases = [(None, 'jpeg'), *((side, kind) for side in sides for kind in ('jpeg', 'progressive', 'png'))]
    for side, kind in cases:
        files = photographs(root, images, side, kind)
        name = f'{kind} {side} px' if side else 'as they are'
        for way, found in compare_decoders(files, rounds=rounds).items():
            line = f'{name:<20}{way:<12}{found.milliseconds:>8.2f}{found.ratio:>8.2f}{found.equal:>8.0%}'
            print(line, flush=True)
            if way != 'Pillow':
                values = dict(milliseconds=found.milliseconds, equal=found.equal)
                rows.append(Row(f'{name}, {way}', {'time': found.ratio}, values))
        if side and kind == 'jpeg':
            for wanted in (side // 2, side // 4):
                ratio, psnr = compare_scaled(files, wanted, rounds=rounds)
                print(
                    f"  decoding='scaled', cropped to {wanted} px: {ratio:.2f} of the time, PSNR {psnr:.1f} dB",
                    flush=True,
                )
                rows.append(Row(f'scaled, {side} to {wanted} px', {'time': ratio}, dict(psnr=psnr)))
    for side in sides:
        files = list(square_files(photographs(root, images, side, 'jpeg'), side))
        with tempfile.TemporaryDirectory() as folder:
            ratios = compare_loader(Path(folder), files, batch_size=8, rounds=rounds)
        listed = ', '.join(f'{crop} {ratio:.2f}' for crop, ratio in ratios.items())
        print(f'loader beside decoding alone, {side} px: {listed}', flush=True)
        rows.extend(Row(f'loader, {side} px, {crop}', {'time': ratio}) for crop, ratio in ratios.items())
    return rows


@with_out
def loading(
    *,
    images: PositiveInt = 1000,
    size: PositiveInt = 256,
    shards: PositiveInt = 8,
    batch_size: PositiveInt = 32,
    workers: NonNegativeInt = 0,
    rounds: PositiveInt = 3,
) -> list[Row]:
    """Compare the time of reading tar shards, parquet and saved data sets with the packages webdataset and datasets.

    Images are the built-in Shapes with noise, as JPEG files, in the page cache. Both sides read in random order, decode
    and crop with the same functions.

    Args:
        images: Number of images.
        size: Pixels a side; crops have three quarters of it.
        shards: Files of each container.
        batch_size: Of the loaders.
        workers: Processes that read for each loader.
        rounds: Passes of each; the fastest counts.
    """
    if missing := [name for name in ('webdataset', 'datasets', 'pyarrow') if find_spec(name) is None]:
        raise ValueError(
            f'benchmark loading: needs {" and ".join(missing)}, not installed; expected: pip install '
            "'eqzoo[webdataset,hub,parquet]'."
        )
    from eqzoo.benchmarks.images import compare_loading, reading_memory

    print(f'{images} images of {size} px in {shards} shards, batch {batch_size}, {workers} workers; images/s')
    print(f'{"container":<12}{"work":<10}{"eqzoo":>12}{"library":>12}{"ratio":>10}')
    options = dict(num_images=images, size=size, num_shards=shards, batch_size=batch_size, num_workers=workers)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, work, ours, theirs in compare_loading(Path(folder), **options, rounds=rounds):
            print(f'{name:<12}{work:<10}{ours:>12,.0f}{theirs:>12,.0f}{f"{ours / theirs:.2f}x":>10}', flush=True)
            rows.append(Row(f'{name} {work}', {'time': theirs / ours}, dict(eqzoo=ours, library=theirs)))
        opened, read = reading_memory(Path(folder) / 'tar')
    print(f'peak memory: {opened:.3f} GiB with the shards opened, {read:.3f} GiB after reading them twice')
    return [*rows, Row('reading twice', {'memory': read / opened}, dict(opened=opened, read=read))]


@with_out
def cache(
    config_file: str = 'configs/_base_/autoencoders/sd_vae.py',
    *,
    size: int = 128,
    images: int = 32,
    batch_size: int = 8,
    workers: int = 0,
    rounds: int = 2,
) -> list[Row]:
    """Compare the time of writing a latent store with encoding images from memory, and with batches of 1.

    Weights are random and images are the built-in Shapes: neither changes the speed.

    Args:
        config_file: A base config of an autoencoder, such as configs/_base_/autoencoders/sd_vae.py.
        size: Pixels a side.
        images: Number of images.
        batch_size: Images at once.
        workers: Processes that read images.
        rounds: Runs of each; the fastest counts.
    """
    from eqzoo.benchmarks.autoencoders import random_autoencoder
    from eqzoo.benchmarks.latents import compare_writing
    from eqzoo.data import Shapes
    from eqzoo.distributed import get_device

    autoencoder = random_autoencoder(config_file)
    # cache_bytes=0: every pass draws the images again
    dataset = Shapes(images, size, cache_bytes=0)
    speeds = compare_writing(autoencoder, dataset, batch_size=batch_size, num_workers=workers, rounds=rounds)
    print(f'{Path(config_file).stem}, {size} px, batch {batch_size}, {workers} workers, {get_device()}')
    print_speeds(speeds, 'images/s', width=16)
    print(f'ratio to the encoder alone: {speeds["store"] / speeds["encoder"]:.2f}x')
    print(f'ratio to a batch of 1: {speeds["store"] / speeds["store, batch 1"]:.2f}x')
    return time_rows(speeds, ('store',), ('encoder', 'store, batch 1'))


@with_out
def store(
    *,
    images: int = 4096,
    batch_size: int = 256,
    workers: int = 0,
    dtype: Literal['float32', 'float16', 'bfloat16'] = 'float32',
    mean_only: bool = False,
    rounds: int = 3,
) -> list[Row]:
    """Compare the time of reading a shuffled latent store with one `.npy` file per image; latents are 4 x 32 x 32.

    Files come from the page cache. The store checks each row.

    Args:
        images: Number of latents.
        batch_size: Of the loaders.
        workers: Processes that read for each loader.
        dtype: Of the store's moments; files have float32.
        mean_only: The store has the mean alone, like latents.npy, instead of mean and std, like moments.npy.
        rounds: Passes of each; the fastest counts.
    """
    from eqzoo.benchmarks.latents import compare_reading

    options = dict(num_images=images, batch_size=batch_size, num_workers=workers, dtype=dtype, rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        speeds = compare_reading(Path(folder), **options, posterior=not mean_only)
    what = 'mean' if mean_only else 'mean and std'
    print(f'{images} latents, store of {what} in {dtype}, batch {batch_size}, {workers} workers')
    print(f'{"layout":<28}{"latents/s":>12}{"store is":>12}')
    for name, speed in speeds.items():
        ratio = f'{speeds["store"] / speed:.1f}x'
        print(f'{name:<28}{speed:>12,.0f}{ratio:>12}')
    return time_rows(speeds, ('store',), [name for name in speeds if name != 'store'])
