"""`tools/benchmark.py`: benchmarks of speed and memory, as ratios within one run."""

import inspect
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eqzoo.benchmarks.measurements import Row, compare_measurements, read_measurements, write_measurements
from eqzoo.commands.cli import COMMANDS
from eqzoo.config import Config, configs_folder, load_config, require, trains_autoencoder
from eqzoo.files import replacing
from eqzoo.registry import VISION, build
from eqzoo.registry.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from eqzoo.autoencoders import Autoencoder

_OUT_HELP = '        out: A JSON file to write, for tools/benchmark.py compare.\n    '


def _with_out(function: Callable[..., list[Row]]) -> Callable[..., list[Row]]:
    """Give a benchmark the option `out`, the file that its rows are written to."""

    @wraps(function)
    def benchmark(*words: Any, out: str | None = None, **options: Any) -> list[Row]:
        rows = function(*words, **options)
        if out is not None:
            given = inspect.signature(function).bind(*words, **options)
            given.apply_defaults()
            write_measurements(out, function.__name__.replace('_', '-'), given.arguments, rows)
            print(f'Written: {out}')
        return rows

    signature = inspect.signature(function)
    option = inspect.Parameter('out', inspect.Parameter.KEYWORD_ONLY, default=None, annotation=str | None)
    benchmark.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
    benchmark.__doc__ = function.__doc__.rstrip() + '\n' + _OUT_HELP
    return benchmark


@_with_out
def eq_step(
    config_file: str, *, overrides: list[str], size: int = 256, batch_size: int = 2, rounds: int = 5
) -> list[Row]:
    """Compare a training step with the same step in the order of the released code.

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
    ratios = dict(time=theirs.images_per_second / ours.images_per_second, memory=ours.peak_memory / theirs.peak_memory)
    return [Row('step', ratios, {name: cost._asdict() for name, cost in costs.items()}), Row('data', {'time': share})]


@_with_out
def coding(config_file: str | None = None, *, size: int = 256, batch_size: int = 1, rounds: int = 4) -> list[Row]:
    """Time encoding and decoding with each autoencoder, relative to the first one.

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
    rows = []
    for file in files:
        autoencoder = _random_autoencoder(file)
        costs = coding_costs(autoencoder, reference, images, rounds=rounds)
        cells = ''
        for cost, ratio in costs.values():
            cells += f'{f"{cost.images_per_second:.3g} ({ratio:.2f}x)":>16}{cost.peak_memory:>6.2f}'
        parameters = sum(parameter.numel() for parameter in autoencoder.parameters())
        print(f'{Path(file).stem:<20}{parameters:>12,}{cells}', flush=True)
        ratios = {name: 1 / ratio for name, (_, ratio) in costs.items()}
        rows.append(Row(Path(file).stem, ratios, {name: cost._asdict() for name, (cost, _) in costs.items()}))
    return rows


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


@_with_out
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


@_with_out
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
    return [*_rows(speeds, ('streamed', 'again'), ('through PNGs',)), memory]


@_with_out
def generator_step(
    *,
    size: str = 'S',
    patch: int = 2,
    latent_size: int = 32,
    batch_size: int = 8,
    precision: Literal['fp32', 'bf16'] = 'fp32',
    compile: bool = False,
    rounds: int = 5,
) -> list[Row]:
    """Compare the time of a DiT's training step with timm's attention and an optimizer that is not fused, in fp32.

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
    return _rows(speeds, ('eqzoo',), ('plain',))


@_with_out
def sampling(
    *,
    size: str = 'base',
    grid: int = 16,
    classes: int = 1000,
    batch_size: int = 2,
    steps: int = 8,
    rounds: int = 2,
) -> list[Row]:
    """Compare the time of MaskGIT's sampling with the same loop without eqzoo's shortcuts.

    The shortcuts: no prediction without class while the guidance has no weight, one first prediction for each class of
    a batch, and no logits of classes.

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
    return _rows(speeds, ('eqzoo',), ('plain',))


