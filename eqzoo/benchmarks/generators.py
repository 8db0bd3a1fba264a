"""A DiT's training step beside the same step in the plainest form."""

import statistics
import time
from collections.abc import Callable
from typing import Literal

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.generators.transformer import DiffusionTransformer


class PlainTransformer(DiffusionTransformer):
    """A `DiffusionTransformer` as its paper's readers write it: timm's attention, not fused, and a SiLU a block.

    Names of weights are the same.
    """

    def __init__(self, size: str | tuple[int, int, int], patch_size: int, **options: int) -> None:
        super().__init__(size, patch_size, **options)
        width, heads = self.pos_embed.shape[2], self.blocks[0].attn.heads
        self.blocks = nn.ModuleList([_PlainBlock(width, heads) for _ in self.blocks])
        self.final_layer.adaLN_modulation[0] = nn.SiLU()

    def embed(self, x: Tensor, times: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and the condition, not activated."""
        return self.x_embedder(x) + self.pos_embed, self.t_embedder(times) + self.y_embedder(labels)


class _PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        self.attn.fused_attn = False
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = Mlp(width, 4 * width, act_layer=lambda: nn.GELU(approximate='tanh'))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(_modulated(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(_modulated(self.norm2(x), shift2, scale2))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def compare_steps(
    size: str | tuple[int, int, int],
    patch_size: int,
    *,
    latent_size: int,
    batch_size: int,
    rounds: int,
    device: torch.device,
    precision: Literal['fp32', 'bf16'] = 'fp32',
    compiled: bool = False,
) -> tuple[dict[str, float], float]:
    """Return each form's samples a second, and how far their first losses are apart, relatively.

    Both start from the same weights and see the same batch; steps alternate, and the median counts.

    Args:
        size: As `DiffusionTransformer` takes it.
        patch_size: Likewise.
        latent_size: Likewise.
        batch_size: Samples of a step.
        rounds: Steps of each that are timed, after two that are not.
        device: Where.
        precision: Of eqzoo's form; the plain one is fp32.
        compiled: Whether eqzoo's form is compiled.
    """
    torch.manual_seed(0)
    ours = DiffusionTransformer(size, patch_size, latent_size=latent_size)
    for parameter in ours.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.02)  # zeros would leave blocks without gradients
    plain = PlainTransformer(size, patch_size, latent_size=latent_size)
    plain.load_state_dict(ours.state_dict())
    if compiled:
        for block in ours.blocks:
            block.compile()
    batch = torch.randn(batch_size, *ours.latent_shape), torch.rand(batch_size) * 999, torch.arange(batch_size) % 1000
    batch = tuple(each.to(device) for each in batch)
    steps = {
        'eqzoo': _step(ours.to(device), batch, fused=True, autocast=precision == 'bf16'),
        'plain': _step(plain.to(device), batch, fused=False, autocast=False),
    }
    losses = [step() for step in steps.values()]
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            _wait(device)
            started = time.perf_counter()
            step()
            _wait(device)
            if number:
                times[name].append(time.perf_counter() - started)
    speeds = {name: batch_size / statistics.median(seconds) for name, seconds in times.items()}
    return speeds, abs(losses[0] / losses[1] - 1)


def _step(network: nn.Module, batch: tuple[Tensor, ...], *, fused: bool, autocast: bool) -> Callable[[], float]:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, weight_decay=0.0, **({'fused': True} if fused else {}))

    def step() -> float:
        with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=autocast):
            loss = F.mse_loss(network(*batch)[:, : batch[0].shape[1]].float(), batch[0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
