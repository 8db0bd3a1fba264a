"""Loaders of training and evaluation, their samplers, and dataset keys: an index, or (index, draw)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from eqzoo.data.workers import batch_memory, joined, worker_options
from eqzoo.distributed import get_device

_BYTES_A_VALUE = 1 + 4  # of a pixel: as it is read, and as a float

# An index, or (index, draw), where draw is the number of the sample in the run.
Key = int | tuple[int, int]

_MAX_NAMES = 8  # images named in a message


def build_train_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    shuffle: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Build an endless loader of a training run; the global batch of step i is draws i*B to (i+1)*B - 1.

    To resume after n samples, set `loader.sampler.start_draw = n` before iterating.

    Args:
        dataset: A dataset with keys (index, draw). If it has `bucket_of`, the bucket of each index, the items of a
            batch are of one bucket.
        batch_size: B, over all ranks.
        num_workers: Processes that read for this rank; 0 reads in this process. It changes no result,
            and is capped to the number of cores.
        seed: Seed of the order of the images.
        shuffle: Whether to shuffle each epoch.
        rank: This process.
        world_size: Number of ranks.

    Raises:
        ValueError: If `batch_size` is not a whole multiple of `world_size`.
    """
    options = dict(seed=seed, shuffle=shuffle, rank=rank, world_size=world_size)
    buckets = getattr(dataset, 'bucket_of', None)
    sampler = RunSampler(len(dataset), **options) if buckets is None else BucketSampler(buckets, batch_size, **options)
    return _build(dataset, sampler, batch_size, num_workers, world_size, collate)


