"""Samplers of codes for MaskGIT: `Confidence` (arXiv 2202.04200) and `Halton` (arXiv 2503.17076), as released."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eqzoo.generators.base import Generator, check_labels
from eqzoo.generators.maskgit import MaskGIT, check_schedule, codes_per_step
from eqzoo.precision import any_kernels
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS
from eqzoo.registry.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class CodeSampler(ABC):
    """Base class: replaces masks by codes, some in each step.

    Guidance is (1 + w) cond - w uncond, in logits, with a weight w for each step. A step of weight 0 needs
    no unconditional prediction.

    Args:
        steps: Number of predictions, each of which fixes some codes.
        temperature: Divides the logits. The release's "softmax temperature" multiplies them.
        top_k: Number of the most probable codes at each place that may be drawn; None for all.

    Raises:
        ValueError: If there are no steps, or the temperature is not positive.
    """

    def __init__(self, steps: int, *, temperature: float = 1.0, top_k: int | None = None) -> None:
        self.steps, self.temperature, self.top_k = steps, temperature, top_k

    @classmethod
    def smoke(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for two steps."""
        return {**arguments, 'steps': 2}

    def check(self, generator: Generator) -> None:
        """Check that this sampler is for `generator`.

        Raises:
            ValueError: If the generator makes no codes, fewer codes than there are steps, or has a smaller codebook
                than `top_k`.
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
        if self.top_k is not None and self.top_k > generator.num_codes:
            raise ValueError(
                f'{type(self).__name__}.top_k: got {self.top_k:,}; expected 1 to {generator.num_codes:,}, the size of '
                'the codebook, or None.'
            )

    @torch.no_grad()
    def __call__(
        self, generator: MaskGIT, labels: Tensor, streams: SampleStreams, codes: Tensor | None = None
    ) -> Tensor:
        """Return codes (B, h, w), int64, 0 to K - 1.

        Args:
            generator: In evaluation mode.
            labels: (B,), 0 to N; N stands for no class.
            streams: One random stream per sample; samples do not depend on their batch.
            codes: Codes (B, h, w) to begin with, for inpainting: those from 0 to K - 1 are kept, and those that are K,
                the network's `mask_code`, are drawn. None: all are drawn.

        Raises:
            ValueError: If a label or a code is out of range, or the generator is not for this sampler.
        """
        self.check(generator)
        check_labels(labels.cpu(), generator.num_classes)
        shape, mask = (len(labels), *generator.latent_shape), generator.network.mask_code
        if codes is None:
            codes = torch.full(shape, mask, device=labels.device)
        elif tuple(codes.shape) != shape or codes.min() < 0 or codes.max() > mask:
            raise ValueError(
                f'{type(self).__name__}.codes: got shape {tuple(codes.shape)} with values from {int(codes.min())} to '
                f'{int(codes.max())}; expected {shape}, 0 to {mask - 1}, or {mask} for a code that is drawn.'
            )
        return self.draw(generator, codes.flatten(1), labels, streams).view(shape)

    @abstractmethod
    def draw(self, generator: MaskGIT, codes: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return `codes` (B, T), T = h * w, with the masked ones drawn."""

    def first_prediction(self, generator: MaskGIT, codes: Tensor) -> Callable[..., Tensor]:
        """Return the method for the first step's probabilities, the faster one if all `codes` (B, T) are masked."""
        is_empty = bool((codes == generator.network.mask_code).all())
        return self.first_probabilities if is_empty else self.probabilities

    def probabilities(
        self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float, temperature: float | None = None
    ) -> Tensor:
        """Return the probabilities (B, T, K), float32, of each code at each place.

        Differs from the release: the mask is left out. There it may be drawn, and is decoded as the last code.

        Args:
            generator: The generator.
            codes: (B, T).
            labels: (B,).
            weight: w of the guidance.
            temperature: Instead of the sampler's.

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
        logits = logits[..., : generator.num_codes] / (temperature or self.temperature)
        if self.top_k is not None:
            most, places = logits.topk(self.top_k, dim=2)
            logits = torch.full_like(logits, -torch.inf).scatter(2, places, most)
        probabilities = logits.softmax(dim=2)
        if probabilities.isnan().any():
            raise FloatingPointError(
                f'{type(self).__name__}: NaN or infinite values in the logits of the network. The weights are damaged, '
                'training diverged, or the guidance is too large.'
            )
        return probabilities

    def first_probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, *of_step: float) -> Tensor:
        """Return `probabilities` for all-masked codes, with one prediction per class: they depend on nothing else."""
        classes, places = labels.unique(return_inverse=True)
        return self.probabilities(generator, codes[: len(classes)], classes, *of_step)[places]


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

    def draw(self, generator: MaskGIT, codes: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return `codes` (B, T), T = h * w, with the masked ones drawn."""
        masked = codes == generator.network.mask_code
        counts = torch.tensor(
            [codes_per_step(self.schedule, self.steps, count) for count in masked.sum(dim=1).tolist()]
        )
        first = self.first_prediction(generator, codes)
        for step, count in enumerate(counts.T):
            done = step / (self.steps - 1) if self.steps > 1 else 1.0
            predict = self.probabilities if step else first
            probabilities = predict(generator, codes, labels, self.guidance * done)
            uniform = streams.uniform(2, codes.shape[1], device=codes.device)
            drawn = draw_codes(probabilities, uniform[:, 0])
            noise = self.gumbel_temperature * (1 - done) * gumbel(uniform[:, 1])
            confidence = probabilities.gather(2, drawn[..., None])[..., 0].log() + noise
            # as many as the sample that fixes most needs, in order of confidence; the others' last ones stay masked
            places = confidence.masked_fill(~masked, -torch.inf).topk(int(count.max()), dim=1).indices
            stays = (torch.arange(places.shape[1]) >= count[:, None]).to(codes.device)
            codes = codes.scatter(1, places, torch.where(stays, codes.gather(1, places), drawn.gather(1, places)))
            masked = masked.scatter(1, places, stays & masked.gather(1, places))
        return codes