@_with_out
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
    return _rows(speeds, ('store',), ('encoder', 'store, batch 1'))


@_with_out
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
    return _rows(speeds, ('store',), [name for name in speeds if name != 'store'])


@_with_out
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


@_with_out
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


@_with_out
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


@_with_out
def growth(*, most: int = 10_000_000, files: int = 1_000_000, samples: NonNegativeInt = 50_000) -> list[Row]:
    """Measure how start-up time and memory, and those of scoring, grow with the number of images; on Linux.

    Seconds are CPU time. Images are simulated by their names, their order, and a latent store with one row per image.
    Up to `files` images, a folder of empty files is listed twice. The last two columns are the time and memory per
    image, relative to those at a tenth of the number: 1x is proportional growth, 0.1x is no growth.

    Args:
        most: The largest number of images; ten million takes about two minutes and 2 GiB.
        files: The largest folder.
        samples: Samples to score, after a tenth of them; 0 for none.
    """
    from eqzoo.benchmarks.growth import measure_growth, scoring_cost

    rows: list[Row] = []
    before: dict[str, tuple[float, float]] = {}

    def report(count: int, costs: Mapping[str, tuple[float, float]]) -> None:
        for name, (seconds, memory) in costs.items():
            ratios = {} if name not in before else _growth_of((seconds, memory), before[name])
            cells = f'{count:>12,}  {name:<20}{seconds:>10.3f}{memory:>10.1f}{memory * 2**20 / count:>16.1f}'
            cells += ''.join(f'{f"{ratios[each]:.2f}x" if each in ratios else "":>8}' for each in ('time', 'memory'))
            print(cells.rstrip(), flush=True)
            rows.append(Row(f'{name}, {count:,}', ratios, dict(seconds=seconds, mebibytes=memory)))
        before.update(costs)

    print(f'{"images":>12}  {"part":<20}{"CPU s":>10}{"MiB":>10}{"bytes an image":>16}{"time":>8}{"memory":>8}')
    count = 1000
    while count <= most:
        report(count, measure_growth(count, with_files=count <= files))
        count *= 10
    for count in (samples // 10, samples) if samples >= 10 else ():
        report(count, {'scoring, at peak': scoring_cost(count)})
    return rows


def _growth_of(cost: tuple[float, float], tenth: tuple[float, float]) -> dict[str, float]:
    """Return the time and the memory of an image over those at a tenth of the number of images."""
    least = 0.01, 1.0  # seconds and MiB; below, it is noise
    named = zip(('time', 'memory'), cost, tenth, least, strict=True)
    return {name: value / 10 / before for name, value, before, smallest in named if value > 0 and before >= smallest}


@_with_out
def startup(*, rounds: PositiveInt = 3, smoke: bool = False) -> list[Row]:
    """Compare the CPU time of every command's help, of error messages and of lists, with `import torch`.

    Each is a new process, as a user starts it. The two sides alternate, and the medians count.

    Args:
        rounds: Processes of each kind.
        smoke: Also compare smoke runs with processes that only import the other packages they use; takes minutes.
    """
    from eqzoo.benchmarks.startup import smoke_costs, startup_costs

    config = 'configs/demo/plain.py'
    commands = {
        **{f'{name} --help': [name, '--help'] for name in COMMANDS},
        'configs': ['configs'],
        'download --list': ['download', '--list'],
        'a wrong option': ['train', config, '--smok'],
        'a wrong path': ['train', 'configs/demo/plan.py'],
        'a wrong key': ['train', config, 'train_cfg.max_iter=1'],
    }
    runs = {
        'train, SD-VAE': ['train', 'configs/eqvae/sd_rot_scale.py'],
        'train, DiT': ['train', 'configs/dit/dit_tiny_shapes.py'],
        'train, MaskGIT': ['train', 'configs/maskgit/maskgit_tiny_shapes.py'],
        'test, SD-VAE': ['test', 'configs/eqvae/sd_rot_scale.py'],
        'test, DiT': ['test', 'configs/dit/dit_tiny_shapes.py'],
    }
    rows = []
    print(f'{"command":<22}{"CPU s":>8}{"/ import torch":>17}')
    for name, (seconds, ratio) in startup_costs(commands, rounds).items():
        print(f'{name:<22}{seconds:>8.2f}{ratio:>16.2f}x', flush=True)
        rows.append(Row(name, {'time': ratio}, {'seconds': seconds}))
    if smoke:
        print(f'\n{"smoke run":<22}{"CPU s":>8}{"/ its imports":>17}')
        runs = {name: [*words, '--smoke'] for name, words in runs.items()}
        for name, seconds, ratio in smoke_costs(runs, rounds):
            print(f'{name:<22}{seconds:>8.2f}{ratio:>16.2f}x', flush=True)
            rows.append(Row(f'smoke: {name}', {'time': ratio}, {'seconds': seconds}))
    return rows


@_with_out
def speed(
    *,
    size: int | None = None,
    batch_size: int | None = None,
    generator: Literal['S', 'B', 'L', 'XL'] | None = None,
    precision: Literal['fp32', 'bf16'] | None = None,
    compile: bool = False,
    rounds: int = 3,
) -> list[Row]:
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
        rows.append(Row(row.name, {'time at peak': 1 / row.share}, row._asdict()))
    return rows


def _rows(speeds: Mapping[str, float], ours: Iterable[str], others: Iterable[str]) -> list[Row]:
    """Return the time of each of `ours` over each of the other ways, of which `speeds` has images per second."""
    return [
        Row(f'{way} against {other}', {'time': speeds[other] / speeds[way]}, {way: speeds[way], other: speeds[other]})
        for way in ours
        for other in others
    ]


def gpu(
    *,
    minutes: PositiveFloat = 10.0,
    out: str | None = None,
    resume: bool = False,
    markdown: str | None = None,
    smoke: bool = False,
) -> list[Row]:
    """Measure a GPU: matrix products, coding, EQ steps, transformers, sampling, caching, FID; the most important first.

    Weights are random and images built-in: nothing is downloaded. Each result is written at once. If a part fails, its
    line states the reason. You can continue an interrupted run with --resume.

    Args:
        minutes: Time budget; a part that would not fit does not begin.
        out: A JSON file, written after each part.
        resume: Continue with this file; only missing and failed parts are measured.
        markdown: A file for the table in Markdown, as in docs/performance.md.
        smoke: Run on the CPU, with tiny networks.
    """
    import torch

    from eqzoo.benchmarks.gpu import as_markdown, run_parts, target_lines
    from eqzoo.benchmarks.gpu_parts import TINY, Sizes, gpu_parts
    from eqzoo.benchmarks.measure import hardware
    from eqzoo.distributed import use_device

    if resume and out is None:
        raise ValueError('--resume: of which file? Expected --out FILE.json.')
    use_device('cpu' if smoke else 'cuda')  # says what is missing if there is no GPU
    device = torch.device('cpu' if smoke else 'cuda')
    settings = dict(device=torch.cuda.get_device_name() if not smoke else 'cpu', smoke=smoke)
    try:
        parts = gpu_parts(TINY if smoke else Sizes(), device)
        session = run_parts(parts, minutes=minutes, settings=settings, out=out, resume=resume, say=_say)
    finally:
        use_device('auto')
    print(*target_lines(session.rows), sep='\n')
    if markdown is not None:
        with replacing(markdown) as temporary:
            temporary.write_text(as_markdown(session, hardware()) + '\n', encoding='utf-8')
    return list(session.rows)


def _say(line: str) -> None:
    print(line, flush=True)


@_with_out
def gradients(
    config_file: str = 'configs/eqvae/sd_rot_scale.py',
    *,
    overrides: list[str],
    size: PositiveInt = 64,
    batch_size: PositiveInt = 1,
    processes: PositiveInt = 2,
    rounds: PositiveInt = 3,
) -> list[Row]:
    """Compare averaging gradients during the backward pass with averaging all of them after it.

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
    (late, late_traffic), (early, early_traffic) = costs['after the pass'], costs['during the pass']
    ratios = {
        'time': early / late,
        'bytes sent': early_traffic.sent / late_traffic.sent,
        'bytes copied': early_traffic.copied / late_traffic.copied,
    }
    return [Row('during the pass', ratios, {name: seconds for name, (seconds, _) in costs.items()})]


@_with_out
def memory(
    config_file: str, *, overrides: list[str], size: PositiveInt = 256, batch_size: PositiveInt = 1
) -> list[Row]:
    """Print the memory of a training step with each memory option, and the largest batches that fit on GPUs.

    Nothing is computed, and no weights are read: all tensors of a step are counted by their shapes. For a large batch
    of B samples, the peak is `fixed` + B times `a sample`. The last columns are the largest batches that fit into 8,
    12, 16 and 24 GiB, with one GiB reserved for CUDA and the workspace of convolutions; - means none.

    Args:
        config_file: A config of an autoencoder or a generator, such as configs/eqvae/sdxl_rot_scale.py.
        overrides: Keys of the config to set, as key=value.
        size: Pixels a side of an autoencoder's images; the size of a generator's latents comes from the config.
        batch_size: Samples at once.
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
        usual = rows[0].values['peak'] if rows else row.memory.peak
        values = {**row.memory._asdict(), 'fixed': row.fixed, 'each': row.each, 'peaks': row.peaks}
        rows.append(Row(f'{row.name}, {row.precision}', {'peak': row.memory.peak / usual}, values))
    return rows


def _print_speeds(speeds: Mapping[str, float], unit: str, *, width: int) -> None:
    for name, speed in speeds.items():
        print(f'{name:<{width}}{speed:>10.3g} {unit}')


def compare_files(old: str, new: str, *, tolerance: NonNegativeFloat = 0.1) -> None:
    """Compare the ratios in two files of a benchmark; the exit status is 1 if one of them became worse.

    A ratio is a cost divided by that of a reference in the same run. The command compares ratios, not seconds.

    Args:
        old: A file that a benchmark wrote with --out, such as that of the last release.
        new: A later one, of the same benchmark with the same options.
        tolerance: The relative increase of a ratio that is accepted.
    """
    before, after = read_measurements(old), read_measurements(new)
    changes = compare_measurements(before, after)
    if not changes:
        raise ValueError(f'{old} and {new} have no ratios; nothing can be compared.')
    for name in sorted({*before.machine, *after.machine}):
        values = before.machine.get(name), after.machine.get(name)
        if values[0] != values[1]:
            print(f'{name} differs: {values[0]}, then {values[1]}')
    width = max(len(f'{change.row}, {change.ratio}') for change in changes)
    print(f'{after.benchmark:<{width}}{"old":>9}{"new":>9}{"change":>9}')
    worse = 0
    for change in changes:
        old_cell, new_cell = ('-' if each is None else f'{each:.3f}' for each in (change.old, change.new))
        is_worse = change.new is None or (change.factor is not None and change.factor > 1 + tolerance)
        worse += is_worse
        cell = '-' if change.factor is None else f'{change.factor - 1:+.1%}'
        mark = '  not measured' if change.new is None else '  worse' if is_worse else ''
        print(f'{f"{change.row}, {change.ratio}":<{width}}{old_cell:>9}{new_cell:>9}{cell:>9}{mark}')
    if worse:
        sys.exit(f'error: {worse} of {len(changes)} ratios became worse by more than {tolerance:.0%}.')
    print(f'No ratio became worse by more than {tolerance:.0%}.')
