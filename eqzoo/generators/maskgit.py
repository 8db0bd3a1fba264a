"""MaskGIT: a network trained to predict masked codes, and the schedules of masking (arXiv 2202.04200, 2310.14400)."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.generators.base import Generator, drop_labels
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS
from eqzoo.registry.ranges import Probability

# the masked share at r in [0, 1], which falls from 1 to 0, and its mean over r
_SHARES = {
    'arccos': lambda r: torch.arccos(r) / (math.pi / 2),
    'cosine': lambda r: torch.cos(r * math.pi / 2),
    'linear': lambda r: 1 - r,
    'square': lambda r: 1 - r**2,
}
_MEAN_SHARES = {'arccos': 2 / math.pi, 'cosine': 2 / math.pi, 'linear': 1 / 2, 'square': 2 / 3}


@GENERATORS.register_module()
class MaskGIT(Generator):
    """A network that predicts an image's codes from its unmasked codes.

    Defaults are those of Besnier and Chen's release (arXiv 2310.14400), which EQ-VAE's paper trains.

    Args:
        network: For instance a `MaskTransformer`.
        schedule: 'arccos', 'cosine', 'linear' or 'square'. Each code is masked with the probability `masked_share`
            at r, which is drawn for each image, uniform in [0, 1].
        p_unconditional: Probability that a label is replaced by no class.
        label_smoothing: Share of the target's probability that is spread over all codes.
        loss_on: Codes that the loss is computed on: 'all', as released, or 'masked', as published.

    Raises:
        ValueError: If an argument is out of range.
    """

    learns = 'codes'

    def __init__(
        self,
        network: nn.Module,
        *,
        schedule: str = 'arccos',
        p_unconditional: Probability = 0.1,
        label_smoothing: Probability = 0.1,
        loss_on: Literal['all', 'masked'] = 'all',
    ) -> None:
        super().__init__(network)
        check_schedule('MaskGIT.schedule', schedule)
        self.schedule, self.loss_on = schedule, loss_on
        self.p_unconditional, self.label_smoothing = p_unconditional, label_smoothing

    @property
    def num_codes(self) -> int:
        """K, the size of the codebook."""
        return self.network.num_codes

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss', the cross-entropy in nats, and 'accuracy', the share of masked codes predicted correctly.

        Args:
            batch: `codes` (B, h, w), int64, and `labels` (B,).
            streams: Each sample's stream gives its share of masked codes, then which codes are masked, then
                whether its label is dropped.
        """
        codes = batch['codes']
        share = masked_share(self.schedule, streams.uniform())
        masked = (streams.uniform(*codes.shape[1:]) < share[:, None, None]).to(codes.device, non_blocking=True)
        labels = drop_labels(batch['labels'], streams.uniform(), self.p_unconditional, self.num_classes)
        with streams.for_modules(codes.device):
            logits = self.network(codes.masked_fill(masked, self.network.mask_code), labels).float()
        target, masked = codes.flatten(1), masked.flatten(1)
        losses = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), label_smoothing=self.label_smoothing, reduction='none'
        ).view_as(target)
        if self.loss_on == 'masked':
            # over the expected number of masked codes, not the actual one: gradients then add up over micro-batches
            losses = losses * masked / mean_masked_share(self.schedule)
        with torch.no_grad():
            found = (logits.argmax(dim=2) == target) & masked
            accuracy = (found.sum(dim=1) / masked.sum(dim=1).clamp_min(1)).mean()
        return {'loss': losses.mean(), 'accuracy': accuracy}


def check_schedule(where: str, name: str) -> None:
    """Raise a `ValueError` that names `where` unless `name` is a masking schedule."""
    if name not in _SHARES:
        raise ValueError(f'{where}: got {name!r}; expected one of {", ".join(_SHARES)}.')


def masked_share(name: str, r: Tensor) -> Tensor:
    """Return the share of codes that are masked at `r` in [0, 1]: 1 at 0, 0 at 1 (arXiv 2202.04200, Sec. 3.3).

    Differs from Besnier and Chen's release: there 'square' is `r**2` in training and `1 - r**2` in sampling.

    Example:
        >>> masked_share('cosine', torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000, 0.7071, 0.0000])
    """
    return _SHARES[name](r).clamp_min(0)  # at r = 1 the cosine is rounded to below 0


def mean_masked_share(name: str) -> float:
    """Return the mean of `masked_share` over r uniform in [0, 1]."""
    return _MEAN_SHARES[name]


def codes_per_step(name: str, steps: int, num_codes: int) -> list[int]:
    """Return how many of an image's codes each sampling step fixes; few at first.

    As in Besnier and Chen's release, the counts follow the masked share at r from 1 to 0, rounded, at least one
    per step, and the last step takes the rest. If no code is left for the last step, the largest steps
    give up one each.

    Args:
        name: The schedule.
        steps: S. With fewer codes than steps, the first steps fix none.
        num_codes: h * w.

    Example:
        >>> codes_per_step('arccos', 8, 256)
        [1, 18, 26, 32, 38, 43, 48, 50]
    """
    if steps == 1 or num_codes == 0:
        return [num_codes] * steps
    share = masked_share(name, torch.linspace(1, 0, steps))
    counts = (share / share.sum() * num_codes).round().clamp_min(1).int().tolist()
    counts[-1] += num_codes - sum(counts)
    while counts[-1] < 1:
        counts[counts.index(max(counts))] -= 1
        counts[-1] += 1
    return counts
