"""What every sampler does alike: checks, the first noise, guided predictions."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.guidance import Guidance
from eqzoo.randomness import SampleStreams


class Sampler(ABC):
    """A way from noise to latents, for generators of one kind of process.

    Args:
        guidance: What predictions are pushed away from; None for none.
    """

    process: ClassVar[type]

    def __init__(self, guidance: Guidance | None) -> None:
        self.guidance = guidance

    def check(self, generator: Generator) -> None:
        """Refuse a generator that this sampler is not for.

        Raises:
            ValueError: Saying what it is for.
        """
        process = getattr(generator, 'process', None)
        if not isinstance(process, self.process):
            has = type(process).__name__ if process else 'no such process'
            raise ValueError(
                f'{type(self).__name__} samples from {self.process.__name__}; {type(generator).__name__} has {has}; '
                'DDPM, DDIM and DPMSolver are for DiT, ODE and SDE for SiT and REPA, Confidence and Halton for MaskGIT.'
            )

    @torch.no_grad()
    def __call__(self, generator: Generator, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return latents (B, C, h, w) in generator units, float32.

        Args:
            generator: In evaluation mode.
            labels: Classes (B,), 0 to K; K stands for no class.
            streams: A sample's first noise and all later ones come from its stream, whatever the batch.

        Raises:
            ValueError: If a label is out of range, or the generator is not for this sampler.
        """
        self.check(generator)
        check_labels(labels, generator.num_classes)
        noise = streams.normal(torch.zeros(len(labels), *generator.latent_shape, device=labels.device))
        return self.draw(generator, noise, labels, streams).float()

    @abstractmethod
    def draw(self, generator: Generator, noise: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the latents that `noise` (B, C, h, w) becomes."""

    def predict(self, network: Any, x: Tensor, times: Tensor, labels: Tensor, noise_time: Tensor) -> Tensor:
        """Return the network's guided output (B, C or 2C, h, w), float32.

        Args:
            network: The generator's.
            x: (B, C, h, w).
            times: (B,), as the network counts them.
            labels: (B,).
            noise_time: (B,) in [0, 1], 1 at pure noise, on the CPU.
        """
        x = x.float()
        if self.guidance is None:
            return network(x, times, labels).float()
        return self.guidance(network, x, times, labels, noise_time).float()


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels (B,) other than classes and `num_classes`, no class.

    Raises:
        ValueError: With the labels.
    """
    if len(labels) and not 0 <= labels.min() <= labels.max() <= num_classes:
        raise ValueError(
            f'labels: got {labels.tolist()}; accepted are 0 to {num_classes - 1}, and {num_classes} for no class.'
        )


def check_steps(where: str, steps: int, least: int = 1) -> None:
    """Refuse too few steps.

    Raises:
        ValueError: Naming `where`.
    """
    if steps < least:
        raise ValueError(f'{where} must be at least {least}, got {steps}.')
