"""What every sampler of codes does alike: checks, guided predictions, codes drawn by their probabilities."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from eqzoo.generators.base import Generator
from eqzoo.generators.maskgit import MaskGIT, check_schedule, codes_per_step
from eqzoo.generators.samplers.base import check_labels, check_steps
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS


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


@SAMPLERS.register_module()
class Confidence(CodeSampler):
    """Draw all masked codes, keep the surest, and predict the others again.

    How sure a code is, is its log-probability plus Gumbel noise that falls linearly to nothing;
    the weight of guidance rises linearly from 0. Defaults give the published numbers at 256
    pixels (arXiv 2310.14400, FID 6.80); those at 512 (7.26) are of 15 steps, guidance 2.8 and
    Gumbel temperature 7.

    Args:
        steps: See `CodeSampler`.
        guidance: w of the last step.
        gumbel_temperature: The noise's scale in the first step.
        temperature: See `CodeSampler`.
        schedule: How many codes each step keeps; see `codes_per_step`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        steps: int = 8,
        *,
        guidance: float = 3.0,
        gumbel_temperature: float = 4.5,
        temperature: float = 1.0,
        schedule: str = 'arccos',
    ) -> None:
        super().__init__(steps, temperature=temperature)
        check_schedule('Confidence.schedule', schedule)
        if gumbel_temperature < 0:
            raise ValueError(f'Confidence.gumbel_temperature must be at least 0, got {gumbel_temperature}.')
        self.guidance, self.gumbel_temperature, self.schedule = guidance, gumbel_temperature, schedule

    def draw(self, generator: MaskGIT, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the codes (B, T), T = h * w."""
        codes = self.first_codes(generator, labels)
        masked = torch.ones_like(codes, dtype=torch.bool)
        for step, count in enumerate(codes_per_step(self.schedule, self.steps, codes.shape[1])):
            done = step / (self.steps - 1) if self.steps > 1 else 1.0
            predict = self.probabilities if step else self.first_probabilities
            probabilities = predict(generator, codes, labels, self.guidance * done)
            uniform = streams.uniform(2, codes.shape[1], device=codes.device)
            drawn = draw_codes(probabilities, uniform[:, 0])
            noise = self.gumbel_temperature * (1 - done) * gumbel(uniform[:, 1])
            sure = probabilities.gather(2, drawn[..., None])[..., 0].log() + noise
            places = sure.masked_fill(~masked, -torch.inf).topk(count, dim=1).indices
            codes.scatter_(1, places, drawn.gather(1, places))
            masked.scatter_(1, places, False)
        return codes


def gumbel(uniform: Tensor) -> Tensor:
    """Return Gumbel noise for numbers uniform in [0, 1)."""
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp_min(tiny).log()).log()


@SAMPLERS.register_module()
class Halton(CodeSampler):
    """Draw the codes of the next places in a fixed order that covers the image evenly.

    Differs from the release, unless `redraw`: there each step also draws all earlier codes anew.
    Its network learned without label smoothing, and copies what it sees; one that learned with
    smoothing of 0.1 gives a tenth of them away in every step.

    Args:
        steps: See `CodeSampler`.
        guidance: w, in all steps.
        temperature: See `CodeSampler`.
        random_start: Whether each sample starts at a place of its own in the order.
        redraw: Whether codes that are there already are drawn again, as released.
    """

    def __init__(
        self,
        steps: int = 32,
        *,
        guidance: float = 2.0,
        temperature: float = 1.0,
        random_start: bool = False,
        redraw: bool = False,
    ) -> None:
        super().__init__(steps, temperature=temperature)
        self.guidance, self.random_start, self.redraw = guidance, random_start, redraw

    def draw(self, generator: MaskGIT, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return the codes (B, T), T = h * w."""
        codes = self.first_codes(generator, labels)
        count = codes.shape[1]
        start = streams.uniform(device=codes.device) * count if self.random_start else torch.zeros(len(codes))
        turns = (start.long().to(codes.device)[:, None] + torch.arange(count, device=codes.device)) % count
        order = halton_order(*generator.latent_shape).to(codes.device)[turns]
        first = 0
        for step, last in enumerate(codes_by_step(self.steps, count)):
            predict = self.probabilities if step else self.first_probabilities
            probabilities = predict(generator, codes, labels, self.guidance)
            drawn = draw_codes(probabilities, streams.uniform(count, device=codes.device))
            places = order[:, 0 if self.redraw else first : last]
            codes.scatter_(1, places, drawn.gather(1, places))
            first = last
        return codes


def codes_by_step(steps: int, num_codes: int) -> list[int]:
    """Return how many of an image's codes are there after each step: 1 - arccos(step / S) / (pi / 2) of them.

    Example:
        >>> codes_by_step(4, 64)
        [10, 21, 34, 64]
    """
    shares = (1 - math.acos((step + 1) / steps) / (math.pi / 2) for step in range(steps))
    return [max(step + 1, int(share * num_codes)) for step, share in enumerate(shares)]


def halton_order(rows: int, columns: int) -> Tensor:
    """Return the places (rows * columns,) of a grid, counted row by row, as Halton's points come to them.

    Points have the base 2 along rows and 3 along columns.

    Example:
        >>> halton_order(2, 2)
        tensor([2, 1, 0, 3])
    """
    order: dict[int, None] = {}
    number = 1  # the point 0 is not of the sequence
    while len(order) < rows * columns:
        row, column = int(_halton(number, 2) * rows), int(_halton(number, 3) * columns)
        order.setdefault(row * columns + column)
        number += 1
    return torch.tensor(list(order))


def _halton(number: int, base: int) -> float:
    """Return `number`'s digits in `base`, mirrored behind the point."""
    numerator, denominator = 0, 1
    while number:
        number, digit = divmod(number, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator / denominator
