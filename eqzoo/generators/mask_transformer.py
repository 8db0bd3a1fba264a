"""MaskGIT's network: a bidirectional transformer on codes, some of them masked (arXiv 2202.04200).

Names and shapes of weights are those of Besnier and Chen's release (arXiv 2310.14400), version 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from eqzoo.checkpoints.generator import MASKGIT_SIZES, load_generator, size_of
from eqzoo.generators.base import Network
from eqzoo.generators.transformer import check_labels
from eqzoo.registry import NETWORKS

_EPS = 1e-12  # of the norms outside the blocks, as released
_PUBLISHED_MLP = 3072  # of every published size, however wide


@NETWORKS.register_module()
class MaskTransformer(Network):
    """A transformer from codes, some of them masked, and a class to the probabilities of each code.

    One table embeds codes, mask and classes, and is the output layer too; the class is one more
    token, the last.

    Args:
        size: 'base', 'big' or 'huge' as published, or (depth, width, heads).
        num_codes: K, the size of the autoencoder's codebook. K itself stands for a masked code.
        grid: Codes of an image's side, h = w: 16 at 256 pixels of VQ-GAN f16, 32 at 512.
        num_classes: N. Labels are 0 to N - 1, and N stands for no class.
        mlp_width: Of the hidden layer between attentions. None: 3,072 of a published size, else
            four times the width.
        dropout: How often a value is zeroed, in attention, MLPs and the layers around the blocks.
        checkpointing: Whether activations are computed again in the backward pass, for a third
            more time and memory that hardly grows with depth.
        init_std: Of the truncated normal from which weights start, 0.02 in MaskGIT's own code. None: as
            released, torch's defaults, whose embeddings have a deviation of 1: training starts far slower.
        weights: A file as the release or eqzoo write it; see `read_generator`.
        weights_grid: The grid of the network in that file, if it is another one: what belongs to
            places is resized, to go on at another resolution.

    Raises:
        ValueError: If an argument is out of range, or the weights are of another network.

    Example:
        >>> network = MaskTransformer((2, 16, 2), num_codes=8, grid=4, num_classes=10)
        >>> network(torch.full((1, 4, 4), network.mask_code), torch.tensor([3])).shape
        torch.Size([1, 16, 9])
    """

    def __init__(
        self,
        size: str | Sequence[int] = 'base',
        num_codes: int = 1024,
        *,
        grid: int = 16,
        num_classes: int = 1000,
        mlp_width: int | None = None,
        dropout: float = 0.1,
        checkpointing: bool = False,
        init_std: float | None = None,
        weights: str | None = None,
        weights_grid: int | None = None,
    ) -> None:
        super().__init__()
        depth, width, heads = size_of(size, MASKGIT_SIZES)
        for name, value, least in (('num_codes', num_codes, 2), ('grid', grid, 1), ('num_classes', num_classes, 1)):
            if value < least:
                raise ValueError(f'MaskTransformer.{name} must be at least {least}, got {value}.')
        if not 0 <= dropout < 1:
            raise ValueError(f'MaskTransformer.dropout must be in [0, 1), got {dropout}.')
        self.num_codes, self.num_classes, self.checkpointing = num_codes, num_classes, checkpointing
        self.latent_shape = (grid, grid)
        hidden = mlp_width or (_PUBLISHED_MLP if isinstance(size, str) else 4 * width)
        rows = num_codes + 1 + num_classes + 1
        self.tok_emb = nn.Embedding(rows, width)
        self.pos_emb = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, grid**2 + 1, width), std=0.02))
        self.first_layer = nn.Sequential(*_linear(width, dropout), nn.GELU(), *_linear(width, dropout))
        blocks = [_block(width, heads, hidden, dropout) for _ in range(depth)]
        self.transformer = nn.ModuleDict({'layers': nn.ModuleList(blocks)})
        self.last_layer = nn.Sequential(*_linear(width, dropout), nn.GELU(), nn.LayerNorm(width, eps=_EPS))
        self.bias = nn.Parameter(torch.zeros(grid**2 + 1, rows))
        if init_std is not None:
            self._initialize(init_std)
        if weights is None:
            return
        if weights_grid in (None, grid):
            load_generator(self, weights)
            return
        size = (depth, width, heads)
        options = dict(grid=weights_grid, num_classes=num_classes, mlp_width=hidden, dropout=dropout)
        self.load_state_dict(resized(MaskTransformer(size, num_codes, weights=weights, **options).state_dict(), grid))

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for hardly any width and depth, without weights."""
        return {**arguments, 'size': (2, 32, 2), 'mlp_width': None, 'weights': None, 'weights_grid': None}

    @property
    def mask_code(self) -> int:
        """K, which stands for a masked code."""
        return self.num_codes

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks."""
        return self.transformer['layers']

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (B, h * w, K + 1) of the codes at every place, row by row; the last is the mask's.

        Args:
            codes: (B, h, w), int64, 0 to K; K stands for a masked one.
            labels: (B,), 0 to N; N stands for no class.

        Raises:
            ValueError: If codes have another shape, or, on a CPU, a label is out of range.
        """
        return self.head(self.run_blocks(self.embed(codes, labels)))

    def embed(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Return the tokens (B, h * w + 1, D) of codes and class."""
        if codes.shape[1:] != self.latent_shape:
            raise ValueError(
                f'MaskTransformer: got codes of shape {tuple(codes.shape)}; accepted is '
                f'(B, {self.latent_shape[0]}, {self.latent_shape[1]}).'
            )
        check_labels(labels, self.num_classes)
        classes = (labels + self.num_codes + 1)[:, None]
        return self.first_layer(self.tok_emb(torch.cat([codes.flatten(1), classes], dim=1)) + self.pos_emb)

    def run_blocks(self, tokens: Tensor) -> Tensor:
        """Return what all blocks make of tokens (B, T, D)."""
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return tokens

    def head(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, h * w + 1, D) as logits (B, h * w, K + 1)."""
        # the table has rows of classes, and the class a token, whose logits nobody asks for
        places, codes = tokens.shape[1] - 1, self.num_codes + 1
        features = self.last_layer(tokens[:, :places])
        return F.linear(features, self.tok_emb.weight[:codes]) + self.bias[:places, :codes]

    def _initialize(self, std: float) -> None:
        """Start all weight matrices at a truncated normal, and biases of linear layers at 0."""
        for name, weight in self.named_parameters():
            if weight.ndim == 2 and name != 'bias':
                nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
            elif name.endswith('bias') and name != 'bias':
                nn.init.zeros_(weight)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the arguments of `forward` for one image."""
        return torch.full((1, *self.latent_shape), self.mask_code), torch.zeros(1, dtype=torch.int64)


def resized(state: Mapping[str, Tensor], grid: int) -> dict[str, Tensor]:
    """Return a state dict whose positions and biases are of `grid` x `grid` places, interpolated bicubically."""
    return {**state, **{name: _resized(state[name], grid) for name in ('pos_emb', 'bias')}}


def _resized(table: Tensor, grid: int) -> Tensor:
    """Resize (..., T + 1, D), of T places, row by row, and the class."""
    rows = table.view(-1, table.shape[-1])
    old = round((len(rows) - 1) ** 0.5)
    places = rows[:-1].T.reshape(1, -1, old, old)
    places = F.interpolate(places, size=(grid, grid), mode='bicubic', antialias=True)  # as timm does
    return torch.cat([places.flatten(2)[0].T, rows[-1:]]).view(*table.shape[:-2], grid**2 + 1, -1)


def _linear(width: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.LayerNorm(width, eps=_EPS), nn.Dropout(dropout), nn.Linear(width, width)


def _block(width: int, heads: int, hidden: int, dropout: float) -> nn.Sequential:
    mlp = nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
    )
    attention = nn.ModuleDict({'mha': _Attention(width, heads, dropout=dropout)})
    return nn.Sequential(_Residual(width, attention), _Residual(width, nn.ModuleDict({'net': mlp})))


class _Residual(nn.Module):
    """x + fn(norm(x)); `fn` holds one module, under its published name."""

    def __init__(self, width: int, fn: nn.ModuleDict) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        (module,) = self.fn.values()
        return x + module(self.norm(x))


class _Attention(nn.MultiheadAttention):
    """Self-attention with torch's weights and start, by the fused kernels in training too, and without its checks."""

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = projected.view(batch, count, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, count, width))
