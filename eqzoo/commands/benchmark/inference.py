"""Benchmarks of trained models at work: encoding, decoding and sampling."""

from pathlib import Path

from eqzoo.benchmarks.measurements import Row, print_speeds, time_rows, with_out
from eqzoo.config import configs_folder


@with_out
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

    from eqzoo.benchmarks.autoencoders import coding_costs, random_autoencoder
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
    reference = random_autoencoder(files[0])
    rows = []
    for file in files:
        autoencoder = random_autoencoder(file)
        costs = coding_costs(autoencoder, reference, images, rounds=rounds)
        cells = ''
        for cost, ratio in costs.values():
            cells += f'{f"{cost.images_per_second:.3g} ({ratio:.2f}x)":>16}{cost.peak_memory:>6.2f}'
        parameters = sum(parameter.numel() for parameter in autoencoder.parameters())
        print(f'{Path(file).stem:<20}{parameters:>12,}{cells}', flush=True)
        ratios = {name: 1 / ratio for name, (_, ratio) in costs.items()}
        rows.append(Row(Path(file).stem, ratios, {name: cost._asdict() for name, (cost, _) in costs.items()}))
    return rows


@with_out
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
    print_speeds(speeds, 'images/s', width=8)
    print(f'ratio: {speeds["eqzoo"] / speeds["plain"]:.2f}x, {same:.2%} of the codes are the same')
    return time_rows(speeds, ('eqzoo',), ('plain',))
