"""Codebook usage and perplexity."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqzoo.evaluators.base import AutoencoderView, Evaluator
from eqzoo.registry import EVALUATORS


@EVALUATORS.register_module()
class CodebookUsage(Evaluator):
    """`codebook/usage` and `codebook/perplexity` of a `VQAutoencoder` over all images.

    Usage is the share of the K codes chosen at least once; perplexity is exp of the entropy
    of the choice, from 1 (one code) to K (all equally often). Both grow with the number of images.
    """

    def update(self, view: AutoencoderView) -> None:
        """Count a batch's codes.

        Raises:
            ValueError: If the autoencoder has no codebook.
        """
        if not view.autoencoder.has_codebook:
            name = type(view.autoencoder).__name__
            raise ValueError(f'CodebookUsage: {name} has no codebook; leave the evaluator out.')
        counts = torch.bincount(view.indices.flatten(), minlength=view.autoencoder.num_codes)
        self.add('codes', counts[None])

    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return usage and perplexity."""
        counts = sums['codes']
        return {
            'codebook/usage': (counts > 0).double().mean().item(),
            'codebook/perplexity': perplexity(counts).item(),
        }

    def card(self) -> dict[str, Any]:
        """Return the way codes are chosen."""
        return {'codes': 'nearest to the features of untransformed images'}


def perplexity(counts: Tensor) -> Tensor:
    """Return exp of the entropy of normalised `counts` (K,): 1 if one code is used, K if all are used equally often.

    Example:
        >>> perplexity(torch.tensor([3.0, 3.0, 0.0]))
        tensor(2.)
    """
    shares = counts / counts.sum()
    return torch.special.entr(shares).sum().exp()
