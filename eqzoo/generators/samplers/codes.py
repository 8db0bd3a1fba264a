"""What every sampler of codes does alike: checks, guided predictions, codes drawn by their probabilities."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.maskgit import MaskGIT
from eqzoo.generators.samplers.base import check_labels, check_steps
from eqzoo.randomness import SampleStreams


class CodeSampler(ABC):
    """A way from masks to codes, some in each step.

    Guidance is away from the prediction for no class, (1 + w) cond - w uncond, in logits, with a
    weight w a step. A step of weight 0 predicts only once.

    Args:
        steps: Predictions of the network, each of which fixes some codes.
        temperature: Divides the logits. The release multiplies by what it calls softmax temperature.

    Raises:
        ValueError: If there are no steps, or the temperature is not positive.
    """

    def __init__(self, steps: int, *, temperature: float = 1.0) -> None:
        check_steps(f'{type(self).__name__}.steps', steps)
        if temperature <= 0:
            raise ValueError(f'{type(self).__name__}.temperature must be positive, got {temperature}.')
        self.steps, self.temperature = steps, temperature

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps."""
        return {**arguments, 'steps': 2}

    def check(self, generator: Generator) -> None:
        """Refuse a generator that this sampler is not for.

        Raises:
            ValueError: If it makes no codes, or less than one a step.
        """
        if not isinstance(generator, MaskGIT):
            raise ValueError(
                f'{type(self).__name__} draws codes, for MaskGIT; {type(generator).__name__} makes latents; DDPM, DDIM '
                'and DPMSolver are for DiT, ODE and SDE for SiT and REPA.'
            )
        rows, columns = generator.latent_shape
        if self.steps > rows * columns:
            raise ValueError(
                f'{type(self).__name__}.steps: got {self.steps}; accepted are 1 to {rows * columns}, the codes of an '
                'image.'
            )

    @torch.no_grad()
    def __call__(self, generator: MaskGIT, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return codes (B, h, w), int64, 0 to K - 1.

        Args:
            generator: In evaluation mode.
            labels: Classes (B,), 0 to N; N stands for no class.
            streams: All that is random of a sample comes from its stream, whatever the batch.

        Raises:
            ValueError: If a label is out of range, or the generator is not for this sampler.
        """
        self.check(generator)
        check_labels(labels, generator.num_classes)
        return self.draw(generator, labels, streams).view(len(labels), *generator.latent_shape)

    @abstractmethod
    def draw(self, generator: MaskGIT, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the codes (B, T), T = h * w."""

    def first_codes(self, generator: MaskGIT, labels: Tensor) -> Tensor:
        """Return (B, T) masks."""
        rows, columns = generator.latent_shape
        return torch.full((len(labels), rows * columns), generator.network.mask_code, device=labels.device)

    def probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Return the probabilities (B, T, K), float32, of each code at each place.

        The mask's own is left out. Differs from the release, which may draw it, and shows it as the last code.

        Args:
            generator: The generator.
            codes: (B, T).
            labels: (B,).
            weight: Of the guidance, w.
        """
        network = generator.network
        grids = codes.view(-1, *generator.latent_shape)
        if weight == 0:
            logits = network(grids, labels).float()
        else:
            nothing = torch.full_like(labels, generator.num_classes)
            both = network(torch.cat([grids, grids]), torch.cat([labels, nothing])).float()
            conditional, unconditional = both.chunk(2)
            logits = torch.lerp(unconditional, conditional, 1 + weight)
        return (logits[..., : generator.num_codes] / self.temperature).softmax(dim=2)

    def first_probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Return `probabilities` where all codes are masked: samples of a class are alike, and predicted once."""
        classes, places = labels.unique(return_inverse=True)
        return self.probabilities(generator, codes[: len(classes)], classes, weight)[places]


def draw_codes(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return codes (B, T), each where its place's cumulated `probabilities` (B, T, K) reach `uniform` (B, T).

    One number a place does for all K, where torch's own draw takes K of the global stream.
    """
    cumulated = probabilities.cumsum(dim=2)
    reached = torch.searchsorted(cumulated, (uniform * cumulated[..., -1])[..., None], right=True)[..., 0]
    return reached.clamp_max(probabilities.shape[2] - 1)
