"""Benchmark of start-up time and memory over the number of images, which are simulated."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch

from eqzoo.benchmarks.measure import timed
from eqzoo.data.latents import LatentStore
from eqzoo.data.latents.format import Field, StoreIndex, StorePlan, shard_name, write_index, write_plan, write_shard
from eqzoo.data.loaders import RunSampler
from eqzoo.data.sources import Names

_CLASSES = 1000
_SHARD = 1000
_BATCH = 256


def measure_growth(count: int) -> dict[str, tuple[float, float]]:
    """Return the seconds until the first batch and the MiB of memory of each part of a run on `count` images.

    The parts are the index of an image folder, as eqzoo keeps it and as a list of strings, the
    order of the first epoch, and a latent store of 16 x 16 codes. Each is measured in its own
    process.

    Args:
        count: A multiple of a thousand.
    """
    parts: dict[str, Callable[[], object]] = {
        'names': lambda: Names(_paths(count)),
        'names, as a list': lambda: list(_paths(count)),
        'order': lambda: _first_batch_of(RunSampler(count)),
    }
    results = {name: _in_a_process(part) for name, part in parts.items()}
    with tempfile.TemporaryDirectory() as folder:
        _write_store(Path(folder), count)
        results['latent store'] = _in_a_process(lambda: _first_latents(folder))
    return results


def _paths(count: int) -> Iterator[str]:
    return (f'n{index % _CLASSES:08d}/n{index % _CLASSES:08d}_{index:08d}.JPEG' for index in range(count))


def _first_batch_of(sampler: RunSampler) -> object:
    iterator = iter(sampler)
    return iterator, list(islice(iterator, _BATCH))  # the iterator holds the epoch's order


def _first_latents(folder: str) -> object:
    store = LatentStore(folder)
    iterator, keys = _first_batch_of(RunSampler(len(store)))
    return store, iterator, store.__getitems__(keys)


def _write_store(folder: Path, count: int) -> None:
    """Write a store whose shards are links to one file."""
    plan = StorePlan('0' * 64, {}, count, _SHARD, False, 'fp32', {'codes': Field('uint16', (16, 16))}, num_codes=1024)
    first = folder / shard_name(0)
    labels, codes = torch.arange(_SHARD) % _CLASSES, torch.zeros(_SHARD, 16, 16, dtype=torch.uint16)
    write_shard(first, plan, labels, [{'codes': codes}])
    for number in range(1, plan.num_shards):
        os.link(first, folder / shard_name(number))
    write_plan(folder, plan)
    sizes = {shard_name(number): first.stat().st_size for number in range(plan.num_shards)}
    normalization = {'shift': [0.0], 'scale': [1.0]}
    autoencoder = {'config': None, 'normalization': normalization}
    classes = [f'n{label:08d}' for label in range(_CLASSES)]
    write_index(folder, StoreIndex(plan, {}, classes, autoencoder, None, sizes, {}))


def _in_a_process(part: Callable[[], object]) -> tuple[float, float]:
    """Run `part` in a forked process and return its seconds and the MiB of memory that it takes."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        before = _anonymous_memory()
        seconds, result = timed(part)  # the result is kept until its memory has been read
        os.write(writing, json.dumps([seconds, _anonymous_memory() - before]).encode())
        del result
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        content = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f'growth: the measuring process ended with status {status}.')
    seconds, memory = json.loads(content)
    return seconds, memory


def _anonymous_memory() -> float:
    """Return the MiB of this process's memory that are not mapped files."""
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith('Anonymous:')) / 1024
