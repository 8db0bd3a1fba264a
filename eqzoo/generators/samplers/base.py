"""Base class of latent samplers: checks, the first noise and guided predictions."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from eqzoo.generators.base import Generator, check_labels
from eqzoo.generators.guidance import Guidance
from eqzoo.randomness import SampleStreams


class Sampler(ABC):
    """Turns noise into latents, for generators of one kind of process.

    Args:
        guidance: Guides the predictions; None for no guidance.
    """

    process: ClassVar[type]

    def __init__(self, guidance: Guidance | None) -> None:
        self.guidance = guidance

    def check(self, generator: Generator) -> None:
        """Check that this sampler is for `generator`.

        Raises:
            ValueError: If the generator has another process, or the guidance is for another network.
        """
        process = getattr(generator, 'process', None)
        if not isinstance(process, self.process):
            has = type(process).__name__ if process else 'no such process'
            raise ValueError(
                f'{type(self).__name__} samples from {self.process.__name__}; {type(generator).__name__} has {has}; '
                'DDPM, DDIM and DPMSolver are for DiT, ODE, ShiftedODE and SDE for SiT and REPA, Confidence and Halton '
                'for MaskGIT.'
            )
        if self.guidance is not None:
            self.guidance.check(generator.network)

    @torch.no_grad()
    def __call__(self, generator: Generator, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return latents (B, C, h, w) in generator units, float32.

        Args:
            generator: In evaluation mode.
            labels: (B,), 0 to K; K stands for no class.
            streams: One random stream per sample, for its first and all later noise; samples do not
                depend on their batch.

        Raises:
            ValueError: If a label is out of range, or the generator is not for this sampler.
        """
        self.check(generator)
        check_labels(labels.cpu(), generator.num_classes)
        noise = streams.normal(torch.zeros(len(labels), *generator.latent_shape, device=labels.device))
        return self.draw(generator, noise, labels, streams).float()

    @abstractmethod
    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Turn `noise` (B, C, h, w) into latents."""

    def predict(self, network: Any, x: Tensor, times: Tensor, labels: Tensor, noise_time: Tensor) -> Tensor:
        """Return the network's guided output (B, C or 2C, h, w), float32.

        Args:
            network: The generator's network.
            x: (B, C, h, w).
            times: (B,), as the network counts them.
            labels: (B,).
            noise_time: (B,) in [0, 1], 1 at pure noise, on the CPU.
        """
        x = x.float()
        if self.guidance is None:
            return network(x, times, labels).float()
        return self.guidance(network, x, times, labels, noise_time).float()
