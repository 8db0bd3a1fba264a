"""Samplers of codes for MaskGIT: `Confidence` (arXiv 2202.04200) and `Halton`, as in Besnier and Chen's releases."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from eqzoo.generators.base import Generator, check_labels
from eqzoo.generators.maskgit import MaskGIT, check_schedule, codes_per_step
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS
from eqzoo.registry.ranges import NonNegativeFloat, PositiveFloat, PositiveInt


class CodeSampler(ABC):
    """Base class: replaces masks by codes, some in each step.

    Guidance is (1 + w) cond - w uncond, in logits, with a weight w for each step. A step of weight 0 needs
    no unconditional prediction.

    Args:
        steps: Number of predictions, each of which fixes some codes.
        temperature: Divides the logits. The release's "softmax temperature" multiplies them.

    Raises:
        ValueError: If there are no steps, or the temperature is not positive.
    """

    def __init__(self, steps: int, *, temperature: float = 1.0) -> None:
        self.steps, self.temperature = steps, temperature

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps."""
        return {**arguments, 'steps': 2}

    def check(self, generator: Generator) -> None:
        """Check that this sampler is for `generator`.

        Raises:
            ValueError: If the generator makes no codes, or fewer codes than there are steps.
        """
        if not isinstance(generator, MaskGIT):
            raise ValueError(
                f'{type(self).__name__} draws codes, for MaskGIT; {type(generator).__name__} makes latents; DDPM, DDIM '
                'and DPMSolver are for DiT, ODE and SDE for SiT and REPA.'
            )
        rows, columns = generator.latent_shape
        if self.steps > rows * columns:
            raise ValueError(
                f'{type(self).__name__}.steps: got {self.steps}; expected 1 to {rows * columns}, the number of codes.'
            )

    @torch.no_grad()
    def __call__(self, generator: MaskGIT, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return codes (B, h, w), int64, 0 to K - 1.

        Args:
            generator: In evaluation mode.
            labels: (B,), 0 to N; N stands for no class.
            streams: One random stream per sample; samples do not depend on their batch.

        Raises:
            ValueError: If a label is out of range, or the generator is not for this sampler.
        """
        self.check(generator)
        check_labels(labels.cpu(), generator.num_classes)
        return self.draw(generator, labels, streams).view(len(labels), *generator.latent_shape)

    @abstractmethod
    def draw(self, generator: MaskGIT, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return codes (B, T), T = h * w."""

    def first_codes(self, generator: MaskGIT, labels: Tensor) -> Tensor:
        """Return codes (B, T) that are all masked."""
        rows, columns = generator.latent_shape
        return torch.full((len(labels), rows * columns), generator.network.mask_code, device=labels.device)

    def probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Return the probabilities (B, T, K), float32, of each code at each place.

        Differs from the release: the mask is left out. There it may be drawn, and is decoded as the last code.

        Args:
            generator: The generator.
            codes: (B, T).
            labels: (B,).
            weight: w of the guidance.

        Raises:
            FloatingPointError: If a logit is NaN or infinite: a code would be drawn all the same.
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
        probabilities = (logits[..., : generator.num_codes] / self.temperature).softmax(dim=2)
        if probabilities.isnan().any():
            raise FloatingPointError(
                f'{type(self).__name__}: NaN or infinite values in the logits of the network. The weights are damaged, '
                'training diverged, or the guidance is too large.'
            )
        return probabilities

    def first_probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Return `probabilities` for all-masked codes, with one prediction per class: they depend on nothing else."""
        classes, places = labels.unique(return_inverse=True)
        return self.probabilities(generator, codes[: len(classes)], classes, weight)[places]


@SAMPLERS.register_module()
class Confidence(CodeSampler):
    """Draw all masked codes in each step, keep those of the highest confidence, and predict the others again.

    Confidence is the log-probability plus Gumbel noise, whose scale falls linearly to 0 while the weight of the
    guidance rises linearly from 0. Defaults are those of the published FID at 256 pixels (arXiv 2310.14400, 6.80);
    at 512 pixels (7.26) it is 15 steps, guidance 2.8 and Gumbel temperature 7.

    Args:
        steps: See `CodeSampler`.
        guidance: w of the last step.
        gumbel_temperature: Scale of the noise in the first step.
        temperature: See `CodeSampler`.
        schedule: Masking schedule that decides how many codes each step keeps; see `codes_per_step`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        steps: PositiveInt = 8,
        *,
        guidance: float = 3.0,
        gumbel_temperature: NonNegativeFloat = 4.5,
        temperature: PositiveFloat = 1.0,
        schedule: str = 'arccos',
    ) -> None:
        super().__init__(steps, temperature=temperature)
        check_schedule('Confidence.schedule', schedule)
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
            confidence = probabilities.gather(2, drawn[..., None])[..., 0].log() + noise
            places = confidence.masked_fill(~masked, -torch.inf).topk(count, dim=1).indices
            codes.scatter_(1, places, drawn.gather(1, places))
            masked.scatter_(1, places, False)
        return codes


