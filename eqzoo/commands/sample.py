"""`tools/sample.py`: images from a trained generator."""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object
from tqdm import tqdm

from eqzoo import __version__
from eqzoo.data.sample_files import NpzSamples, PngSamples, check_card, open_sample_files, write_card
from eqzoo.distributed import close_distributed, init_distributed, rank_and_world_size, wait_for_all
from eqzoo.engine import load_config, shrink
from eqzoo.engine.device import use_device
from eqzoo.engine.preflight import missing, report
from eqzoo.engine.sampling import ImageSampler, batches, build_image_sampler, generator_weights, identity, sha256_of
from eqzoo.pictures import draw_grid, sample_rows

_GRID = 8


def sample(
    config_file: str,
    checkpoint: str | None = None,
    *,
    overrides: list[str],
    out: str,
    num: int | None = None,
    labels: str | None = None,
    smoke: bool = False,
) -> Path:
    """Draw images from a generator; run it again to go on after it was stopped, or to add more.

    Sample n depends on `sampling.seed` and n alone: batch size and processes change nothing but
    rounding. Beside OUT are a JSON file that says how they were drawn, and a picture of some.

    Args:
        config_file: A generator's config, such as configs/dit/dit_tiny_shapes.py.
        checkpoint: A training checkpoint, whose moving average is taken, or a published weights
            file. Without it: the newest checkpoint in the work directory, else the config's own weights.
        overrides: Keys of the config to set, such as sampling.seed=1 or sampling.sampler.steps=50.
        out: A folder, for PNG files, or an npz file as ADM's evaluator reads it.
        num: How many. Default: the config's sampling.num_samples.
        labels: random, any class; balanced, class after class; or classes with commas, such as 207,360.
            Default: the config's sampling.labels.
        smoke: For the checkpoint of a `--smoke` run.
    """
    config = load_config(config_file, overrides)
    use_device(config)
    config = shrink(config) if smoke else config
    check_samples(config)
    if num is not None:
        config.sampling.num_samples = num
    if labels is not None:
        config.sampling.labels = _parsed(labels)
    weights = generator_weights(config, checkpoint)
    check_parts(config, weights, f'python tools/sample.py {config_file}')
    init_distributed()
    draw = build_image_sampler(config, weights)
    files = claim_files(out, config, weights)
    _draw_missing(draw, files, config.sampling)
    if rank_and_world_size()[0] == 0:
        print(_finish(draw, files, out, config.sampling.num_samples))
    close_distributed()
    return Path(out)


def check_samples(config: Config) -> None:
    """Refuse a config that describes no samples.

    Raises:
        ValueError: Saying what it lacks.
    """
    if 'generator' not in config.model or 'sampling' not in config:
        raise ValueError(
            f'{config.filename}: describes no samples: a config with model.generator and '
            'sampling=dict(num_samples=…, batch_size=…, sampler=dict(type=…)) does, as those in configs/dit do.'
        )


def check_parts(config: Config, weights: str, command: str, **more: Any) -> None:
    """Refuse to begin where something is not there that sampling needs: not what training alone does.

    Args:
        config: A generator's.
        weights: The file that is sampled from.
        command: For the message.
        **more: Further parts of the config that are needed, by name.

    Raises:
        ValueError: Naming all that is missing.
    """
    generator = {key: value for key, value in config.model.generator.items() if key != 'encoder'}
    generator['network'] = {**generator['network'], 'weights': weights}
    parts = dict(generator=generator, autoencoder=config.model.autoencoder, sampling=config.sampling, **more)
    lacks = missing(Config(parts, filename=config.filename), tuple(parts))
    if lacks:
        raise ValueError(report(config, lacks, command))


def claim_files(out: str, config: Config, weights: str) -> PngSamples | NpzSamples:
    """Return where the samples of `config` go, with the card that says what they are; refuse a place that has others.

    Raises:
        ValueError: If other samples are there.
    """
    plan = {**identity(config), 'weights_sha256': sha256_of(weights)}
    del plan['num_images']  # more may be added
    check_card(out, plan)
    wait_for_all()  # before the card is written that others may still look for
    if rank_and_world_size()[0] == 0:
        write_card(out, {'plan': plan, 'weights': weights, 'eqzoo': __version__, 'torch': torch.__version__})
    return open_sample_files(out)


def _parsed(labels: str) -> str | list[int]:
    words = [word.strip() for word in labels.split(',')]
    return [int(word) for word in words] if all(word.isdigit() for word in words) else labels


def _draw_missing(draw: ImageSampler, files: PngSamples | NpzSamples, sampling: Any) -> None:
    """Draw what is not there yet, each process its share."""
    rank, world_size = rank_and_world_size()
    wanted = range(sampling.num_samples)
    # the first process's list: others may already be writing when this one looks
    lacking = all_gather_object(sorted(set(wanted) - files.numbers()) if rank == 0 else [])[0]
    own = lacking[rank::world_size]
    bar = tqdm(total=len(lacking), desc='sample', unit='image', disable=rank > 0, file=sys.stdout, mininterval=1)
    with bar:
        started = time.perf_counter()
        for numbers in batches(own, sampling.batch_size):
            files.write(numbers, draw(numbers))
            bar.update(min(len(numbers) * world_size, bar.total - bar.n))
        seconds = time.perf_counter() - started
    wait_for_all()
    if rank == 0 and lacking:
        print(f'{len(lacking):,} images drawn, {len(lacking) / seconds:.3g} images/s')


def _finish(draw: ImageSampler, files: PngSamples | NpzSamples, out: str, count: int) -> str:
    there = files.numbers()
    while count in there:
        count += 1
    labels = draw.labels_of(range(count))
    files.finish(labels.tolist())
    picture = Path(out).with_suffix('') if Path(out).suffix == '.npz' else Path(out)
    picture = picture.with_name(f'{picture.name}_grid.png')
    some = list(range(min(count, 16 * _GRID * _GRID)))
    draw_grid(sample_rows(files.read, labels[some].tolist(), columns=_GRID)).save(picture)
    return f'Written: {out}, {count:,} samples of {len(labels.unique())} classes; {picture}'
