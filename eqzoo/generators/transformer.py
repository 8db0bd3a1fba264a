"""DiT's network: a transformer on patches of latents, told time and class by adaLN-zero.

Names and shapes of weights are those of the published DiT and SiT (arXiv 2212.09748, 2401.08740).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from eqzoo.generators.blocks import Block, FinalLayer
from eqzoo.generators.embedders import LabelEmbedder, PatchEmbedder, TimeEmbedder, sine_positions
from eqzoo.generators.network import Network
from eqzoo.generators.published import load_generator
from eqzoo.generators.sizes import size_of
from eqzoo.registry import NETWORKS


@NETWORKS.register_module()
class DiffusionTransformer(Network):
    """A vision transformer from noisy latents, time and class to a prediction as large as the latents.

    Args:
        size: 'S', 'B', 'L' or 'XL', or (depth, width, heads).
        patch_size: Latent cells of a token's side.
        latent_channels: C.
        latent_size: Cells of a latent's side, h = w.
        num_classes: K. Labels are 0 to K - 1, and K stands for no class.
        learn_sigma: Whether the output has C channels more, for the variance of DiT's reverse
            process. SiT's published files have them too; their processes cut them off.
        qk_norm: Whether queries and keys go through a LayerNorm of their own.
        checkpointing: Whether activations are computed again in the backward pass, for a third
            more time and memory that hardly grows with depth.
        weights: A file as DiT, SiT, fast-DiT or eqzoo write it; see `read_generator`.

    Raises:
        ValueError: If the patch does not divide the latent, the size is not possible, or the
            weights are of another network.
    """

    def __init__(
        self,
        size: str | Sequence[int] = 'XL',
        patch_size: int = 2,
        *,
        latent_channels: int = 4,
        latent_size: int = 32,
        num_classes: int = 1000,
        learn_sigma: bool = True,
        qk_norm: bool = False,
        checkpointing: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        depth, width, heads = size_of(size)
        if patch_size < 1 or latent_size % patch_size:
            raise ValueError(
                f'{name}.patch_size: got {patch_size} for latents of {latent_size} x {latent_size}; accepted is a '
                f'divisor of {latent_size}; change patch_size or latent_size.'
            )
        if num_classes < 1:
            raise ValueError(f'{name}.num_classes must be at least 1, got {num_classes}.')
        self.latent_shape = (latent_channels, latent_size, latent_size)
        self.patch_size, self.num_classes, self.checkpointing = patch_size, num_classes, checkpointing
        self.out_channels = latent_channels * (2 if learn_sigma else 1)
        self.grid = latent_size // patch_size
        self.x_embedder = PatchEmbedder(patch_size, latent_channels, width)
        self.t_embedder = TimeEmbedder(width)
        self.y_embedder = LabelEmbedder(num_classes, width)
        self.pos_embed = nn.Parameter(sine_positions(self.grid, width)[None], requires_grad=False)
        self.blocks = nn.ModuleList([Block(width, heads, qk_norm) for _ in range(depth)])
        self.final_layer = FinalLayer(width, patch_size**2 * self.out_channels)
        self._initialize()
        if weights is not None:
            load_generator(self, weights)

    @classmethod
    def smoke(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments for hardly any width and depth, without weights."""
        return {**arguments, 'size': (2, 32, 2), 'weights': None}

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Return the prediction (B, C or 2C, h, w) for noisy latents.

        Args:
            x: (B, C, h, w).
            times: (B,), as the process counts them: 0 to 999 of DiT, [0, 1] of SiT.
            labels: (B,), 0 to K; K stands for no class.

        Raises:
            ValueError: If latents have another shape, or, on a CPU, a label is out of range.
        """
        tokens, condition = self.embed(x, times, labels)
        for block in self.blocks:
            tokens = self.run_block(block, tokens, condition)
        return self.head(tokens, condition)

    def embed(self, x: Tensor, times: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T, D) and the condition (B, D), activated as every block wants it."""
        if x.shape[1:] != self.latent_shape:
            raise ValueError(
                f'{type(self).__name__}: got latents of shape {tuple(x.shape)}; accepted is '
                f'(B, {", ".join(map(str, self.latent_shape))}).'
            )
        condition = self.t_embedder(times) + self.y_embedder(labels)
        return self.x_embedder(x) + self.pos_embed, F.silu(condition)

    def run_block(self, block: nn.Module, tokens: Tensor, condition: Tensor) -> Tensor:
        """Return what `block` makes of tokens (B, T, D)."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, tokens, condition, use_reentrant=False)
        return block(tokens, condition)

    def head(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Return tokens (B, T, D) as the prediction (B, C or 2C, h, w)."""
        patches = self.final_layer(tokens, condition)
        p, g, channels = self.patch_size, self.grid, self.out_channels
        patches = patches.view(len(patches), g, g, p, p, channels)
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), channels, g * p, g * p)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return the arguments of `forward` for one latent."""
        return torch.zeros(1, *self.latent_shape), torch.zeros(1), torch.zeros(1, dtype=torch.int64)

    def _initialize(self) -> None:
        """Start as DiT does: every block is the identity, and the prediction is zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        projection = self.x_embedder.proj
        nn.init.xavier_uniform_(projection.weight.view(len(projection.weight), -1))
        nn.init.zeros_(projection.bias)
        for weight in (self.y_embedder.embedding_table.weight, *(self.t_embedder.mlp[i].weight for i in (0, 2))):
            nn.init.normal_(weight, std=0.02)
        zeros = [block.adaLN_modulation[1] for block in self.blocks]
        for linear in (*zeros, self.final_layer.adaLN_modulation[1], self.final_layer.linear):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
