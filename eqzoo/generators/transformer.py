"""The diffusion transformer of DiT, SiT and LightningDiT: latents, time and class in, a prediction out.

DiT is arXiv 2212.09748; LightningDiT (arXiv 2501.01423) is the same with other norms, MLPs and positions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from eqzoo.checkpoints.generator import size_of
from eqzoo.generators.adaptation import Change, load_adapted
from eqzoo.generators.base import Network, check_labels
from eqzoo.generators.positions import RotaryPositions, sine_positions
from eqzoo.registry import NETWORKS
from eqzoo.registry.ranges import PositiveInt

_FREQUENCIES = 256  # values of a time's embedding before its MLP
_MLP_RATIO = 4
_EPS = 1e-6  # of the LayerNorms and RMSNorms, as released

Norm = Literal['layer', 'rms']
MlpKind = Literal['gelu', 'swiglu']


@NETWORKS.register_module()
class DiffusionTransformer(Network):
    """A vision transformer that maps noisy latents, time and class to a prediction of the latents' size.

    Names and shapes of the weights are those of DiT's, SiT's and LightningDiT's releases. LightningDiT's published
    networks have `learn_sigma=False, mlp='swiglu', norm='rms', rope=True`.

    Args:
        size: 'S', 'B', 'L' or 'XL', LightningDiT's '1p0B' or '1p6B', or (depth, width, heads).
        patch_size: Side of a token, in latent cells.
        latent_channels: C.
        latent_size: Side of the latents in cells, h = w.
        num_classes: K. Labels are 0 to K - 1; K stands for no class.
        learn_sigma: Whether the output has C more channels, for the variance of DiT's reverse process.
            SiT's published files have them too; `Interpolant` ignores them.
        qk_norm: Whether queries and keys have a norm each, of the kind `norm`, with weights.
        mlp: 'gelu', as DiT, or 'swiglu' (arXiv 2002.05202), with a hidden layer of 2/3 the size, so with about
            equally many weights.
        norm: Norms of the tokens: 'layer', as DiT, without weights; or 'rms' (arXiv 1910.07467), with a scale.
        rope: Whether queries and keys are also rotated by their places (arXiv 2104.09864), rows and columns
            in half of a head's channels each. The fixed positions stay.
        adaln_shift: Whether the condition gives each block shifts beside scales and gates, as in DiT.
        checkpointing: Whether the backward pass recomputes activations: a third more time, and memory
            that hardly grows with depth.
        weights: A file written by DiT, SiT, LightningDiT, fast-DiT or eqzoo; see `read_generator`.
        adapt: The ways in which that file's network may differ, to fine-tune it: 'classes', 'grid' (the side of the
            latents), 'channels' (of latents and output). Its tensors are resized; see `load_adapted`.

    Raises:
        ValueError: If the patch does not divide the latent, the size is impossible, the weights are for another
            network, or `adapt` has no weights.
    """

    def __init__(
        self,
        size: str | tuple[PositiveInt, PositiveInt, PositiveInt] = 'XL',
        patch_size: PositiveInt = 2,
        *,
        latent_channels: PositiveInt = 4,
        latent_size: PositiveInt = 32,
        num_classes: PositiveInt = 1000,
        learn_sigma: bool = True,
        qk_norm: bool = False,
        mlp: MlpKind = 'gelu',
        norm: Norm = 'layer',
        rope: bool = False,
        adaln_shift: bool = True,
        checkpointing: bool = False,
        weights: str | None = None,
        adapt: Sequence[Change] = (),
    ) -> None:
        super().__init__()
        name = type(self).__name__
        depth, width, heads = size_of(size)
        if latent_size % patch_size:
            raise ValueError(
                f'{name}.patch_size: got {patch_size} for latents of {latent_size} x {latent_size}; expected a '
                f'divisor of {latent_size}; change patch_size or latent_size.'
            )
        self.latent_shape = (latent_channels, latent_size, latent_size)
        self.patch_size, self.num_classes, self.checkpointing = patch_size, num_classes, checkpointing
        self.out_channels = latent_channels * (2 if learn_sigma else 1)
        self.grid = latent_size // patch_size
        self.x_embedder = PatchEmbedder(patch_size, latent_channels, width)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(num_classes, width)
        self.pos_embed = nn.Parameter(sine_positions(self.grid, width)[None], requires_grad=False)
        if rope and width // heads % 4:
            raise ValueError(
                f'{name}.rope: got heads of {width // heads} channels; expected a multiple of 4, for pairs of channels '
                'of rows and columns; change size.'
            )
        self.feat_rope = RotaryPositions(self.grid, width // heads) if rope else None  # LightningDiT's name
        options = dict(qk_norm=qk_norm, mlp=mlp, norm=norm, adaln_shift=adaln_shift)
        self.blocks = nn.ModuleList([Block(width, heads, **options) for _ in range(depth)])
        self.final_layer = FinalLayer(width, patch_size**2 * self.out_channels, norm)
        self._initialize()
        load_adapted(self, weights, adapt)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a tiny network without weights."""
        return {**arguments, 'size': (2, 32, 2), 'weights': None, 'adapt': ()}

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Return the prediction (B, C or 2C, h, w) for noisy latents.

        Args:
            x: (B, C, h, w).
            times: (B,), as the process counts them: 0 to 999 for DiT, [0, 1] for SiT.
            labels: (B,), 0 to K; K stands for no class.

        Raises:
            ValueError: If the latents have another shape or, on the CPU, a label is out of range.
        """
        tokens, condition = self.embed(x, times, labels)
        for block in self.blocks:
            tokens = self.run_block(block, tokens, condition)
        return self.head(tokens, condition)

    def embed(self, x: Tensor, times: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T, D) and the condition (B, D), with the activation that all blocks apply to it."""
        if x.shape[1:] != self.latent_shape:
            raise ValueError(
                f'{type(self).__name__}: got latents of shape {tuple(x.shape)}; expected '
                f'(B, {", ".join(map(str, self.latent_shape))}).'
            )
        condition = self.t_embedder(times) + self.y_embedder(labels)
        return self.x_embedder(x) + self.pos_embed, F.silu(condition)

    def run_block(self, block: nn.Module, tokens: Tensor, condition: Tensor) -> Tensor:
        """Apply `block` to tokens (B, T, D), with activation checkpointing if it is on."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, tokens, condition, self.feat_rope, use_reentrant=False)
        return block(tokens, condition, self.feat_rope)

    def head(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Turn tokens (B, T, D) into the prediction (B, C or 2C, h, w)."""
        patches = self.final_layer(tokens, condition)
        p, g, channels = self.patch_size, self.grid, self.out_channels
        patches = patches.view(len(patches), g, g, p, p, channels)  # a patch is row, column, channel
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), channels, g * p, g * p)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the arguments of `forward` for one latent."""
        return torch.zeros(1, *self.latent_shape), torch.zeros(1), torch.zeros(1, dtype=torch.int64)

    def _initialize(self) -> None:
        """Initialise as DiT does: gates of 0 make every block the identity, and the prediction is 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        projection = self.x_embedder.proj  # a convolution, initialised as the linear layer that it is on patches
        nn.init.xavier_uniform_(projection.weight.view(len(projection.weight), -1))
        nn.init.zeros_(projection.bias)
        for weight in (self.y_embedder.embedding_table.weight, *(self.t_embedder.mlp[i].weight for i in (0, 2))):
            nn.init.normal_(weight, std=0.02)
        zeros = [block.adaLN_modulation[1] for block in self.blocks]
        for linear in (*zeros, self.final_layer.adaLN_modulation[1], self.final_layer.linear):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)


