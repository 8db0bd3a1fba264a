"""Corruptions: changes of latents before the decoder, so that the decoder tolerates errors of a generator.

A corruption is called as `corruption(latents, streams)` and returns latents (B, C, h, w); every sample draws from its
own stream. It acts on the decoder's input, after an objective's transform and after a codebook. A method
`prepare(autoencoder)` is optional: it checks the fit and makes weights. Evaluation never corrupts.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from eqzoo.randomness import SampleStreams
from eqzoo.registry import REGULARIZERS
from eqzoo.registry.ranges import Filled, PositiveFloat, PositiveInt, Probability, Range

_SSVAE_SHARES = (0.0, 0.25, 0.5, 0.75)


@REGULARIZERS.register_module()
class LatentNoise:
    """Add normal noise to latents: a fixed amount, a drawn one, or an interpolation with noise.

    With ε standard normal and u uniform in [0, 1), both of each sample's own stream:

    - 'fixed': z + σε (cloneofsimo/vqgan-training).
    - 'drawn': z + σuε, so that the decoder sees all amounts from 0 to σ. RAE's code (arXiv 2510.11690) has it with
      σ = 0.8 in raw units; the paper draws abs(N(0, σ²)).
    - 'interpolated': (1 - u) z + uσε (l-DeTok, arXiv 2507.15856, with σ = γ = 3, on latents of about unit variance).

    Args:
        sigma: σ, in the unit of `unit`.
        kind: Of the three.
        unit: 'latent' takes σ as it is, in raw latent units. 'std' multiplies it by the standard deviation of the
            sample's own latent over channels and cells, a constant: σ then means the same for every autoencoder, and
            latents cannot escape the noise by growing.
        p: Share of the samples that get noise.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        sigma: PositiveFloat,
        kind: Literal['fixed', 'drawn', 'interpolated'] = 'drawn',
        *,
        unit: Literal['std', 'latent'] = 'std',
        p: Annotated[float, Range(above=0, at_most=1)] = 1.0,
    ) -> None:
        self.sigma, self.kind, self.unit, self.p = sigma, kind, unit, p

    def __call__(self, latents: Tensor, streams: SampleStreams) -> Tensor:
        """Return noisy latents (B, C, h, w)."""
        # always drawn, so that what follows in the stream does not depend on the arguments
        chosen, amount = (each[:, None, None, None] for each in streams.uniform(2, device=latents.device).unbind(1))
        noise = self.sigma * streams.normal(latents)
        if self.unit == 'std':
            noise = noise * latents.detach().float().std(dim=(1, 2, 3), keepdim=True).to(latents.dtype)
        if self.kind == 'interpolated':
            noisy = (1 - amount) * latents + amount * noise
        else:
            noisy = latents + (noise if self.kind == 'fixed' else amount * noise)
        return torch.where(chosen < self.p, noisy, latents).to(latents.dtype)


@REGULARIZERS.register_module()
class LatentMask(nn.Module):
    """Hide cells of a latent behind a learned token, or its last channels behind zeros.

    - of='cells': latent masked reconstruction (LMR) of SSVAE, arXiv 2512.05394: the decoder fills gaps from neighbours,
      so that neighbouring cells learn to share information.
    - of='channels': DC-AE 1.5, arXiv 2508.00413: the first channels come to hold the objects, the last the details.

    Differs from both papers, which draw once for a batch: every sample draws its own share and its own cells.

    Args:
        of: 'cells' or 'channels'.
        shares: Shares that are hidden, each in [0, 1).
        probabilities: Of each share. Default: SSVAE's (0.7, 0.1, 0.1, 0.1) for cells with SSVAE's shares, the default;
            otherwise all are equally likely.
        block: Cells a side that are hidden together; 1 at 256 pixels and 2 at 512 in SSVAE.

    Raises:
        ValueError: If an argument is out of range, or probabilities do not add up to 1.
    """

    def __init__(
        self,
        of: Literal['cells', 'channels'] = 'cells',
        shares: Filled[Annotated[float, Range(at_least=0, below=1)]] = _SSVAE_SHARES,
        probabilities: Sequence[Probability] | None = None,
        *,
        block: PositiveInt = 1,
    ) -> None:
        super().__init__()
        if probabilities is None:
            of_ssvae = of == 'cells' and tuple(shares) == _SSVAE_SHARES
            probabilities = (0.7, 0.1, 0.1, 0.1) if of_ssvae else [1 / len(shares)] * len(shares)
        if len(probabilities) != len(shares) or not math.isclose(sum(probabilities), 1):
            raise ValueError(
                f'LatentMask.probabilities must be {len(shares)} numbers that add up to 1, one for each share, got '
                f'{probabilities!r}.'
            )
        self.of, self.shares, self.probabilities, self.block = of, tuple(shares), tuple(probabilities), block
        self.token: nn.Parameter | None = None

    def prepare(self, autoencoder: Any) -> None:
        """Make the token of hidden cells, (C,).

        Raises:
            ValueError: If channels should be hidden, and there is a codebook: all of a code's channels are one index.
        """
        if self.of == 'channels' and autoencoder.has_codebook:
            raise ValueError(
                f"LatentMask.of: 'channels' of a code of {type(autoencoder).__name__} mean nothing each; use 'cells'."
            )
        if self.of == 'cells':
            self.token = nn.Parameter(torch.randn(autoencoder.latent_channels))

    def check_grid(self, grid: tuple[int, int]) -> None:
        """Check that a latent `grid` (h, w) is whole blocks, and more than one.

        Raises:
            ValueError: If it is not.
        """
        whole = grid[0] % self.block == 0 == grid[1] % self.block
        if self.of == 'cells' and (not whole or math.prod(grid) == self.block**2):
            raise ValueError(
                f'LatentMask.block: latents of {grid[0]} x {grid[1]} cells are not two or more whole blocks of '
                f'{self.block} x {self.block}; use a smaller block, or larger images.'
            )

    def forward(self, latents: Tensor, streams: SampleStreams) -> Tensor:
        """Return latents (B, C, h, w) with parts of them hidden."""
        drawn = streams.uniform()
        edges = torch.tensor(self.probabilities, dtype=torch.float64).cumsum(0)[:-1].float()
        share = torch.tensor(self.shares)[torch.bucketize(drawn, edges, right=True)]
        if self.of == 'channels':
            channels = latents.shape[1]
            kept = channels - (share * channels).floor()
            mask = torch.arange(channels) < kept[:, None]
            return latents * mask[:, :, None, None].to(latents, non_blocking=True)
        # rounded up: an objective may decode fewer cells than `check_grid` has seen, in blocks that are cut at the edge
        height, width = (-(-side // self.block) for side in latents.shape[2:])
        order = streams.uniform(height * width).argsort(dim=1).argsort(dim=1)  # the places of a random permutation
        hidden = order < (share * height * width).floor()[:, None]
        hidden = hidden.view(-1, 1, height, width)
        hidden = (
            hidden.repeat_interleave(self.block, 2)
            .repeat_interleave(self.block, 3)
            .to(latents.device, non_blocking=True)
        )
        hidden = hidden[:, :, : latents.shape[2], : latents.shape[3]]
        return torch.where(hidden, self.token.to(latents.dtype)[:, None, None], latents)
