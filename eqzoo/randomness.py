"""Randomness by counting: a step depends on its number, a sample on its draw, and on nothing before."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def seeded(*key: int) -> torch.Generator:
    """Return a CPU generator whose stream is a function of `key` alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) & (2**63 - 1))


@dataclass(frozen=True)
class StepRandomness:
    """The random streams of one training step.

    Args:
        seed: The run's seed.
        step: The step's number, from 0.
    """

    seed: int
    step: int

    def shared(self) -> torch.Generator:
        """Return the stream for draws that all samples and all processes share."""
        return seeded(self.seed, 0, self.step)

    def noise(self, draws: Tensor) -> 'SampleNoise':
        """Return the noise of the samples `draws` (B,)."""
        return SampleNoise(self.seed, draws)

    def streams(self, draws: Tensor) -> 'SampleStreams':
        """Return a stream of random numbers for each of the samples `draws` (B,)."""
        return SampleStreams(self.seed, draws)


@dataclass(frozen=True)
class SampleNoise:
    """Normal noise that belongs to samples, wherever and in whatever batch they are.

    Args:
        seed: The run's seed.
        draws: The samples' numbers in the run, (B,).
    """

    seed: int
    draws: Tensor

    def __call__(self, like: Tensor) -> Tensor:
        """Return noise with shape, dtype and device of `like` (B, ...)."""
        samples = [torch.randn(like.shape[1:], generator=seeded(self.seed, 1, int(draw))) for draw in self.draws]
        return torch.stack(samples).to(like)


class SampleStreams:
    """One stream of random numbers a sample, whatever batch or process it is in.

    Every call goes on in each stream, so that the n-th draw of a sample depends on its number
    and on n alone.

    Args:
        seed: The run's seed.
        numbers: The samples' numbers (B,).

    Example:
        >>> both = SampleStreams(0, torch.tensor([7, 8])).uniform()
        >>> bool(SampleStreams(0, torch.tensor([8])).uniform() == both[1])
        True
    """

    def __init__(self, seed: int, numbers: Tensor) -> None:
        self.generators = [seeded(seed, 2, int(number)) for number in numbers]
        """For libraries that take a list of generators, one a sample."""

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal noise with shape, dtype and device of `like` (B, ...)."""
        return torch.stack([torch.randn(like.shape[1:], generator=each) for each in self.generators]).to(like)

    def uniform(self, *shape: int, device: torch.device | str = 'cpu') -> Tensor:
        """Return float32 numbers (B, *shape), uniform in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=each) for each in self.generators]).to(device)

    @contextmanager
    def for_modules(self, device: torch.device) -> Iterator[None]:
        """Seed what modules draw by themselves on `device`, as dropout does; torch's own streams stay as they were.

        Such draws belong to a batch, not to its samples: they are the same when a run is repeated
        or resumed, and others when the batch is cut otherwise, by micro-batches or processes.
        """
        seed = int(torch.randint(2**62, (), generator=self.generators[0]))
        devices = [device] if device.type == 'cuda' else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