@SAMPLERS.register_module()
class Halton(CodeSampler):
    """Draw codes in a fixed order of places, Halton's sequence, which covers the image evenly.

    Differs from the release, unless `redraw` is set: there each step also draws all earlier codes again. The
    release's network was trained without label smoothing and copies codes that it sees; one trained with a
    smoothing of 0.1 would change a tenth of them in every step.

    Args:
        steps: See `CodeSampler`.
        guidance: w of all steps.
        temperature: See `CodeSampler`.
        random_start: Whether each sample starts at its own random place in the order.
        redraw: Whether each step also draws earlier codes again, as released.
    """

    def __init__(
        self,
        steps: PositiveInt = 32,
        *,
        guidance: float = 2.0,
        temperature: PositiveFloat = 1.0,
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
        for step, last in enumerate(codes_after_steps(self.steps, count)):
            predict = self.probabilities if step else self.first_probabilities
            probabilities = predict(generator, codes, labels, self.guidance)
            drawn = draw_codes(probabilities, streams.uniform(count, device=codes.device))
            places = order[:, 0 if self.redraw else first : last]
            codes.scatter_(1, places, drawn.gather(1, places))
            first = last
        return codes


def draw_codes(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw codes (B, T) from `probabilities` (B, T, K) by inverting their cumulative sums at `uniform` (B, T).

    This needs one random number per place. `torch.multinomial` needs K, and takes one generator for the
    whole batch, not one per sample.
    """
    cumulated = probabilities.cumsum(dim=2)
    # right=True: at uniform = 0 a leading code of probability 0 is skipped; sums end at 1 but for rounding
    reached = torch.searchsorted(cumulated, (uniform * cumulated[..., -1])[..., None], right=True)[..., 0]
    return reached.clamp_max(probabilities.shape[2] - 1)


def gumbel(uniform: Tensor) -> Tensor:
    """Turn numbers that are uniform in [0, 1) into standard Gumbel noise."""
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-uniform.clamp_min(tiny).log()).log()


def codes_after_steps(steps: int, num_codes: int) -> list[int]:
    """Return how many codes are drawn after each step s of S: the share 1 - arccos(s / S) / (pi / 2).

    Example:
        >>> codes_after_steps(4, 64)
        [10, 21, 34, 64]
    """
    shares = (1 - math.acos((step + 1) / steps) / (math.pi / 2) for step in range(steps))
    return [max(step + 1, int(share * num_codes)) for step, share in enumerate(shares)]


def halton_order(rows: int, columns: int) -> Tensor:
    """Return the places (rows * columns,) of a grid, numbered row by row, in the order of Halton's sequence.

    Points have base 2 for the row and base 3 for the column; each is rounded down to a place, and repeats are skipped.

    Example:
        >>> halton_order(2, 2)
        tensor([2, 1, 0, 3])
    """
    order: dict[int, None] = {}
    number = 1  # the sequence begins after the point 0
    while len(order) < rows * columns:
        row, column = int(_halton(number, 2) * rows), int(_halton(number, 3) * columns)
        order.setdefault(row * columns + column)
        number += 1
    return torch.tensor(list(order))


def _halton(number: int, base: int) -> float:
    """Return the radical inverse: the digits of `number` in `base`, mirrored at the point."""
    numerator, denominator = 0, 1
    while number:
        number, digit = divmod(number, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator / denominator
