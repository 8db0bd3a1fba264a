"""MaskGIT: a transformer that finds masked codes of an image (arXiv 2202.04200)."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.generators.base import Generator
from eqzoo.generators.label_dropout import check_probability, drop_labels
from eqzoo.generators.mask_schedules import check_schedule, masked_share, mean_masked_share
from eqzoo.randomness import SampleStreams
from eqzoo.registry import GENERATORS


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
