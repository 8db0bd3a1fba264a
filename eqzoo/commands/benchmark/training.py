"""Benchmarks of training steps: autoencoders, generators, gradients of several processes, memory."""

from itertools import islice
from typing import Literal

from eqzoo.benchmarks.measurements import Row, print_speeds, time_rows, with_out
from eqzoo.config import Config, load_config, require, trains_autoencoder
from eqzoo.registry import build
from eqzoo.registry.ranges import PositiveInt


@with_out
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


def _use_no_files(config: Config, size: int, batch_size: int) -> None:
    """Replace weights by random ones and the data by Shapes of the given size."""
    config.model.autoencoder.weights = None
    config.model.micro_batch_size = None
    perceptual = config.model.reconstruction_loss.get('perceptual')
    if perceptual is not None:
        perceptual.weights = 'random'
    dataset = dict(type='Shapes', num_images=64, size=size)
    config.train_dataloader = dict(batch_size=batch_size, num_workers=0, dataset=dataset)


@with_out
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
    print_speeds(speeds, 'samples/s', width=8)
    print(f'ratio: {speeds["eqzoo"] / speeds["plain"]:.2f}x, losses differ by {difference:.1e} relatively')
    return time_rows(speeds, ('eqzoo',), ('plain',))


@with_out
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


@with_out
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
