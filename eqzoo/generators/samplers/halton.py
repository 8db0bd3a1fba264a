"""Sampling in Halton's order: codes that are fixed together lie far apart (arXiv 2503.17076)."""

import math

import torch
from torch import Tensor

from eqzoo.generators.maskgit import MaskGIT
from eqzoo.generators.samplers.codes import CodeSampler, draw_codes
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS


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