def build_eval_loader(
    dataset: Dataset, *, batch_size: int, num_workers: int, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Build a loader that yields each image once, in order, over all ranks together.

    A batch without a readable image has `images=None`: see `eqzoo.engine.evaluation.readable_batches`.

    Args:
        dataset: A dataset with keys (index, draw); the draw is the index.
        batch_size: Images of a batch over all ranks; the last batch may be smaller.
        num_workers: Processes that read for this rank; 0 reads in this process. It changes no result,
            and is capped to the number of cores.
        rank: This process.
        world_size: Number of ranks.

    Raises:
        ValueError: If `batch_size` is not a whole multiple of `world_size`, or the images are of several sizes.
    """
    if len(set(getattr(dataset, 'bucket_of', ()))) > 1:
        raise ValueError(
            f'dataset: {type(dataset).__name__} has images of several sizes, which only training takes; expected '
            'images of one size for evaluation, such as ImageFolder.'
        )
    sampler = ShardSampler(len(dataset), rank=rank, world_size=world_size)
    return _build(dataset, sampler, batch_size, num_workers, world_size, collate_any)


class RunSampler(Sampler):
    """Endless order of a training run: yields (index, draw).

    `draw` numbers the samples of the whole run over all ranks; rank r has the draws with
    draw % world_size == r, so a global batch has the same draws for any number of ranks.
    Draw d is place d % size of epoch d // size, whose order depends on (seed, epoch) only.

    To resume, set `start_draw` to the number of samples seen so far, before iterating.

    Args:
        size: Number of images.
        seed: Seed of the shuffling.
        shuffle: Whether to shuffle each epoch.
        rank: This process.
        world_size: Number of processes.
        start_draw: First draw of the run to yield, over all ranks.

    Example:
        >>> from itertools import islice
        >>> list(islice(RunSampler(3, seed=0, shuffle=False, rank=1, world_size=2), 4))
        [(1, 1), (0, 3), (2, 5), (1, 7)]
    """

    def __init__(
        self,
        size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        start_draw: int = 0,
    ) -> None:
        _check_shares('RunSampler', size, rank, world_size)
        if seed < 0 or start_draw < 0:
            raise ValueError(f'RunSampler.seed and start_draw must not be negative, got {seed} and {start_draw}.')
        self.size, self.seed, self.shuffle = size, seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.start_draw = start_draw

    def __iter__(self) -> Iterator[tuple[int, int]]:
        draw = self.start_draw + (self.rank - self.start_draw) % self.world_size
        epoch, order = -1, None
        while True:
            if draw // self.size != epoch:
                epoch = draw // self.size
                order = self._order(epoch)
            yield int(order[draw % self.size]), draw
            draw += self.world_size

    def __len__(self) -> int:
        """Return the number of samples of one epoch on this rank, for the log; iteration does not end there."""
        return -(-self.size // self.world_size)

    def _order(self, epoch: int) -> np.ndarray | range:
        return np.random.default_rng([self.seed, epoch]).permutation(self.size) if self.shuffle else range(self.size)


class BucketSampler(RunSampler):
    """Endless order of a training run whose batches are of one bucket each: yields (index, draw).

    Draws are numbered, and shared by ranks, as those of `RunSampler`. A cycle has one batch per item. A bucket of n
    items has n of these batches, spread evenly over the cycle at random, and goes through its items once for each item
    of a batch, every time in another order. No item is left out or preferred. The items of global batch i depend only
    on the seed, the batch size and i.

    Args:
        bucket_of: The bucket of each item.
        batch_size: B, over all ranks.
        seed: Seed of the shuffling.
        shuffle: Whether to shuffle.
        rank: This process.
        world_size: Number of processes.
        start_draw: First draw of the run to yield, over all ranks.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from itertools import islice
        >>> list(islice(BucketSampler([0, 1, 0], 2, shuffle=False), 6))
        [(0, 0), (2, 1), (1, 2), (1, 3), (0, 4), (2, 5)]
    """

    def __init__(
        self,
        bucket_of: Sequence[int],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        start_draw: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'BucketSampler.batch_size must be at least 1, got {batch_size}.')
        options = dict(seed=seed, shuffle=shuffle, rank=rank, world_size=world_size, start_draw=start_draw)
        super().__init__(len(bucket_of), **options)
        self.batch_size = batch_size
        # the items of each bucket, which may have no items
        buckets = np.asarray(bucket_of)
        self._items = np.argsort(buckets, kind='stable')
        self._counts = np.bincount(buckets)
        self._starts = self._counts.cumsum() - self._counts

    def __iter__(self) -> Iterator[tuple[int, int]]:
        draw = self.start_draw + (self.rank - self.start_draw) % self.world_size
        cycle, orders = -1, {}
        while True:
            batch, place = divmod(draw, self.batch_size)
            if batch // self.size != cycle:
                cycle, orders = batch // self.size, {}
                schedule, earlier = self._schedule(cycle)
            bucket, earlier_batches = int(schedule[batch % self.size]), int(earlier[batch % self.size])
            count = int(self._counts[bucket])
            turn, rank_in_turn = divmod(earlier_batches * self.batch_size + place, count)
            if orders.get(bucket, (-1, None))[0] != turn:
                orders[bucket] = turn, self._order_of(bucket, cycle, turn)
            yield int(self._items[self._starts[bucket] + orders[bucket][1][rank_in_turn]]), draw
            draw += self.world_size

    def _schedule(self, cycle: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the bucket of each batch of a cycle, and how many earlier ones of the cycle are of the same bucket."""
        bucket = np.repeat(np.arange(len(self._counts)), self._counts)
        earlier = np.arange(self.size) - np.repeat(self._starts, self._counts)
        # the n batches of a bucket are at random moments of the n-th parts of the cycle
        jitter = np.random.default_rng([self.seed, cycle]).random(self.size) if self.shuffle else 0.5
        order = np.argsort((earlier + jitter) / self._counts[bucket], kind='stable')
        return bucket[order], earlier[order]

    def _order_of(self, bucket: int, cycle: int, turn: int) -> np.ndarray | range:
        count = int(self._counts[bucket])
        if not self.shuffle:
            return range(count)
        return np.random.default_rng([self.seed, cycle, bucket, turn]).permutation(count)


class ShardSampler(Sampler):
    """One pass for evaluation: yields (index, index), each index once over all ranks, without padding.

    The lengths of ranks may differ by one.

    Args:
        size: Number of images.
        rank: This process, which has the indices with index % world_size == rank.
        world_size: Number of processes.

    Example:
        >>> list(ShardSampler(5, rank=1, world_size=2))
        [(1, 1), (3, 3)]
    """

    def __init__(self, size: int, *, rank: int = 0, world_size: int = 1) -> None:
        _check_shares('ShardSampler', size, rank, world_size)
        self.indices = range(rank, size, world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((index, index) for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack items into one batch.

    Args:
        items: `dict(image, label, index, draw)` each, with the original size as `enlarged` if the image was smaller;
            or `dict(unreadable, index, draw)`, with the `reason` if that is known.

    Returns:
        `dict(images=uint8 (B, 3, H, W), labels, indices, draws=int64 (B,), unreadable=list[str], reasons, enlarged)`,
        where B is the number of readable items, `reasons` (dict) has a reason for unreadable names, and `enlarged`
        (list) the names and sizes of enlarged images.

    Raises:
        ValueError: If no item is readable.
    """
    batch = collate_any(items)
    if batch['images'] is None:
        unreadable, reasons = batch['unreadable'], batch['reasons']
        named = [with_reason(name, reasons) for name in unreadable[:_MAX_NAMES]]
        more = f' and {len(unreadable) - _MAX_NAMES} more' if len(unreadable) > _MAX_NAMES else ''
        raise ValueError(
            f'No image of this batch of {len(items)} can be read: {", ".join(named)}{more}; remove these files, or '
            'raise batch_size.'
        )
    return batch


def collate_any(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack items into one batch, as `collate` does; its images are None if none is readable."""
    readable = [item for item in items if 'unreadable' not in item]
    return dict(
        images=_stack([item['image'] for item in readable]) if readable else None,
        labels=torch.tensor([item['label'] for item in readable]),
        indices=torch.tensor([item['index'] for item in readable]),
        draws=torch.tensor([item['draw'] for item in readable]),
        unreadable=[item['unreadable'] for item in items if 'unreadable' in item],
        reasons={item['unreadable']: item['reason'] for item in items if 'reason' in item},
        enlarged=[item['enlarged'] for item in readable if 'enlarged' in item],
    )


def _stack(images: Sequence[Tensor]) -> Tensor:
    """Stack images of one size and type, without a copy where possible; others as torch does, with its errors."""
    first = images[0]
    if any(image.shape != first.shape or image.dtype != first.dtype for image in images):
        return torch.stack(images)
    if (batch := joined(images)) is not None:
        return batch
    memory = batch_memory(len(images) * first.numel() * first.element_size())
    return torch.stack(images, out=memory.view(first.dtype).view(len(images), *first.shape))


def with_reason(name: str, reasons: Mapping[str, str]) -> str:
    """Return the name of an unreadable image, followed by the reason in brackets if that is known."""
    return f'{name} ({reasons[name]})' if name in reasons else name


def split_key(key: Key, size: int) -> tuple[int, int]:
    """Return (index, draw) of the key of a dataset; the draw of a bare index is the index.

    Raises:
        IndexError: If the index is not in 0 to `size` - 1; this ends a plain loop over a dataset.
    """
    index, draw = key if isinstance(key, tuple) else (key, key)
    if not 0 <= index < size:
        raise IndexError(f'Index {index} is not in 0 to {size - 1}.')
    return int(index), int(draw)


def image_sizes(dataset: Dataset) -> list[tuple[int, int]]:
    """Return the sizes (H, W) of a dataset's images: of its buckets, or its one; none if a user's does not tell."""
    side = getattr(dataset, 'size', None)
    return list(getattr(dataset, 'sizes', [(side, side)] if isinstance(side, int) else []))


def _build(
    dataset: Dataset, sampler: Sampler, batch_size: int, num_workers: int, world_size: int, collate_fn: Callable
) -> DataLoader:
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f'batch_size is over all ranks and must be a whole multiple of their number {world_size}, got {batch_size}.'
        )
    _check_memory(dataset, batch_size // world_size)
    return DataLoader(
        dataset,
        batch_size=batch_size // world_size,
        sampler=sampler,
        **worker_options(num_workers),
        collate_fn=getattr(dataset, 'collate', collate_fn),  # datasets of latents return batches
        pin_memory=get_device() == 'cuda',
        persistent_workers=num_workers > 0,
        # Its own generator: otherwise the loader draws from the global one and so changes later draws.
        generator=torch.Generator().manual_seed(0),
    )


def _check_memory(dataset: Dataset, batch_size: int) -> None:
    """Refuse a batch whose images alone take more memory than the machine has."""
    sizes = image_sizes(dataset)
    if not sizes:
        return
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    needed = batch_size * 3 * height * width * _BYTES_A_VALUE
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    if needed > memory:
        raise ValueError(
            f'batch_size: {batch_size:,} images of {height:,} x {width:,} pixels take {needed / 2**30:,.1f} GiB, this '
            f'machine has {memory / 2**30:,.1f} GiB; expected smaller batches, or smaller images (dataset.size).'
        )


def _check_shares(name: str, size: int, rank: int, world_size: int) -> None:
    if size < 1:
        raise ValueError(f'{name}.size must be at least 1, got {size}: the dataset is empty.')
    if not 0 <= rank < world_size:
        raise ValueError(f'{name}.rank must be in 0 to world_size - 1, got rank {rank} of {world_size}.')
