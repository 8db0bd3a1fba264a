"""`tools/benchmark.py`: benchmarks of speed and memory, as ratios within one run."""

import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eqzoo.config import Config, configs_folder, load_config, require, trains_autoencoder
from eqzoo.files import write_json
from eqzoo.registry import VISION, build
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from eqzoo.autoencoders import Autoencoder


def eq_step(config_file: str, *, overrides: list[str], size: int = 256, batch_size: int = 2, rounds: int = 5) -> None:
    """Compare a training step with the same step in the way of the released code.

    Weights are random and images are the built-in Shapes: neither changes the speed.

    Args:
        config_file: A config with an adversarial loss, such as configs/eqvae/sd_rot_scale.py.
        overrides: Keys of the config to set, as key=value.
        size: Pixels a side.
        batch_size: Images in a step of this process.
        rounds: Steps of each kind, alternating.
    """
    config = load_config(config_file, overrides)
    if config.model.get('adversarial_loss') is None:
        raise ValueError(f'{config_file} has no model.adversarial_loss; use a config that has one.')

    import torch

    from eqzoo.benchmarks.autoencoders import compare_eq_steps
    from eqzoo.benchmarks.measure import timed
    from eqzoo.distributed import get_device
    from eqzoo.engine.runner import build_optimizers, train_loader

    _use_no_files(config, size, batch_size)
    torch.manual_seed(config.seed)
    model = build(config.model).to(get_device()).train()
    loader = train_loader(config)
    batch = next(iter(loader))
    costs = compare_eq_steps(model, build_optimizers(model, config), batch, rounds=rounds)
    ours, theirs = costs['eqzoo'], costs['released']
    batches = max(1, 8 * batch_size // loader.batch_size)
    seconds, seen = timed(lambda: sum(len(each['images']) for each in islice(loader, batches)))
    loading = seen / seconds
    print(f'{config_file}: {size} px, batch {batch_size}, {rounds} steps of each kind, alternating, {get_device()}')
    print(f'{"step":<10}{"images/s":>10}{"peak GiB":>10}')
    for name, cost in costs.items():
        print(f'{name:<10}{cost.images_per_second:>10.3g}{cost.peak_memory:>10.2f}')
    print(f'ratio: {ours.images_per_second / theirs.images_per_second:.2f}x')
    share = ours.images_per_second / (loading + ours.images_per_second)
    print(f'data: {loading:.0f} images/s from one process, {share:.1%} of the time if loaded in line')


def coding(config_file: str | None = None, *, size: int = 256, batch_size: int = 1, rounds: int = 4) -> None:
    """Time encoding and decoding of autoencoders, as ratios to the first one.

    Weights are random and images are the built-in Shapes: neither changes the speed. Memory on
    a CPU is the process's, with libraries and the first autoencoder's weights.

    Args:
        config_file: A base config of an autoencoder, such as configs/_base_/autoencoders/sd_vae.py;
            by default all of them, SD-VAE first.
        size: Pixels a side.
        batch_size: Images at once.
        rounds: Timed passes, after one that is not timed; the fastest counts.
    """
    import torch

    from eqzoo.benchmarks.autoencoders import coding_costs
    from eqzoo.data import Shapes
    from eqzoo.distributed import get_device
    from eqzoo.images import to_float

    found = configs_folder().glob('*/autoencoders/*.py')
    found = sorted(found, key=lambda path: (path.stem != 'sd_vae', path))
    files = [config_file] if config_file else [str(path) for path in found]
    data = Shapes(batch_size, size)
    images = to_float(torch.stack([data[index]['image'] for index in range(batch_size)])).to(get_device())
    print(f'{size} px, batch {batch_size}, {get_device()}; images/s (ratio to {Path(files[0]).stem}) and peak GiB')
    print(f'{"autoencoder":<20}{"parameters":>12}{"encode":>16}{"GiB":>6}{"decode":>16}{"GiB":>6}')
    reference = _random_autoencoder(files[0])
    for file in files:
        autoencoder = _random_autoencoder(file)
        cells = ''
        for cost, ratio in coding_costs(autoencoder, reference, images, rounds=rounds).values():
            cells += f'{f"{cost.images_per_second:.3g} ({ratio:.2f}x)":>16}{cost.peak_memory:>6.2f}'
        parameters = sum(parameter.numel() for parameter in autoencoder.parameters())
        print(f'{Path(file).stem:<20}{parameters:>12,}{cells}', flush=True)


def _random_autoencoder(file: str) -> 'Autoencoder':
    from eqzoo.distributed import get_device
    from eqzoo.loading import autoencoder_config

    return build({**autoencoder_config(file), 'weights': None}).to(get_device()).eval()


def _use_no_files(config: Config, size: int, batch_size: int) -> None:
    """Replace weights by random ones and the data by Shapes of the given size."""
    config.model.autoencoder.weights = None
    config.model.micro_batch_size = None
    perceptual = config.model.reconstruction_loss.get('perceptual')
    if perceptual is not None:
        perceptual.weights = 'random'
    dataset = dict(type='Shapes', num_images=64, size=size)
    config.train_dataloader = dict(batch_size=batch_size, num_workers=0, dataset=dataset)


def frechet(*, features: int = 2048, images: int = 5000, rounds: int = 2) -> None:
    """Time the Fréchet distance beside scipy's `sqrtm` formula, which ADM's evaluator and pytorch-fid use.

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


def rfid(*, extractor: str = 'EfficientNetLite0', images: int = 200, size: int = 256, rounds: int = 2) -> None:
    """Time the Fréchet distance of reconstructions, streamed, beside saving PNGs and reading them back.

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


def generator_step(
    *,
    size: str = 'S',
    patch: int = 2,
    latent_size: int = 32,
    batch_size: int = 8,
    precision: Literal['fp32', 'bf16'] = 'fp32',
    compile: bool = False,
    rounds: int = 5,
) -> None:
    """Time a DiT's training step beside the same step with timm's attention, not fused, in fp32.

    Args:
        size: S, B, L or XL.
        patch: Latent cells a side of a token.
        latent_size: Cells a side of a latent.
        batch_size: Samples in a step.
        precision: Of eqzoo's form: fp32 or bf16.
        compile: Compile eqzoo's form.
        rounds: Steps of each; the median counts.
    """
    import torch

    from eqzoo.benchmarks.generators import compare_generator_steps
    from eqzoo.distributed import get_device

    device = torch.device(get_device())
    options = dict(latent_size=latent_size, batch_size=batch_size, rounds=rounds, precision=precision)
    speeds, difference = compare_generator_steps(size, patch, **options, compiled=compile, device=device)
    how = f'{precision}{", compiled" if compile else ""}'
    print(f'DiT-{size}/{patch}, batch {batch_size}, {device}, {torch.get_num_threads()} threads, eqzoo in {how}')
    _print_speeds(speeds, 'samples/s', width=8)
    print(f'ratio: {speeds["eqzoo"] / speeds["plain"]:.2f}x, losses differ by {difference:.1e} relatively')


def sampling(
    *,
    size: str = 'base',
    grid: int = 16,
    classes: int = 1000,
    batch_size: int = 2,
    steps: int = 8,
    rounds: int = 2,
) -> None:
    """Time MaskGIT's sampling beside the same loop without eqzoo's shortcuts.

    eqzoo skips predictions without class if guidance has no weight, computes the first prediction
    once for each class of a batch, and computes no logits of classes.

    Args:
        size: base, big or huge.
        grid: Codes a side of an image.
        classes: Number of classes to draw the batch's labels from.
        batch_size: Images at once.
        steps: Steps of the sampler.
        rounds: Batches of each form; the fastest counts.
    """
    import torch

    from eqzoo.benchmarks.generators import compare_sampling
    from eqzoo.distributed import get_device

    device = torch.device(get_device())
    options = dict(grid=grid, num_classes=classes, batch_size=batch_size, steps=steps, rounds=rounds)
    speeds, same = compare_sampling(size, **options, device=device)
    print(
        f'MaskGIT-{size}, {grid} x {grid} codes, {classes} classes, batch {batch_size}, {steps} steps, {device}, '
        f'{torch.get_num_threads()} threads'
    )
    _print_speeds(speeds, 'images/s', width=8)
    print(f'ratio: {speeds["eqzoo"] / speeds["plain"]:.2f}x, {same:.2%} of the codes are the same')


def cache(
    config_file: str = 'configs/_base_/autoencoders/sd_vae.py',
    *,
    size: int = 128,
    images: int = 32,
    batch_size: int = 8,
    workers: int = 0,
    rounds: int = 2,
) -> None:
    """Time writing a latent store beside encoding images from memory, and beside a batch of 1.

    Weights are random and images are the built-in Shapes: neither changes the speed.

    Args:
        config_file: A base config of an autoencoder, such as configs/_base_/autoencoders/sd_vae.py.
        size: Pixels a side.
        images: Number of images.
        batch_size: Images at once.
        workers: Processes that read images.
        rounds: Runs of each; the fastest counts.
    """
    from eqzoo.benchmarks.latents import compare_writing
    from eqzoo.data import Shapes
    from eqzoo.distributed import get_device

    autoencoder = _random_autoencoder(config_file)
    # cache_bytes=0: every pass draws the images again
    dataset = Shapes(images, size, cache_bytes=0)
    speeds = compare_writing(autoencoder, dataset, batch_size=batch_size, num_workers=workers, rounds=rounds)
    print(f'{Path(config_file).stem}, {size} px, batch {batch_size}, {workers} workers, {get_device()}')
    _print_speeds(speeds, 'images/s', width=16)
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
    """Time reading a latent store, shuffled, beside one `.npy` file for each image; latents are 4 x 32 x 32.

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


def loading(
    *,
    images: PositiveInt = 1000,
    size: PositiveInt = 256,
    shards: PositiveInt = 8,
    batch_size: PositiveInt = 32,
    workers: NonNegativeInt = 0,
    rounds: PositiveInt = 3,
) -> None:
    """Time reading tar shards, parquet and saved data sets beside webdataset and datasets.

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
    from eqzoo.benchmarks.images import compare_loading, reading_memory

    print(f'{images} images of {size} px in {shards} shards, batch {batch_size}, {workers} workers; images/s')
    print(f'{"container":<12}{"work":<10}{"eqzoo":>12}{"library":>12}{"ratio":>10}')
    options = dict(num_images=images, size=size, num_shards=shards, batch_size=batch_size, num_workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        for name, work, ours, theirs in compare_loading(Path(folder), **options, rounds=rounds):
            print(f'{name:<12}{work:<10}{ours:>12,.0f}{theirs:>12,.0f}{f"{ours / theirs:.2f}x":>10}', flush=True)
        opened, read = reading_memory(Path(folder) / 'tar')
    print(f'peak memory: {opened:.3f} GiB with the shards opened, {read:.3f} GiB after reading them twice')


def growth(*, most: int = 10_000_000) -> None:
    """Measure start-up time and memory over the number of images, from a thousand; on Linux.

    Images are simulated: their names, their order, and a latent store with as many rows.

    Args:
        most: The largest number of images; ten million takes about two minutes and 2 GiB.
    """
    from eqzoo.benchmarks.growth import measure_growth

    print(f'{"images":>12}  {"part":<18}{"seconds":>10}{"MiB":>10}{"bytes an image":>16}')
    count = 1000
    while count <= most:
        for name, (seconds, memory) in measure_growth(count).items():
            print(f'{count:>12,}  {name:<18}{seconds:>10.3f}{memory:>10.1f}{memory * 2**20 / count:>16.1f}', flush=True)
        count *= 10


def speed(
    *,
    size: int | None = None,
    batch_size: int | None = None,
    generator: Literal['S', 'B', 'L', 'XL'] | None = None,
    precision: Literal['fp32', 'bf16'] | None = None,
    compile: bool = False,
    rounds: int = 3,
    out: str | None = None,
) -> None:
    """Measure encoding, decoding, an EQ step, caching, a generator's step, sampling and a Fréchet distance.

    Networks are SD-VAE, DiT with patch 2 and MaskGIT, with random weights, on the built-in
    Shapes. Operations per second are compared with the fastest square matrix product of the same
    precision, measured in the same run.

    Args:
        size: Pixels a side; by default 256 on a GPU, otherwise 64.
        batch_size: Images at once; by default 32 on a GPU, otherwise 2.
        generator: Size of the DiT; by default XL on a GPU, otherwise S.
        precision: Of training and of generators; by default bf16 on a GPU, otherwise fp32.
        compile: Compile the blocks of training networks.
        rounds: Timed rounds of each; the fastest counts.
        out: A JSON file to write.
    """
    import torch

    from eqzoo.benchmarks.measure import processor_name
    from eqzoo.benchmarks.speed import hot_paths, matmul_peak, measure
    from eqzoo.distributed import get_device

    device = torch.device(get_device())
    on_gpu = device.type == 'cuda'
    chosen = dict(
        size=size or (256 if on_gpu else 64),
        batch_size=batch_size or (32 if on_gpu else 2),
        generator=generator or ('XL' if on_gpu else 'S'),
        precision=precision or ('bf16' if on_gpu else 'fp32'),
        compiled=compile,
    )
    dtypes = {'fp32': torch.float32, 'bf16': torch.bfloat16}
    peaks = {name: matmul_peak(device, dtypes[name]) for name in {'fp32', chosen['precision']}}
    card = dict(
        device=torch.cuda.get_device_name(device) if on_gpu else processor_name(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        eqzoo=version('eqzoo'),
        python=platform.python_version(),
        **chosen,
        **{f'peak_{name}': peak for name, peak in peaks.items()},
    )
    for name, value in card.items():
        print(f'{name:<12}{value:.3g}' if isinstance(value, float) else f'{name:<12}{value}')
    print(f'\n{"work":<18}{"images/s":>10}{"peak GiB":>10}{"GFLOP/s":>10}{"of peak":>9}')
    rows = []
    for work in hot_paths(**chosen, device=device):
        row = measure(work, device, peaks[work.precision], rounds=rounds)
        cells = f'{row.images_per_second:>10.3g}{row.peak_memory:>10.2f}{row.flops / 1e9:>10.4g}{row.share:>9.1%}'
        print(f'{row.name:<18}{cells}', flush=True)
        rows.append(row._asdict())
    if out is not None:
        write_json(out, {'card': card, 'rows': rows})
        print(f'Written: {out}')


def gradients(
    config_file: str = 'configs/eqvae/sd_rot_scale.py',
    *,
    overrides: list[str],
    size: PositiveInt = 64,
    batch_size: PositiveInt = 1,
    processes: PositiveInt = 2,
    rounds: PositiveInt = 3,
) -> None:
    """Compare averaging gradients during the backward pass with one sum of all of them after it.

    Processes of this machine train on their own Shapes, on the CPU, with random weights.

    Args:
        config_file: A config of an autoencoder.
        overrides: Keys of the config to set, as key=value.
        size: Pixels a side.
        batch_size: Images of each process.
        processes: Their number.
        rounds: Steps of each way, alternating.
    """
    config = load_config(config_file, overrides)
    require(config, 'a training step', 'model', 'optim_wrapper')
    _use_no_files(config, size, batch_size * processes)

    from eqzoo.benchmarks.gradients import compare_averaging

    costs, same = compare_averaging(config, processes, rounds)
    print(f'{config_file}: {size} px, batch {batch_size} in each of {processes} processes, {rounds} steps of each way')
    print(f'{"gradients averaged":<22}{"s a step":>10}{"MiB sent":>10}{"early":>8}{"MiB copied":>12}{"messages":>10}')
    for name, (seconds, traffic) in costs.items():
        sent, copied = (value / rounds / 2**20 for value in (traffic.sent, traffic.copied))
        share = f'{traffic.early / traffic.sent:.1%}'
        print(f'{name:<22}{seconds:>10.3g}{sent:>10.2f}{share:>8}{copied:>12.2f}{traffic.messages / rounds:>10.0f}')
    print(f'ratio: {costs["after the pass"][0] / costs["during the pass"][0]:.2f}x')
    print(f'largest difference of the weights: {same:.1e}')


def memory(
    config_file: str,
    *,
    overrides: list[str],
    size: PositiveInt = 256,
    batch_size: PositiveInt = 1,
    out: str | None = None,
) -> None:
    """Print the memory of a training step with each option that saves some, and the batches that GPUs can hold.

    Nothing is computed, and no weights are read: all tensors of a step are counted by their shapes. For a large batch
    of B the peak is `fixed` + B times `a sample`. The last columns are the largest batches that 8, 12, 16 and 24 GiB
    hold, of which one GiB is left for CUDA and the work space of its convolutions; - is none.

    Args:
        config_file: A config of an autoencoder or a generator, such as configs/eqvae/sdxl_rot_scale.py.
        overrides: Keys of the config to set, as key=value.
        size: Pixels a side of an autoencoder's images; of a generator's latents the config has the size.
        batch_size: Samples at once.
        out: A JSON file to write.
    """
    config = load_config(config_file, overrides)
    require(config, 'a training step', 'model', 'optim_wrapper')

    from eqzoo.benchmarks.memory import CARDS, memory_rows

    trains_images = trains_autoencoder(config.model)
    print(f'{config_file}: {f"{size} px, " if trains_images else ""}batch {batch_size}; GiB')
    print(f'{"option":<24}{"precision":<10}{"peak":>7}{"fixed":>7}{"a sample":>10}', end='')
    print(''.join(f'{f"{gib} GiB":>8}' for gib in CARDS) + '  at the peak')
    rows = []
    for row in memory_rows(config, size, batch_size):
        amounts = ''.join(
            f'{value / 2**30:>{width}.2f}' for value, width in ((row.memory.peak, 7), (row.fixed, 7), (row.each, 10))
        )
        batches = ''.join(f'{row.largest_batch(gib * 2**30) or "-":>8}' for gib in CARDS)
        parts = sorted(row.memory.parts.items(), key=lambda item: -item[1])
        parts = ', '.join(f'{name} {value / 2**30:.2f}' for name, value in parts if value >= 0.005 * 2**30)
        print(f'{row.name:<24}{row.precision:<10}{amounts}{batches}  {parts}', flush=True)
        rows.append({**row._asdict(), 'memory': row.memory._asdict(), 'each': row.each, 'fixed': row.fixed})
    if out is not None:
        write_json(out, {'config': config_file, 'size': size, 'batch_size': batch_size, 'rows': rows})
        print(f'Written: {out}')


def _print_speeds(speeds: Mapping[str, float], unit: str, *, width: int) -> None:
    for name, speed in speeds.items():
        print(f'{name:<{width}}{speed:>10.3g} {unit}')
