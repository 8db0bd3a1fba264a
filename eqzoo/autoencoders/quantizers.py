"""Quantizers of `VQAutoencoder`: averaged and normalised codebooks, and FSQ and LFQ, which have no codebook.

All have the interface of taming's quantizer, which `VQAutoencoder` has without one of these.
"""

import math
from abc import abstractmethod
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.distributed import all_reduce, mean_over_processes
from eqzoo.registry import QUANTIZERS
from eqzoo.registry.ranges import Decay, Filled, NonNegativeFloat, PositiveFloat, PositiveInt, Range

_NumCodes = Annotated[int, Range(at_least=2)]

_FSQ_MARGIN = 1e-3  # of FSQ's paper, appendix A.1: keeps bounded values inside the grid when they are rounded
_LARGEST_INDEX = 2**62


class Quantized(NamedTuple):
    """The result of a quantizer, in taming's order.

    Args:
        latents: (B, C, h, w), each cell a code; gradients pass straight through to the features.
        loss: The quantizer's own loss, a scalar.
        info: Two empty places, and the indices (B, h, w) of the codes, int64.
    """

    latents: Tensor
    loss: Tensor
    info: tuple[None, None, Tensor]


class Quantizer(nn.Module):
    """Base class: replaces each cell of a feature map by one of K codes.

    A subclass implements `assign` and `codes`.

    Args:
        num_codes: K.
        channels: C, the length of a code.
    """

    def __init__(self, num_codes: int, channels: int) -> None:
        super().__init__()
        self.num_codes, self.channels = num_codes, channels

    @property
    def codebook(self) -> Tensor | None:
        """The table of codes (K, C) as it is stored; None if codes are computed."""
        return None

    @abstractmethod
    def assign(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the codes (..., C) of `features` (..., C), their indices (...) and the loss, a scalar."""

    @abstractmethod
    def codes(self, indices: Tensor) -> Tensor:
        """Return the codes (..., C) of `indices` (...), int64, 0 to K - 1."""

    def forward(self, z: Tensor) -> Quantized:
        """Quantise features `z` (B, C, h, w)."""
        codes, indices, loss = self.assign(z.movedim(1, -1))
        return Quantized(codes.movedim(-1, 1).contiguous(), loss, (None, None, indices))

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the codes of flat `indices` as (B, C, h, w), where `shape` is (B, h, w, C), as taming's does."""
        return self.codes(indices).view(shape).movedim(-1, 1).contiguous()

    def replace_codes(self, places: Tensor, features: Tensor) -> None:
        """Replace the codes at `places` (M,) of the table by `features` (M, C)."""
        self.codebook[places] = features.to(self.codebook)

    def complete_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights `state` of a file with those that follow from them, if the file does not have them."""
        return state

    def finish_step(self) -> None:
        """Update the table after a training step, if it is no weight of the optimizer; all processes call it."""

    def drop_step(self) -> None:
        """Forget the features of a training step whose update is left out."""


@QUANTIZERS.register_module()
class EMACodebook(Quantizer):
    """A codebook of moving averages of the features that chose each code, instead of a codebook loss.

    With n_i features that choose code i in a step, of sum s_i over all processes (arXiv 1711.00937, appendix A.1;
    VQ-VAE-2, arXiv 1906.00446): N_i ← γ N_i + (1 − γ) n_i, m_i ← γ m_i + (1 − γ) s_i, e_i = m_i / N_i, where N_i is
    smoothed as (N_i + ε) / (ΣN + K ε) ΣN. Differs from taming's: N starts at 1 instead of 0, so that codes that are not
    chosen in the first steps stay where they are. The averages are updated once per step, not in every forward pass.
    Table, N and m are weights without gradients: a moving average of the autoencoder has its own.

    Args:
        num_codes: K.
        channels: C.
        decay: γ.
        epsilon: ε.
        beta: Weight of the commitment term, the mean of ‖sg(e) − z‖².

    Example:
        >>> codebook = EMACodebook(16, 4)
        >>> codebook(torch.randn(1, 4, 2, 2)).latents.shape
        torch.Size([1, 4, 2, 2])
    """

    def __init__(
        self,
        num_codes: _NumCodes,
        channels: PositiveInt,
        *,
        decay: Decay = 0.99,
        epsilon: PositiveFloat = 1e-5,
        beta: NonNegativeFloat = 0.25,
    ) -> None:
        super().__init__(num_codes, channels)
        self.decay, self.epsilon, self.beta = decay, epsilon, beta
        self.embedding = nn.Embedding(num_codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / num_codes, 1 / num_codes)  # as taming's
        self.counts = nn.Parameter(torch.ones(num_codes))
        self.sums = nn.Parameter(self.embedding.weight.detach().clone())
        self.requires_grad_(False)
        self._step: Tensor | None = None  # n and s (K, 1 + C) of the step so far, float32

    @property
    def codebook(self) -> Tensor:
        """The table (K, C)."""
        return self.embedding.weight

    def assign(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the nearest codes of `features` (..., C); in training, remember them for the averages."""
        indices = _nearest(features, self.codebook)
        codes = self.codes(indices)
        if self.training and torch.is_grad_enabled():
            self._add(indices.flatten(), features.detach().flatten(0, -2))
        return _straight_through(features, codes), indices, self.beta * F.mse_loss(features, codes)

    def codes(self, indices: Tensor) -> Tensor:
        """Return the codes (..., C) of `indices` (...)."""
        return self.embedding(indices)

    def complete_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add averages to a codebook that was trained without, as if each code had been chosen once."""
        table = state.get('embedding.weight')
        if table is None or 'counts' in state or 'sums' in state:
            return state
        return {**state, 'counts': table.new_ones(len(table)), 'sums': table.clone()}

    @torch.no_grad()
    def finish_step(self) -> None:
        """Move the averages by the features of the step, of all its micro-batches and processes."""
        if self._step is None:
            return
        of_all, self._step = self._step, None
        all_reduce(of_all)
        self.counts.lerp_(of_all[:, 0].to(self.counts), 1 - self.decay)
        self.sums.lerp_(of_all[:, 1:].to(self.sums), 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) / (total + self.num_codes * self.epsilon) * total
        self.codebook.copy_(self.sums / smoothed[:, None])

    def drop_step(self) -> None:
        """Forget the features of a training step whose update is left out."""
        self._step = None

    @torch.no_grad()
    def replace_codes(self, places: Tensor, features: Tensor) -> None:
        """Replace the codes at `places` (M,) by `features` (M, C), as if each had been chosen once."""
        super().replace_codes(places, features)
        self.counts[places] = 1
        self.sums[places] = features.to(self.sums)

    def _add(self, indices: Tensor, features: Tensor) -> None:
        """Count the choices `indices` (N,) of `features` (N, C)."""
        if self._step is None:
            self._step = features.new_zeros(self.num_codes, 1 + self.channels)
        self._step.index_add_(0, indices, torch.cat([torch.ones_like(features[:, :1]), features], dim=1))


@QUANTIZERS.register_module()
class NormalizedCodebook(Quantizer):
    """A codebook of directions: features and codes are divided by their norms before they are compared.

    As in ViT-VQGAN (arXiv 2110.04627, Sec. 3.2) and LlamaGen's tokenizers (arXiv 2406.06525, Sec. 3.1), with short
    codes of 8 numbers. The loss is the mean of ‖e − sg(z)‖² + β ‖sg(e) − z‖² for normalised e and z. Its table is
    called `directions`, not `embedding`: the same numbers are other codes in a quantizer that does not normalise.

    Args:
        num_codes: K.
        channels: C.
        beta: β, the weight of the commitment term.
    """

    def __init__(self, num_codes: _NumCodes, channels: PositiveInt, *, beta: NonNegativeFloat = 0.25) -> None:
        super().__init__(num_codes, channels)
        self.beta = beta
        self.directions = nn.Embedding(num_codes, channels)
        with torch.no_grad():
            self.directions.weight.uniform_(-1, 1)
            self.directions.weight.copy_(F.normalize(self.directions.weight, dim=1))

    @property
    def codebook(self) -> Tensor:
        """The table (K, C); of any lengths."""
        return self.directions.weight

    def assign(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the codes of the nearest directions to `features` (..., C)."""
        features, table = F.normalize(features, dim=-1), F.normalize(self.codebook, dim=1)
        indices = _nearest(features, table)
        codes = table[indices]
        loss = F.mse_loss(codes, features.detach()) + self.beta * F.mse_loss(features, codes.detach())
        return _straight_through(features, codes), indices, loss

    def codes(self, indices: Tensor) -> Tensor:
        """Return the codes (..., C) of `indices` (...), of length 1."""
        return F.normalize(self.directions(indices), dim=-1)


@QUANTIZERS.register_module()
class FSQ(Quantizer):
    """Finite scalar quantisation: each channel is bounded and rounded to a few levels (arXiv 2309.15505).

    A channel of L levels is bounded as r tanh(z + s) − o, with r = (L − 1)(1 − ε) / 2, o = 1/2 and s = tan(o / r) for
    an even L, otherwise 0, then rounded, and divided by ⌊L / 2⌋: codes are in [-1, 1] (Sec. 3 and the listing of
    appendix A.1). K is the product of the levels; channel i counts with the product of those before it. It has no
    codebook, no loss and no weights.

    Args:
        levels: L of each channel. The paper's choices: (8, 6, 5) for K about 2**8, (8, 5, 5, 5) for 2**10,
            (7, 5, 5, 5, 5) for 2**12, (8, 8, 8, 6, 5) for 2**14, (8, 8, 8, 5, 5, 5) for 2**16.

    Raises:
        ValueError: If there are too many codes for an index of 64 bits.

    Example:
        >>> fsq = FSQ((8, 5, 5, 5))
        >>> fsq.num_codes, fsq.codes(torch.tensor(0)).tolist()
        (1000, [-1.0, -1.0, -1.0, -1.0])
    """

    def __init__(self, levels: Filled[_NumCodes]) -> None:
        if math.prod(levels) > _LARGEST_INDEX:
            raise ValueError(f'FSQ.levels: got {tuple(levels)}, whose product is above {_LARGEST_INDEX}; take fewer.')
        super().__init__(math.prod(levels), len(levels))
        # kept in files: the weights around it do not show what the levels are
        self.register_buffer('levels', torch.tensor(list(levels)))
        bases = [math.prod(levels[:channel]) for channel in range(len(levels))]
        self.register_buffer('bases', torch.tensor(bases), persistent=False)

    def assign(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rounded `features` (..., C)."""
        levels = self.levels.to(features.dtype)
        reach = (levels - 1) * (1 - _FSQ_MARGIN) / 2
        offset = 0.5 * (self.levels % 2 == 0)
        bounded = torch.tanh(features + torch.tan(offset / reach)) * reach - offset
        half = self.levels // 2
        rounded = bounded.round()
        indices = ((rounded.long() + half) * self.bases).sum(dim=-1)
        return _straight_through(bounded / half, rounded / half), indices, features.new_zeros(())

    def codes(self, indices: Tensor) -> Tensor:
        """Return the codes (..., C), float32, of `indices` (...)."""
        half = self.levels // 2
        return (indices[..., None] // self.bases % self.levels - half) / half


@QUANTIZERS.register_module()
class LFQ(Quantizer):
    """Lookup-free quantisation: each channel becomes its sign, a bit of the index (MAGVIT-v2, arXiv 2310.05737).

    Codes are −1 where z ≤ 0 and 1 where z > 0, and the index is Σ 2**i [z_i > 0] (Sec. 3.1). The loss is the
    commitment term β mean((z − sg(c))²) plus the entropy penalty E[H(q(z))] − d H(E[q(z)]), in nats, times its weight:
    each cell should be certain of its code, and all codes should be used. q(c | z) is proportional to
    exp(−‖z − c‖² / τ), so that bits are independent, each 1 with the probability σ(4 z / τ), and H(q(z)) is the sum of
    their entropies. H(E[q(z)]) is computed in groups of channels, as the paper does for many bits: the sum over
    groups is an upper bound. E is over all cells of a batch (a micro-batch, where there are any) on all processes.
    The paper states neither weights nor τ; the defaults are ours.

    Args:
        channels: C, the number of bits; K = 2**C.
        beta: β.
        entropy_weight: Weight of the entropy penalty.
        diversity: d, the weight of the second entropy inside it.
        temperature: τ.
        group: Channels in a group, at most; 2**group probabilities are computed for each cell.

    Example:
        >>> LFQ(3).codes(torch.tensor(5)).tolist()
        [1.0, -1.0, 1.0]
    """

    def __init__(
        self,
        channels: Annotated[int, Range(at_least=1, at_most=62)],
        *,
        beta: NonNegativeFloat = 0.25,
        entropy_weight: NonNegativeFloat = 0.1,
        diversity: NonNegativeFloat = 1.0,
        temperature: PositiveFloat = 1.0,
        group: Annotated[int, Range(at_least=1, at_most=16)] = 9,
    ) -> None:
        super().__init__(2**channels, channels)
        self.beta, self.entropy_weight, self.diversity = beta, entropy_weight, diversity
        self.temperature, self.group = temperature, group
        # kept in files, whose weights would otherwise be those of a network without a quantizer
        self.register_buffer('bits', 2 ** torch.arange(channels))

    def assign(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the signs of `features` (..., C)."""
        is_one = features > 0
        codes = is_one.to(features.dtype) * 2 - 1
        loss = self.beta * F.mse_loss(features, codes)
        if self.entropy_weight:
            loss = loss + self.entropy_weight * self.entropy_penalty(features)
        return _straight_through(features, codes), (is_one * self.bits).sum(dim=-1), loss

    def codes(self, indices: Tensor) -> Tensor:
        """Return the codes (..., C), float32, of `indices` (...)."""
        return ((indices[..., None] & self.bits) > 0).float() * 2 - 1

    def entropy_penalty(self, features: Tensor) -> Tensor:
        """Return E[H(q(z))] − d H(E[q(z)]) of `features` (..., C), a scalar in nats."""
        logits = (4 / self.temperature) * features.flatten(0, -2)
        # log σ(x) and log σ(−x): probabilities near 0 keep a finite logarithm
        on, off = F.logsigmoid(logits), F.logsigmoid(-logits)
        certainty = -(on.exp() * on + off.exp() * off).sum(dim=1).mean()
        diversity = torch.zeros_like(certainty)
        for first in range(0, self.channels, self.group):
            pairs = torch.stack([off, on], dim=2)[:, first : first + self.group]  # (N, bits of the group, 2)
            joint = pairs[:, 0]
            for bit in range(1, pairs.shape[1]):
                joint = (joint[:, :, None] + pairs[:, None, bit]).flatten(1)
            mean = joint.exp().mean(dim=0)
            if self.training and torch.is_grad_enabled():
                # the value is of all processes, the gradient of this one: their mean is the gradient of the whole
                (of_all,) = mean_over_processes([mean.detach()])
                mean = of_all + (mean - mean.detach())
            diversity = diversity + torch.special.entr(mean).sum()
        return certainty - self.diversity * diversity


def _straight_through(features: Tensor, codes: Tensor) -> Tensor:
    """Return `codes`, to the bit, with the gradients of `features`."""
    return codes.detach() + (features - features.detach())


@torch.no_grad()
def _nearest(features: Tensor, table: Tensor) -> Tensor:
    """Return the indices (...) of the rows of `table` (K, C) that are nearest to `features` (..., C)."""
    rows = features.flatten(0, -2)
    # ‖z − e‖² without ‖z‖², which is the same for all codes
    distances = table.square().sum(dim=1) - 2 * rows @ table.T
    return distances.argmin(dim=1).view(features.shape[:-1])
