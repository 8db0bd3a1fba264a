"""Confidence decoding: in each step the codes stay of which the network is surest (arXiv 2202.04200, Sec. 3.2)."""

import torch
from torch import Tensor

from eqzoo.generators.mask_schedules import check_schedule, codes_per_step
from eqzoo.generators.maskgit import MaskGIT
from eqzoo.generators.samplers.codes import CodeSampler, draw_codes
from eqzoo.randomness import SampleStreams
from eqzoo.registry import SAMPLERS


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
