"""Write a latent store: shard by shard, over several processes, going on where a killed run stopped."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eqzoo.data.collate import collate
from eqzoo.data.latent_assembly import (
    agree,
    assemble,
    begun,
    is_shard_whole,
    is_whole,
    make_plan,
    normalization_of,
    readable,
    renormalize,
)
from eqzoo.data.latent_encoding import RowEncoder, add_sums, check_finite, sums_of
from eqzoo.data.latent_index import Index, Plan, shard_name
from eqzoo.data.latent_shards import write_shard
from eqzoo.distributed import wait_for_all

Progress = Callable[[int], None]


@dataclass(frozen=True)
class WrittenStore:
    """What `write_store` did.

    Args:
        outcome: 'written'; 'complete', when all was there already; 'renormalized', when all was
            there, and the autoencoder's normalisation is another one now.
        num_encoded: Images encoded by this call, over all processes.
        seconds: That it took.
        index: Of the store; None in any process but the first while others may be writing.
    """

    outcome: Literal['written', 'complete', 'renormalized']
    num_encoded: int
    seconds: float
    index: Index | None


def write_store(
    autoencoder: Any,
    dataset: Dataset,
    out: str | Path,
    *,
    batch_size: int,
    num_workers: int = 0,
    flip: bool = False,
    dtype: str = 'float32',
    precision: str = 'fp32',
    shard_images: int | None = None,
    encoder: Any = None,
    config: Mapping[str, Any] | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
) -> WrittenStore:
    """Encode every image of a data set to a latent store.

    Shard k is encoded by process k % world_size, and moved to its place when it is whole. The
    same call goes on after a kill at any moment; on a store that is whole it answers at once.

    Args:
        autoencoder: In evaluation mode, on the device where it shall run.
        dataset: Images that are the same whenever they are asked for; each must be readable.
        out: The folder, which may not be there.
        batch_size: Images encoded at once by each process. The bytes written are the same for
            any number of processes.
        num_workers: Processes that read images for this one; 0 reads in this one, in turn with encoding.
        flip: Whether to store the mirrored images' latents too.
        dtype: How moments are stored: 'float32', 'float16' or 'bfloat16'.
        precision: 'fp32', or 'bf16' for autocast.
        shard_images: Rows of a shard. Default: as many as make 64 MiB, at least 256.
        encoder: A vision encoder whose features to store too, with a `card()`.
        config: What builds the autoencoder, plain data, for the index.
        rank: This process.
        world_size: Number of processes.
        progress: Called with the number of this process's images just done; first with those found done.

    Raises:
        ValueError: If `out` holds a store of another plan, an image cannot be read, the data set
            mirrors at random, or a latent is not finite.
    """
    started = time.perf_counter()
    root = Path(out).expanduser()
    rows = RowEncoder(autoencoder, dtype=dtype, precision=precision, flip=flip, encoder=encoder)
    there = begun(root)
    if shard_images is None and there is not None:
        shard_images = there.shard_images
    plan = make_plan(rows, dataset, shard_images)
    agree(root, there, plan, rank)
    normalization = normalization_of(autoencoder)
    if is_whole(root, plan):
        outcome, index = renormalize(root, normalization, rank)
        return WrittenStore(outcome, 0, time.perf_counter() - started, index)
    pending = [shard for shard in range(plan.num_shards) if not is_shard_whole(root, shard, plan)]
    wait_for_all()  # all have looked before anyone writes
    own = [shard for shard in pending if shard % world_size == rank]
    if progress is not None:
        done = set(range(rank, plan.num_shards, world_size)).difference(own)
        progress(sum(len(plan.rows_of(shard)) for shard in done))
    _write_shards(root, plan, own, rows, dataset, batch_size, num_workers, progress)
    wait_for_all()
    num_encoded = sum(len(plan.rows_of(shard)) for shard in pending)
    index = None
    if rank == 0:
        index = assemble(root, plan, dataset, dict(config=config, normalization=normalization))
    wait_for_all()
    return WrittenStore('written', num_encoded, time.perf_counter() - started, index)


def _write_shards(
    root: Path,
    plan: Plan,
    shards: list[int],
    rows: RowEncoder,
    dataset: Dataset,
    batch_size: int,
    num_workers: int,
    progress: Progress | None,
) -> None:
    """Read, encode and write: reading in the loader's processes, writing in a thread, one shard behind."""
    if batch_size < 1:
        raise ValueError(f'latent store: batch_size must be at least 1, got {batch_size}.')
    if not shards:
        return
    batches = iter(_loader(dataset, plan, shards, batch_size, num_workers))
    with ThreadPoolExecutor(1) as writer:
        writing = None
        for shard in shards:
            labels, copies, notes = _encode_shard(batches, len(plan.rows_of(shard)), rows, progress)
            if writing is not None:
                writing.result()
            notes |= dict(plan=plan.sha256)
            writing = writer.submit(write_shard, root / shard_name(shard), labels, copies, notes)
        writing.result()


def _encode_shard(
    batches: Iterator[dict[str, Any]], count: int, rows: RowEncoder, progress: Progress | None
) -> tuple[Tensor, list[dict[str, Tensor]], dict[str, Any]]:
    labels, pieces, sums, seen = [], [], None, 0
    while seen < count:
        batch = readable(next(batches))
        copies = rows(batch['images'])
        for fields in copies:
            check_finite(fields, batch['indices'])
        sums = add_sums(sums, sums_of(copies[0]))
        labels.append(batch['labels'])
        pieces.append(copies)
        seen += len(batch['labels'])
        if progress is not None:
            progress(len(batch['labels']))
    joined = [
        {name: torch.cat([piece[name] for piece in each]) for name in each[0]} for each in zip(*pieces, strict=True)
    ]
    return torch.cat(labels), joined, dict(sums=sums)


def _loader(dataset: Dataset, plan: Plan, shards: list[int], batch_size: int, num_workers: int) -> DataLoader:
    """Return batches of the shards' images in order; none is of two shards."""
    batches = []
    for shard in shards:
        images = plan.rows_of(shard)
        for start in range(images.start, images.stop, batch_size):
            batches.append([(index, index) for index in range(start, min(start + batch_size, images.stop))])
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),  # its own, as eqzoo.data.loaders has
    )


def _collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    unreadable = [item for item in items if 'unreadable' in item]
    return unreadable[0] if unreadable else collate(items)
