"""The layers of a diffusion transformer, each told the condition by adaLN-zero (arXiv 2212.09748, figure 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MLP_RATIO = 4
_EPS = 1e-6


class Attention(nn.Module):
    """Self-attention of tokens (B, T, D), computed by torch's fused kernels."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended tokens."""
        batch, count, width = x.shape
        q, k, v = self.qkv(x).view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, width))


class Mlp(nn.Module):
    """Two layers with GELU, as its tanh approximation, between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens (B, T, D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate='tanh'))


class Block(nn.Module):
    """Attention and MLP, each between a shift, a scale and a gate that the condition gives (adaLN-zero)."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS, elementwise_affine=False)
        self.attn = Attention(width, heads, qk_norm)
        self.norm2 = nn.LayerNorm(width, eps=_EPS, elementwise_affine=False)
        self.mlp = Mlp(width)
        # the activation is that of all blocks, and done once; its place keeps the published names
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return tokens (B, T, D) for the activated condition (B, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition)[:, None].chunk(6, dim=2)
        x = torch.addcmul(x, gate1, self.attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1)))
        return torch.addcmul(x, gate2, self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2)))


class FinalLayer(nn.Module):
    """Tokens (B, T, D) to the values of their patches."""

    def __init__(self, width: int, out_features: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=_EPS, elementwise_affine=False)
        self.linear = nn.Linear(width, out_features)
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return (B, T, p * p * channels) for the activated condition (B, D)."""
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=2)
        return self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))
