"""Counter-based random streams: a step's draws depend on its number, a sample's on its own, never on earlier draws.

A stream is named by a key, `(seed, stream, number)`. Runs therefore resume without replay, and the number of
workers, processes and micro-batches changes no draw.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Stream(IntEnum):
    """The streams of a run's seed; each number has one use, and keeps it, since draws depend on it."""

    STEP = 0
    """Draws that all samples and processes of a training step share, by step."""
    NOISE = 1
    """Noise of a training sample's latents, by draw."""
    SAMPLES = 2
    """Everything else that is drawn for a sample, in training and in sampling, by draw."""
    LABELS = 3
    """Random classes of samples, by the sample's number."""
    CODEBOOK = 4
    """Features that replace idle codes, by step."""
    CORRUPTION = 5
    """Corruptions of a training sample's latents, by draw."""
    AUGMENTATION = 6
    """Augmentation of what a discriminator sees of a training sample, by draw."""


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
        return seeded(self.seed, Stream.STEP, self.step)

    def noise(self, draws: Tensor) -> 'SampleNoise':
        """Return the noise of the samples `draws` (B,)."""
        return SampleNoise(self.seed, draws)

    def streams(self, draws: Tensor) -> 'SampleStreams':
        """Return a stream of random numbers for each of the samples `draws` (B,)."""
        return SampleStreams(self.seed, draws)

    def corruption(self, draws: Tensor) -> 'SampleStreams':
        """Return a stream for the corruptions of the latents of each of the samples `draws` (B,)."""
        return SampleStreams(self.seed, draws, Stream.CORRUPTION)

    def augmentation(self, draws: Tensor) -> 'SampleStreams':
        """Return a stream for the augmentation of what a discriminator sees of each of the samples `draws` (B,)."""
        return SampleStreams(self.seed, draws, Stream.AUGMENTATION)


@dataclass(frozen=True)
class SampleNoise:
    """Normal noise of samples: the same in any batch and on any process.

    Args:
        seed: The run's seed.
        draws: The samples' numbers in the run, (B,).
    """

    seed: int
    draws: Tensor

    def __call__(self, like: Tensor) -> Tensor:
        """Return noise with shape, dtype and device of `like` (B, ...)."""
        generators = [seeded(self.seed, Stream.NOISE, int(draw)) for draw in self.draws]
        drawn = torch.stack([torch.randn(like.shape[1:], generator=each) for each in generators])
        return _moved(drawn, like.device).to(like.dtype)


class SampleStreams:
    """One stream of random numbers per sample: the same in any batch and on any process.

    Every call continues each stream, so that the n-th draw of a sample depends only on its number
    and on n.

    Args:
        seed: The run's seed.
        numbers: The samples' numbers (B,).
        stream: The use of these streams.

    Example:
        >>> both = SampleStreams(0, torch.tensor([7, 8])).uniform()
        >>> bool(SampleStreams(0, torch.tensor([8])).uniform() == both[1])
        True
    """

    def __init__(self, seed: int, numbers: Tensor, stream: Stream = Stream.SAMPLES) -> None:
        self.generators = [seeded(seed, stream, int(number)) for number in numbers]
        """One generator per sample, for libraries that take such a list."""

    def __getitem__(self, part: slice) -> 'SampleStreams':
        """Return the streams of some of the samples; both continue the same ones."""
        streams = copy.copy(self)
        streams.generators = self.generators[part]
        return streams

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal noise with shape, dtype and device of `like` (B, ...)."""
        drawn = torch.stack([torch.randn(like.shape[1:], generator=each) for each in self.generators])
        return _moved(drawn, like.device).to(like.dtype)

    def uniform(self, *shape: int, device: torch.device | str = 'cpu') -> Tensor:
        """Return float32 numbers (B, *shape), uniform in [0, 1)."""
        return _moved(torch.stack([torch.rand(shape, generator=each) for each in self.generators]), device)

    @contextmanager
    def for_modules(self, device: torch.device) -> Iterator[None]:
        """Seed the draws that modules make themselves on `device`, such as dropout; restore torch's streams afterwards.

        These draws belong to the batch, not to its samples: they are equal when a run is repeated or
        resumed, but change with the number of micro-batches or processes.
        """
        seed = int(torch.randint(2**62, (), generator=self.generators[0]))
        devices = [device] if device.type == 'cuda' else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield


def _moved(drawn: Tensor, device: torch.device | str) -> Tensor:
    """Return numbers drawn on the CPU on `device`.

    From pinned memory the copy to a GPU enters its queue, and the host goes on; otherwise it would wait for all work
    before the copy. A step's numbers are so drawn while the GPU computes the step before it.
    """
    if torch.device(device).type != 'cuda':
        return drawn.to(device)
    return drawn.pin_memory().to(device, non_blocking=True)
