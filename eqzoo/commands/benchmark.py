"""`tools/benchmark.py`: speed and memory, as ratios within one run."""

import itertools
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device

from eqzoo.autoencoders import Autoencoder
from eqzoo.benchmarks.coding import coding_costs
from eqzoo.benchmarks.eq_step import compare_steps
from eqzoo.data import Shapes
from eqzoo.engine import load_config
from eqzoo.engine.autoencoder_training import to_float
from eqzoo.engine.runner import build_optimizers, train_loader
from eqzoo.registry import build
from eqzoo.zoo import autoencoder_config, configs_folder


def eq_step(config_file: str, *, overrides: list[str], size: int = 256, batch_size: int = 2, rounds: int = 5) -> None:
    """Compare one training step with the same step done as the released code does it.

    Weights are random and images are the built-in Shapes: neither changes the speed.

    Args:
        config_file: A config with an adversarial loss, such as configs/eqvae/sd_rot_scale.py.
        overrides: Keys of the config to set, as key=value.
        size: Pixels of a side.
        batch_size: Images a step, on this one process.
        rounds: Steps of each kind, alternating.
    """
    config = load_config(config_file, overrides)
    if config.model.get('adversarial_loss') is None:
        raise ValueError(f'{config_file} has no model.adversarial_loss: there is no second optimizer to share with.')
    _use_no_files(config, size, batch_size)
    torch.manual_seed(config.seed)
    model = build(config.model).to(get_device()).train()
    loader = train_loader(config)
    batch = next(iter(loader))
    costs = compare_steps(model, build_optimizers(model, config), batch, rounds=rounds)
    ours, theirs = costs['eqzoo'], costs['released']
    loading = _images_per_second(loader, 8 * batch_size)
    print(f'{config_file}: {size} px, batch {batch_size}, {rounds} steps of each kind, alternating, {get_device()}')
    print(f'{"step":<10}{"images/s":>10}{"peak GiB":>10}')
    for name, cost in costs.items():
        print(f'{name:<10}{cost.images_per_second:>10.3g}{cost.peak_memory:>10.2f}')
    print(f'ratio: {ours.images_per_second / theirs.images_per_second:.2f}x')
    share = ours.images_per_second / (loading + ours.images_per_second)
    print(f'data: {loading:.0f} images/s from one process, {share:.1%} of the time if loaded in line')


def coding(config_file: str | None = None, *, size: int = 256, batch_size: int = 1, rounds: int = 4) -> None:
    """Time encoding and decoding of autoencoders, as ratios to the first.

    Weights are random and images are the built-in Shapes: neither changes the speed. Memory on
    a CPU is the process's: libraries and the first autoencoder's weights are in it.

    Args:
        config_file: One base config of an autoencoder, such as configs/_base_/autoencoders/sd_vae.py.
            Without it: all that are there, SD-VAE first.
        size: Pixels of a side.
        batch_size: Images at once.
        rounds: Timed passes, after one that is not; the fastest counts.
    """
    found = configs_folder().glob('_base_/autoencoders/*.py')
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


def _random_autoencoder(file: str) -> Autoencoder:
    return build({**autoencoder_config(file), 'weights': None}).to(get_device()).eval()


def _use_no_files(config: Config, size: int, batch_size: int) -> None:
    """Replace weights by random ones and the data by Shapes of the wanted size."""
    config.model.autoencoder.weights = None
    config.model.micro_batch_size = None
    perceptual = config.model.reconstruction_loss.get('perceptual')
    if perceptual is not None:
        perceptual.weights = 'random'
    dataset = dict(type='Shapes', num_images=64, size=size)
    config.train_dataloader = dict(batch_size=batch_size, num_workers=0, dataset=dataset)


def _images_per_second(loader: object, count: int) -> float:
    started, seen = time.perf_counter(), 0
    for batch in itertools.islice(loader, max(1, count // loader.batch_size)):
        seen += len(batch['images'])
    return seen / (time.perf_counter() - started)
