"""The network of Halton-MaskGIT (arXiv 2503.17076): a masked transformer whose norms are modulated by the class.

Names and shapes of the weights are those of Besnier et al.'s release, version 2 (2025). The network of version 1 is
`MaskTransformer`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.checkpoints.generator import HALTON_SIZES, load_generator, size_of
from eqzoo.generators.base import CodeNetwork
from eqzoo.registry import NETWORKS
from eqzoo.registry.ranges import NonNegativeInt, PositiveInt, Range

_EPS = 1e-5  # of the norms, as released
_MULTIPLE = 256  # hidden widths are rounded up to it, as released
_STD = 0.02  # of embeddings


@NETWORKS.register_module()
class HaltonTransformer(CodeNetwork):
    """A transformer that maps partly masked codes to logits of each code; the class scales and shifts its norms.

    Blocks are DiT's (adaLN-Zero) with RMS norms, SwiGLU and normalised queries and keys; learned registers follow the
    codes, and the embedding of the codes is also the output layer.

    Args:
        size: 'tiny', 'small', 'base', 'large' or 'xlarge' as released, or (depth, width, heads).
        num_codes: K, the size of the autoencoder's codebook. K itself stands for a masked code.
        grid: Side of the codes, h = w; with LlamaGen's f16 tokenizer, 16 at 256 pixels and 24 at 384.
        num_classes: N. Labels are 0 to N - 1; N stands for no class.
        registers: Number of registers.
        dropout: Dropout probability in attention and after it, and inside MLPs.
        checkpointing: Whether the backward pass recomputes activations: a third more time, and memory
            that hardly grows with depth.
        weights: A file written by the release or eqzoo; see `read_generator`.

    Raises:
        ValueError: If an argument is out of range, or the weights are for another network.

    Example:
        >>> network = HaltonTransformer((2, 16, 2), num_codes=8, grid=4, num_classes=10)
        >>> network(torch.full((1, 4, 4), network.mask_code), torch.tensor([3])).shape
        torch.Size([1, 16, 9])
    """

    def __init__(
        self,
        size: str | tuple[PositiveInt, PositiveInt, PositiveInt] = 'base',
        num_codes: Annotated[int, Range(at_least=2)] = 16384,
        *,
        grid: PositiveInt = 16,
        num_classes: PositiveInt = 1000,
        registers: NonNegativeInt = 1,
        dropout: Annotated[float, Range(at_least=0, below=1)] = 0.1,
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        depth, width, heads = size_of(size, HALTON_SIZES)
        self.num_codes, self.num_classes, self.checkpointing = num_codes, num_classes, checkpointing
        self.latent_shape = (grid, grid)
        self.cls_emb = nn.Embedding(num_classes + 1, width)
        self.tok_emb = nn.Embedding(num_codes + 1, width)
        self.pos_emb = nn.Embedding(grid**2, width)
        self.transformer = nn.ModuleDict({'layers': nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))})
        self.last_norm = _ModulatedNorm(width)
        self.head = nn.Linear(width, num_codes + 1)
        self.head.weight = self.tok_emb.weight
        if registers:
            self.reg_tokens = nn.Embedding(registers, width)
        self._initialize()
        if weights is not None:
            load_generator(self, weights)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a tiny network without weights."""
        return {**arguments, 'size': (2, 32, 2), 'weights': None}

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (B, h * w, K + 1) of the codes at each place, row by row; the last logit is the mask's.

        Args:
            codes: (B, h, w), int64, 0 to K; K stands for a masked code.
            labels: (B,), 0 to N; N stands for no class.

        Raises:
            ValueError: If the codes have another shape or, on the CPU, a label is out of range.
        """
        self.check_inputs(codes, labels)
        classes = self.cls_emb(labels)
        tokens = self.tok_emb(codes.flatten(1)) + self.pos_emb.weight
        if hasattr(self, 'reg_tokens'):
            registers = self.reg_tokens.weight.to(tokens.dtype)
            tokens = torch.cat([tokens, registers.expand(len(tokens), -1, -1)], dim=1)
        tokens = self.run_blocks(tokens, classes)
        return self.head(self.last_norm(tokens[:, : codes[0].numel()], classes))

    def _initialize(self) -> None:
        """Initialise as released: Xavier's uniform, embeddings of deviation 0.02, modulation of the blocks at 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():  # the output layer's weight is an embedding: these come last
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=_STD)
        for block in self.blocks:
            nn.init.zeros_(block.mlp[1].weight)
            nn.init.zeros_(block.mlp[1].bias)


class _Block(nn.Module):
    """x + a * attention(m(norm(x))), then the same with the MLP; a and m are of the class."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.ln1, self.ln2 = (nn.RMSNorm(width, eps=_EPS) for _ in range(2))
        self.attn = _NormalizedAttention(width, heads, dropout)
        self.ff = _SwiGLU(width, dropout)

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """Transform tokens `x` (B, T, D) for embedded `classes` (B, D)."""
        # the release calls the shifts gamma and the scales beta
        shift1, scale1, gate1, shift2, scale2, gate2 = self.mlp(classes)[:, None].chunk(6, dim=2)
        x = x + gate1 * self.attn(self.ln1(x) * (1 + scale1) + shift1)
        return x + gate2 * self.ff(self.ln2(x) * (1 + scale2) + shift2)


class _ModulatedNorm(nn.Module):
    """The last norm, with a bias of its own, scaled and shifted by the class."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_final = nn.RMSNorm(width, eps=_EPS)
        self.norm_final.bias = nn.Parameter(torch.zeros(width))
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """Normalise tokens `x` (B, T, D)."""
        shift, scale = self.mlp(classes)[:, None].chunk(2, dim=2)
        return (self.norm_final(x) + self.norm_final.bias) * (1 + scale) + shift


class _NormalizedAttention(nn.Module):
    """Self-attention whose queries and keys are divided by their root mean square over all heads together."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        # rounded down: the released size 'small' has 6 heads of 85 channels in a width of 512
        inner = width // heads * heads
        self.heads, self.dropout = heads, dropout
        self.wq, self.wk, self.wv = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.wo = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among tokens `x` (B, T, D)."""
        q, k, v = self.wq(x), self.wk(x), self.wv(x)
        q, k = (F.rms_norm(each, each.shape[-1:], eps=_EPS).to(v) for each in (q, k))
        q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return F.dropout(self.wo(attended.transpose(1, 2).flatten(2)), self.dropout, self.training)


class _SwiGLU(nn.Module):
    """An MLP whose hidden layer is a product: w2(silu(w1 x) * w3 x), of two thirds of four times the width."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        hidden = -(-(8 * width // 3) // _MULTIPLE) * _MULTIPLE
        self.dropout = dropout
        self.w1, self.w3 = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens `x` (B, T, D), each for itself."""
        return self.w2(F.dropout(F.silu(self.w1(x)) * self.w3(x), self.dropout, self.training))