@SAMPLERS.register_module()
class Halton(CodeSampler):
    """Draw codes in a fixed order of places, Halton's sequence, which covers the image evenly (arXiv 2503.17076).

    As in the release since July 2025. Before, each step also drew all earlier codes again: `redraw`. A network that was
    trained without label smoothing copies codes that it sees; one trained with a smoothing of 0.1 would change a tenth
    of them in every step.

    The release's options are `steps` (step), `guidance` (w), `random_start` (randomize), `top_k`, `hot_steps`
    (temp_warmup), and a ramp of its factors on the logits, from sm_temp_min to sm_temp_max to the power temp_pow p:
    `temperature` is sm_temp_min**-p, `last_temperature` sm_temp_max**-p and `ramp_power` p. Its sched_pow is not used
    there either.

    Args:
        steps: See `CodeSampler`.
        guidance: w of all steps.
        temperature: See `CodeSampler`; of the first step, where there is a ramp.
        last_temperature: Temperature of the last step; None for the same in all.
        ramp_power: p. The p-th root of the temperature's inverse is linear in the step.
        hot_steps: Number of first steps whose temperature is doubled.
        top_k: See `CodeSampler`.
        random_start: Whether each sample starts at its own random place in the order.
        redraw: Whether each step also draws earlier codes again, as released before July 2025.

    Example:
        >>> [round(each, 3) for each in Halton(3, last_temperature=1 / 1.2, hot_steps=1).temperatures()]
        [2.0, 0.909, 0.833]
    """

    def __init__(
        self,
        steps: PositiveInt = 32,
        *,
        guidance: float = 2.0,
        temperature: PositiveFloat = 1.0,
        last_temperature: PositiveFloat | None = None,
        ramp_power: PositiveFloat = 1.0,
        hot_steps: NonNegativeInt = 0,
        top_k: PositiveInt | None = None,
        random_start: bool = False,
        redraw: bool = False,
    ) -> None:
        super().__init__(steps, temperature=temperature, top_k=top_k)
        self.guidance, self.random_start, self.redraw = guidance, random_start, redraw
        self.last_temperature, self.ramp_power, self.hot_steps = last_temperature, ramp_power, hot_steps

    def temperatures(self) -> list[float]:
        """Return the temperature of each step."""
        found = [self.temperature] * self.steps
        if self.last_temperature is not None:
            first, last = (each ** (-1 / self.ramp_power) for each in (self.temperature, self.last_temperature))
            roots = torch.linspace(first, last, self.steps, dtype=torch.float64)
            found = (roots**-self.ramp_power).tolist()
        return [2 * each if step < self.hot_steps else each for step, each in enumerate(found)]

    def draw(self, generator: MaskGIT, codes: Tensor, labels: Tensor, streams: SampleStreams) -> Tensor:
        """Return `codes` (B, T), T = h * w, with the masked ones drawn."""
        count = codes.shape[1]
        start = streams.uniform(device=codes.device) * count if self.random_start else torch.zeros(len(codes))
        turns = (start.long().to(codes.device)[:, None] + torch.arange(count, device=codes.device)) % count
        order = halton_order(*generator.latent_shape).to(codes.device)[turns]
        step_of = self._step_of_each(codes == generator.network.mask_code, order)
        first = self.first_prediction(generator, codes)
        for step, temperature in enumerate(self.temperatures()):
            predict = self.probabilities if step else first
            probabilities = predict(generator, codes, labels, self.guidance, temperature)
            drawn = draw_codes(probabilities, streams.uniform(count, device=codes.device))
            codes = torch.where(step_of <= step if self.redraw else step_of == step, drawn, codes)
        return codes

    def _step_of_each(self, masked: Tensor, order: Tensor) -> Tensor:
        """Return the step (B, T) that draws each place, `steps` if none does, for places (B, T) in drawing order."""
        masked = masked.gather(1, order)
        limits = [codes_after_steps(self.steps, count) for count in masked.sum(dim=1).tolist()]
        rank = masked.long().cumsum(dim=1) - 1  # among those that are drawn
        steps = torch.searchsorted(torch.tensor(limits, device=order.device), rank, right=True)
        steps = steps.masked_fill(~masked, self.steps)
        return torch.empty_like(order).scatter_(1, order, steps)


def draw_codes(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw codes (B, T) from `probabilities` (B, T, K) by inverting their cumulative sums at `uniform` (B, T).

    This needs one random number per place. `torch.multinomial` needs K, and takes one generator for the
    whole batch, not one per sample.
    """
    with any_kernels():
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
