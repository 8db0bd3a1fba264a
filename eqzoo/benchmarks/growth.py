"""Benchmark of start-up time and memory over the number of images, which are simulated."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqzoo.benchmarks.measure import peak_memory
from eqzoo.data import Shapes, build_eval_loader
from eqzoo.data.folder_index import IndexedFolder
from eqzoo.data.latents import LatentStore
from eqzoo.data.latents.format import Field, StoreIndex, StorePlan, shard_name, write_index, write_plan, write_shard
from eqzoo.data.loaders import RunSampler
from eqzoo.data.sources import Names
from eqzoo.engine.evaluation import evaluate, sample_view
from eqzoo.engine.references import make_reference
from eqzoo.evaluators import GenerationMetric
from eqzoo.vision.base import FeatureExtractor, Features

_CLASSES = 1000
_SHARD = 1000
_BATCH = 256
_SIDE = 16


def measure_growth(count: int, *, with_files: bool = False) -> dict[str, tuple[float, float]]:
    """Return the CPU seconds until the first batch and the MiB of memory of each part of a run on `count` images.

    The parts are the index of an image folder, as eqzoo keeps it and as a list of strings, the
    order of the first epoch, and a latent store of 16 x 16 codes, from which 1,000 are then read one by one. Each is
    measured in its own process. The MiB of the store's index are on the disk.

    Args:
        count: A multiple of a thousand.
        with_files: Whether to make a folder of as many empty files, and to list it at a first and at a later start.
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
        store = LatentStore(folder)
        results['1,000 random latents'] = _in_a_process(lambda: _random_latents(store))
        files = (path for path in Path(folder).iterdir() if path.suffix != Path(shard_name(0)).suffix)
        results['index on the disk'] = 0.0, sum(path.stat().st_size for path in files) / 2**20
        if with_files:
            results.update(_listing_costs(Path(folder), count))
    return results


def scoring_cost(count: int) -> tuple[float, float]:
    """Return the CPU seconds and the process's peak memory in MiB of the Fréchet distance of `count` samples.

    Samples are the built-in Shapes at 16 pixels, features a small random projection of them: only memory counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _in_a_process(lambda: _score(count, Path(folder) / 'reference.npz'), at_peak=True)


def _score(count: int, reference: Path) -> object:
    network = _RandomProjection()
    make_reference(Shapes(_BATCH, _SIDE), network, reference, loading=(_BATCH, 0))
    metric = GenerationMetric(network, str(reference), ['fd'], min_images=2)
    loader = build_eval_loader(Shapes(count, _SIDE, cache_bytes=0), batch_size=_BATCH, num_workers=0)
    return evaluate([metric], loader, sample_view)


class _RandomProjection(FeatureExtractor):
    """A random matrix as a network: 512 features of an image."""

    key, num_features = 'random_projection', 512

    def __init__(self) -> None:
        self.network = torch.nn.Linear(3 * _SIDE**2, self.num_features, bias=False).requires_grad_(False)
        torch.nn.init.normal_(self.network.weight, generator=torch.Generator().manual_seed(0))

    def extract(self, images: Tensor) -> Features:
        return Features(self.network(images.flatten(1)))

    def card(self) -> dict[str, Any]:
        return {'network': 'a random projection'}


def _listing_costs(folder: Path, count: int) -> dict[str, tuple[float, float]]:
    root = folder / 'images'
    for number in range(min(count, _CLASSES)):
        (root / f'n{number:08d}').mkdir(parents=True)
    for path in _paths(count):
        os.close(os.open(root / path, os.O_CREAT))

    def listed() -> Names:
        os.environ['EQZOO_CACHE'] = str(folder / 'cache')
        return IndexedFolder(root, settled=0).names()

    return {name: _in_a_process(listed) for name in ('folder, first start', 'folder, later start')}


def _paths(count: int) -> Iterator[str]:
    return (f'n{index % _CLASSES:08d}/n{index % _CLASSES:08d}_{index:08d}.JPEG' for index in range(count))


def _first_batch_of(sampler: RunSampler) -> object:
    iterator = iter(sampler)
    return iterator, list(islice(iterator, _BATCH))  # the iterator holds the epoch's order


def _first_latents(folder: str) -> object:
    store = LatentStore(folder)
    iterator, keys = _first_batch_of(RunSampler(len(store)))
    return store, iterator, store.__getitems__(keys)


def _random_latents(store: LatentStore) -> object:
    numbers = torch.randint(len(store), (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    return [store[number] for number in numbers][-1]


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


def _in_a_process(part: Callable[[], object], *, at_peak: bool = False) -> tuple[float, float]:
    """Run `part` in a forked process and return its CPU seconds and the MiB of memory that its result takes.

    Args:
        part: The work.
        at_peak: Return the process's peak memory instead, with all that it has in common with this one.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        if at_peak:
            memory = 1024 * peak_memory(part, torch.device('cpu'))
            os.write(writing, json.dumps([time.process_time(), memory]).encode())
        else:
            before, started = _anonymous_memory(), time.process_time()
            result = part()  # kept until its memory has been read
            seconds = time.process_time() - started
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