class Attention(nn.Module):
    """Self-attention of tokens (B, T, D), with torch's fused kernels."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool, norm: Norm) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = _head_norm(norm, width // heads) if qk_norm else nn.Identity()
        self.k_norm = _head_norm(norm, width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotate: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the attended tokens; `rotate` is applied to queries and keys (B, heads, T, D / heads)."""
        batch, count, width = x.shape
        q, k, v = self.qkv(x).view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, width))


class Mlp(nn.Module):
    """Two linear layers with GELU (its tanh approximation, as released) between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (B, T, D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate='tanh'))


class SwiGLU(nn.Module):
    """An MLP whose hidden layer is gated by itself: W3 (silu(W1 x) * W2 x) (arXiv 2002.05202, Eq. 6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 2 * _MLP_RATIO * width // 3
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (B, T, D)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Attention and MLP, each with a shift, a scale and a gate from the condition (adaLN-zero, DiT, Sec. 3.2).

    Without `adaln_shift`, the condition gives scales and gates only.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        qk_norm: bool = False,
        mlp: MlpKind = 'gelu',
        norm: Norm = 'layer',
        adaln_shift: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = _token_norm(norm, width)
        self.attn = Attention(width, heads, qk_norm=qk_norm, norm=norm)
        self.norm2 = _token_norm(norm, width)
        self.mlp = SwiGLU(width) if mlp == 'swiglu' else Mlp(width)
        self.adaln_shift = adaln_shift
        # all blocks activate the same condition, so `embed` does it once; the Identity keeps the published names
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(width, (6 if adaln_shift else 4) * width))

    def forward(self, x: Tensor, condition: Tensor, rotate: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Transform tokens (B, T, D), given the activated condition (B, D) and the rotation of queries and keys."""
        modulation = self.adaLN_modulation(condition)[:, None]
        if not self.adaln_shift:
            scale1, gate1, scale2, gate2 = modulation.chunk(4, dim=2)
            x = torch.addcmul(x, gate1, self.attn(self.norm1(x) * (1 + scale1), rotate))
            return torch.addcmul(x, gate2, self.mlp(self.norm2(x) * (1 + scale2)))
        # addcmul(a, b, c) = a + b * c in one kernel
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=2)
        x = torch.addcmul(x, gate1, self.attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1), rotate))
        return torch.addcmul(x, gate2, self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2)))


class FinalLayer(nn.Module):
    """The output layer: tokens (B, T, D) to the values of their patches."""

    def __init__(self, width: int, out_features: int, norm: Norm = 'layer') -> None:
        super().__init__()
        self.norm_final = _token_norm(norm, width)
        self.linear = nn.Linear(width, out_features)
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return (B, T, p * p * channels), given the activated condition (B, D)."""
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=2)
        return self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))


class PatchEmbedder(nn.Module):
    """Embed patches of latents (B, C, h, w) as tokens (B, T, D), row by row."""

    def __init__(self, patch_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """Embed times (B,) as (B, D): cosines and sines of 128 frequencies, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        """Return the embedding."""
        half = _FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=times.device)
        angles = times.float()[:, None] * torch.exp(-math.log(10000) * steps / half)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    """Embed labels (B,) as (B, D), from a table whose last row is no class."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the rows."""
        check_labels(labels, self.embedding_table.num_embeddings - 1)
        return self.embedding_table(labels)


def _token_norm(kind: Norm, width: int) -> nn.Module:
    return nn.RMSNorm(width, eps=_EPS) if kind == 'rms' else nn.LayerNorm(width, eps=_EPS, elementwise_affine=False)


def _head_norm(kind: Norm, width: int) -> nn.Module:
    """Return the norm of queries or keys; of LayerNorms the releases leave torch's epsilon of 1e-5."""
    return nn.RMSNorm(width, eps=_EPS) if kind == 'rms' else nn.LayerNorm(width)
