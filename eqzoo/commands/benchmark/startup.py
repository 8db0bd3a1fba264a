"""Benchmarks of start-up: of commands, and over the number of images."""

from collections.abc import Mapping

from eqzoo.benchmarks.measurements import Row, with_out
from eqzoo.commands.cli import COMMANDS
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt


@with_out
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


@with_out
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
