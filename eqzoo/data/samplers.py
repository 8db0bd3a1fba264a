"""Which image comes when: pure functions of the draw, so that resuming replays nothing."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class RunSampler(Sampler):
    """The endless order of a training run: yields (index, draw).

    `draw` numbers the samples of the whole run over all ranks; rank r has the draws with
    draw % world_size == r, so a global batch is made of the same draws however many ranks share it.
    Draw d is place d % size of epoch d // size, whose order depends on (seed, epoch) alone.

    To resume, set `start_draw` to the number of samples seen so far, before iterating.

    Args:
        size: Number of images.
        seed: Of the shuffling.
        shuffle: Whether each epoch has an order of its own.
        rank: This process.
        world_size: Number of processes.
        start_draw: The first draw of the run to yield, over all ranks.

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
        _check('RunSampler', size, rank, world_size)
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
        """Return the samples of one epoch on this rank, for mmengine's log; iteration does not end there."""
        return -(-self.size // self.world_size)

    def _order(self, epoch: int) -> np.ndarray | range:
        return np.random.default_rng([self.seed, epoch]).permutation(self.size) if self.shuffle else range(self.size)


class ShardSampler(Sampler):
    """One pass for evaluation: yields (index, index), each index once over all ranks, without padding.

    Ranks may differ by one in length.

    Args:
        size: Number of images.
        rank: This process, which has the indices with index % world_size == rank.
        world_size: Number of processes.

    Example:
        >>> list(ShardSampler(5, rank=1, world_size=2))
        [(1, 1), (3, 3)]
    """

    def __init__(self, size: int, *, rank: int = 0, world_size: int = 1) -> None:
        _check('ShardSampler', size, rank, world_size)
        self.indices = range(rank, size, world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((index, index) for index in self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def _check(name: str, size: int, rank: int, world_size: int) -> None:
    if size < 1:
        raise ValueError(f'{name}.size must be at least 1, got {size}: the dataset is empty.')
    if not 0 <= rank < world_size:
        raise ValueError(f'{name}.rank must be in 0 to world_size - 1, got rank {rank} of {world_size}.')
