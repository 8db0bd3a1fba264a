"""Data loaders for training and for evaluation, alike for any number of ranks and workers."""

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from eqzoo.data.collate import collate
from eqzoo.data.samplers import RunSampler, ShardSampler


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
        dataset: Asked with (index, draw).
        batch_size: B, over all ranks.
        num_workers: Processes that read for this rank; 0 reads in this one. It changes no result.
        seed: Of the order of the images.
        shuffle: Whether each epoch has an order of its own.
        rank: This process.
        world_size: Number of ranks.

    Raises:
        ValueError: If `batch_size` is not a whole multiple of `world_size`.
    """
    sampler = RunSampler(len(dataset), seed=seed, shuffle=shuffle, rank=rank, world_size=world_size)
    return _build(dataset, sampler, batch_size, num_workers, world_size)


def build_eval_loader(
    dataset: Dataset, *, batch_size: int, num_workers: int, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Build a loader that gives each image once, in order, over all ranks together.

    Args:
        dataset: Asked with (index, index).
        batch_size: Over all ranks; the last batch may be smaller.
        num_workers: Processes that read for this rank; 0 reads in this one. It changes no result.
        rank: This process.
        world_size: Number of ranks.

    Raises:
        ValueError: If `batch_size` is not a whole multiple of `world_size`.
    """
    sampler = ShardSampler(len(dataset), rank=rank, world_size=world_size)
    return _build(dataset, sampler, batch_size, num_workers, world_size)


def _build(dataset: Dataset, sampler: Sampler, batch_size: int, num_workers: int, world_size: int) -> DataLoader:
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f'batch_size is over all ranks and must be a whole multiple of their number {world_size}, got {batch_size}.'
        )
    return DataLoader(
        dataset,
        batch_size=batch_size // world_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=getattr(dataset, 'collate', collate),  # latents come as batches
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        # Its own: a loader would otherwise draw from, and so move, the global generator.
        generator=torch.Generator().manual_seed(0),
    )
