"""How many codes are masked: in training a random share, in sampling fewer with every step."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.generators.base import Generator
from eqzoo.generators.diffusion import check_probability, drop_labels
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS


class _Schedule(NamedTuple):
    """The masked share at r in [0, 1], falling from 1 to 0, and its mean over r."""

    share: Callable[[Tensor], Tensor]
    mean: float


_SCHEDULES = {
    'arccos': _Schedule(lambda r: torch.arccos(r) / (math.pi / 2), 2 / math.pi),
    'cosine': _Schedule(lambda r: torch.cos(r * math.pi / 2), 2 / math.pi),
    'linear': _Schedule(lambda r: 1 - r, 1 / 2),
    'square': _Schedule(lambda r: 1 - r**2, 2 / 3),
}


def check_schedule(where: str, name: str) -> None:
    """Refuse an unknown schedule.

    Raises:
        ValueError: Naming those there are.
    """
    if name not in _SCHEDULES:
        raise ValueError(f'{where}: got {name!r}; accepted are {", ".join(_SCHEDULES)}.')


def masked_share(name: str, r: Tensor) -> Tensor:
    """Return the share of codes that are masked at `r`, in [0, 1]: 1 at 0, 0 at 1 (arXiv 2202.04200, Sec. 3.3).

    Differs from Besnier and Chen's release: there 'square' is `r**2` in training, `1 - r**2` in sampling.

    Example:
        >>> masked_share('cosine', torch.tensor([0.0, 0.5, 1.0]))
        tensor([1.0000, 0.7071, 0.0000])
    """
    return _SCHEDULES[name].share(r).clamp_min(0)  # the cosine is rounded below


def mean_masked_share(name: str) -> float:
    """Return the mean of `masked_share` over r uniform in [0, 1]."""
    return _SCHEDULES[name].mean


def codes_per_step(name: str, steps: int, num_codes: int) -> list[int]:
    """Return how many of an image's codes each step of sampling fixes: few at first.

    They are as the masked share at r from 1 to 0, at least one a step, rounded, the last step
    taking the rest (Besnier and Chen's release). Where that leaves nothing to the last step,
    the largest give one back until it has its one.

    Args:
        name: Of the schedule.
        steps: S, at most `num_codes`.
        num_codes: h * w.

    Example:
        >>> codes_per_step('arccos', 8, 256)
        [1, 18, 26, 32, 38, 43, 48, 50]
    """
    if steps == 1:
        return [num_codes]
    share = masked_share(name, torch.linspace(1, 0, steps))
    counts = (share / share.sum() * num_codes).round().clamp_min(1).int().tolist()
    counts[-1] += num_codes - sum(counts)
    while counts[-1] < 1:
        largest = counts.index(max(counts))
        counts[largest] -= 1
        counts[-1] += 1
    return counts


@GENERATORS.register_module()
class MaskGIT(Generator):
    """A network that predicts an image's codes from those that are not masked.

    Defaults are those of Besnier and Chen's release (arXiv 2310.14400), which EQ-VAE's paper trains.

    Args:
        network: Such as a `MaskTransformer`.
        schedule: Of the share of codes that are masked, `masked_share` at r uniform in [0, 1]:
            'arccos', 'cosine', 'linear' or 'square'. Each code is masked with that probability.
        p_unconditional: How often a label is replaced by no class.
        label_smoothing: Probability that the targets spread over all codes.
        loss_on: The codes that are learned: 'all', as released, or 'masked', as published.

    Raises:
        ValueError: If an argument is out of range.
    """

    learns = 'codes'

    def __init__(
        self,
        network: nn.Module,
        *,
        schedule: str = 'arccos',
        p_unconditional: float = 0.1,
        label_smoothing: float = 0.1,
        loss_on: Literal['all', 'masked'] = 'all',
    ) -> None:
        super().__init__(network)
        check_schedule('MaskGIT.schedule', schedule)
        check_probability('MaskGIT.p_unconditional', p_unconditional)
        check_probability('MaskGIT.label_smoothing', label_smoothing)
        if loss_on not in ('all', 'masked'):
            raise ValueError(f"MaskGIT.loss_on must be 'all' or 'masked', got {loss_on!r}.")
        self.schedule, self.loss_on = schedule, loss_on
        self.p_unconditional, self.label_smoothing = p_unconditional, label_smoothing

    @property
    def num_codes(self) -> int:
        """K, the size of the codebook."""
        return self.network.num_codes

    def loss(self, batch: Mapping[str, Any], streams: SampleStreams) -> dict[str, Tensor]:
        """Return 'loss', the cross-entropy, and 'accuracy', the share of masked codes that are found.

        On masked codes alone, the loss is their sum over their expected number, so that a batch
        has the same gradient however it is cut.

        Args:
            batch: `codes` (B, h, w), int64, and `labels` (B,).
            streams: A sample's stream gives its share of masked codes, then these, then whether its
                label is left out.
        """
        codes = batch['codes']
        share = masked_share(self.schedule, streams.uniform())
        masked = (streams.uniform(*codes.shape[1:]) < share[:, None, None]).to(codes.device)
        labels = drop_labels(batch['labels'], streams.uniform(), self.p_unconditional, self.num_classes)
        with streams.for_modules(codes.device):
            logits = self.network(codes.masked_fill(masked, self.network.mask_code), labels).float()
        target, masked = codes.flatten(1), masked.flatten(1)
        losses = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), label_smoothing=self.label_smoothing, reduction='none'
        ).view_as(target)
        if self.loss_on == 'masked':
            losses = losses * masked / mean_masked_share(self.schedule)
        with torch.no_grad():
            found = (logits.argmax(dim=2) == target) & masked
            accuracy = (found.sum(dim=1) / masked.sum(dim=1).clamp_min(1)).mean()
        return {'loss': losses.mean(), 'accuracy': accuracy}
