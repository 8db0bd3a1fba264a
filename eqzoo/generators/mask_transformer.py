"""MaskGIT's network: a bidirectional transformer on partly masked codes (arXiv 2202.04200).

Names and shapes of the weights are those of Besnier and Chen's release (arXiv 2310.14400), version 1.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.checkpoints.generator import MASKGIT_SIZES, size_of
from eqzoo.generators.adaptation import load_adapted
from eqzoo.generators.base import CodeNetwork
from eqzoo.registry import NETWORKS
from eqzoo.registry.ranges import PositiveFloat, PositiveInt, Range

_EPS = 1e-12  # of the LayerNorms outside the blocks, as released
_PUBLISHED_MLP = 3072  # in every published size, whatever its width


@NETWORKS.register_module()
class MaskTransformer(CodeNetwork):
    """A transformer that maps partly masked codes and a class to logits of each code.

    One table embeds codes, mask and classes, and is also the output layer. The class is the last token.

    Args:
        size: 'base', 'big' or 'huge' as published, or (depth, width, heads).
        num_codes: K, the size of the autoencoder's codebook. K itself stands for a masked code.
        grid: Side of the codes, h = w; with VQ-GAN f16, 16 at 256 pixels and 32 at 512.
        num_classes: N. Labels are 0 to N - 1; N stands for no class.
        mlp_width: Width of the MLPs' hidden layer. None: 3,072 for a published size, otherwise four times the width.
        dropout: Dropout probability in attention, MLPs and the layers around the blocks.
        checkpointing: Whether the backward pass recomputes activations: a third more time, and memory
            that hardly grows with depth.
        init_std: Standard deviation of the truncated normal that initialises weights, 0.02 in MaskGIT's own code.
            None: torch's defaults, as released, whose embeddings have a deviation of 1; training starts far slower.
        weights: A file written by the release or eqzoo; see `read_generator`.
        weights_grid: Grid of the network in that file, if different: the same as `adapt=('grid',)`.
        adapt: The ways in which that file's network may differ, to fine-tune it: 'classes', 'grid'. Its tensors
            are resized; see `load_adapted`.

    Raises:
        ValueError: If an argument is out of range, or the weights are for another network.

    Example:
        >>> network = MaskTransformer((2, 16, 2), num_codes=8, grid=4, num_classes=10)
        >>> network(torch.full((1, 4, 4), network.mask_code), torch.tensor([3])).shape
        torch.Size([1, 16, 9])
    """

    def __init__(
        self,
        size: str | tuple[PositiveInt, PositiveInt, PositiveInt] = 'base',
        num_codes: Annotated[int, Range(at_least=2)] = 1024,
        *,
        grid: PositiveInt = 16,
        num_classes: PositiveInt = 1000,
        mlp_width: PositiveInt | None = None,
        dropout: Annotated[float, Range(at_least=0, below=1)] = 0.1,
        checkpointing: bool = False,
        init_std: PositiveFloat | None = None,
        weights: str | None = None,
        weights_grid: PositiveInt | None = None,
        adapt: Sequence[Literal['classes', 'grid']] = (),
    ) -> None:
        super().__init__()
        depth, width, heads = size_of(size, MASKGIT_SIZES)
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
        if weights is not None and weights_grid is not None:
            adapt = (*adapt, 'grid')
        load_adapted(self, weights, adapt)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a tiny network without weights."""
        return {**arguments, 'size': (2, 32, 2), 'mlp_width': None, 'weights': None, 'weights_grid': None, 'adapt': ()}

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (B, h * w, K + 1) of the codes at each place, row by row; the last logit is the mask's.

        Args:
            codes: (B, h, w), int64, 0 to K; K stands for a masked code.
            labels: (B,), 0 to N; N stands for no class.

        Raises:
            ValueError: If the codes have another shape or, on the CPU, a label is out of range.
        """
        return self.head(self.run_blocks(self.embed(codes, labels)))

    def embed(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Embed codes (B, h, w) and labels (B,) as tokens (B, h * w + 1, D)."""
        self.check_inputs(codes, labels)
        classes = (labels + self.num_codes + 1)[:, None]
        return self.first_layer(self.tok_emb(torch.cat([codes.flatten(1), classes], dim=1)) + self.pos_emb)

    def head(self, tokens: Tensor) -> Tensor:
        """Turn tokens (B, h * w + 1, D) into logits (B, h * w, K + 1)."""
        # logits of the table's class rows, and those at the class token, are never used: they are not computed
        places, codes = tokens.shape[1] - 1, self.num_codes + 1
        features = self.last_layer(tokens[:, :places])
        return F.linear(features, self.tok_emb.weight[:codes]) + self.bias[:places, :codes]

    def _initialize(self, std: float) -> None:
        """Initialise weight matrices from a truncated normal, and biases of linear layers at 0."""
        for name, weight in self.named_parameters():
            if weight.ndim == 2 and name != 'bias':
                nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
            elif name.endswith('bias') and name != 'bias':
                nn.init.zeros_(weight)


def _linear(width: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.LayerNorm(width, eps=_EPS), nn.Dropout(dropout), nn.Linear(width, width)


def _block(width: int, heads: int, hidden: int, dropout: float) -> nn.Sequential:
    mlp = nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
    )
    attention = nn.ModuleDict({'mha': _Attention(width, heads, dropout=dropout)})
    return nn.Sequential(_Residual(width, attention), _Residual(width, nn.ModuleDict({'net': mlp})))


class _Residual(nn.Module):
    """x + fn(norm(x)). `fn` holds one module under its published name."""

    def __init__(self, width: int, fn: nn.ModuleDict) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        (module,) = self.fn.values()
        return x + module(self.norm(x))


class _Attention(nn.MultiheadAttention):
    """Self-attention with the parameters of torch's `MultiheadAttention`, computed by the fused kernels."""

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = projected.view(batch, count, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, count, width))
