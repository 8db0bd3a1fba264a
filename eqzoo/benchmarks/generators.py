"""Benchmarks of generators: a DiT's training step and MaskGIT's sampling, beside their plainest forms."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from eqzoo.benchmarks.measure import alternate
from eqzoo.generators.mask_transformer import MaskTransformer
from eqzoo.generators.maskgit import MaskGIT
from eqzoo.generators.samplers.codes import Confidence
from eqzoo.generators.transformer import DiffusionTransformer
from eqzoo.randomness import SampleStreams


class PlainDiffusionTransformer(DiffusionTransformer):
    """A `DiffusionTransformer` in its usual form: timm's attention, not fused, and a SiLU in each block.

    It has the same weights by name.
    """

    def __init__(self, size: str | tuple[int, int, int], patch_size: int, **options: int) -> None:
        super().__init__(size, patch_size, **options)
        width, heads = self.pos_embed.shape[2], self.blocks[0].attn.heads
        self.blocks = nn.ModuleList([_PlainBlock(width, heads) for _ in self.blocks])
        self.final_layer.adaLN_modulation[0] = nn.SiLU()

    def embed(self, x: Tensor, times: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and the condition, without its activation."""
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

    def forward(self, x: Tensor, condition: Tensor, rope: None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(_modulated(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(_modulated(self.norm2(x), shift2, scale2))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def compare_generator_steps(
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
    """Return each form's samples a second, and the relative difference of their first losses.

    Both start from the same weights and see the same batch; steps alternate, and the median of
    `rounds`, after two that are not timed, counts. `precision` and `compiled` apply to eqzoo's
    form; the plain one runs in fp32. `size`, `patch_size` and `latent_size` are
    `DiffusionTransformer`'s.
    """
    torch.manual_seed(0)
    ours = DiffusionTransformer(size, patch_size, latent_size=latent_size)
    for parameter in ours.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.02)  # zeros would leave blocks without gradients
    plain = PlainDiffusionTransformer(size, patch_size, latent_size=latent_size)
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
    alternate(steps, 1, device)
    seconds = alternate(steps, rounds, device)
    speeds = {name: batch_size / statistics.median(own) for name, own in seconds.items()}
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


class PlainConfidence(Confidence):
    """`Confidence` in the release's form: two predictions in every step, for every sample."""

    def first_probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Return `probabilities`, as in any other step."""
        return self.probabilities(generator, codes, labels, weight)

    def probabilities(self, generator: MaskGIT, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Return the probabilities, predicted with and without class even if the weight is 0."""
        tiny = torch.finfo(torch.float32).tiny
        return super().probabilities(generator, codes, labels, weight or tiny)


class PlainMaskTransformer(MaskTransformer):
    """A `MaskTransformer` that also computes the logits of classes and of the class token, and drops them."""

    def head(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, h * w + 1, D) as logits (B, h * w, K + 1)."""
        logits = F.linear(self.last_layer(tokens), self.tok_emb.weight) + self.bias
        return logits[:, :-1, : self.num_codes + 1]


def compare_sampling(
    size: str | tuple[int, int, int],
    *,
    grid: int,
    num_classes: int,
    batch_size: int,
    steps: int,
    rounds: int,
    device: torch.device,
) -> tuple[dict[str, float], float]:
    """Return each form's images a second, and the share of codes that are equal.

    Both have the same random weights, labels (of `num_classes`) and streams; they alternate, and
    the fastest of `rounds` batches counts, after one of a single step that is not timed. `size`
    and `grid` are `MaskTransformer`'s.
    """
    torch.manual_seed(0)
    ours = MaskTransformer(size, grid=grid, num_classes=num_classes)
    plain = PlainMaskTransformer(size, grid=grid, num_classes=num_classes)
    plain.load_state_dict(ours.state_dict())
    forms = {
        'eqzoo': (MaskGIT(ours).eval().to(device), Confidence),
        'plain': (MaskGIT(plain).eval().to(device), PlainConfidence),
    }
    labels = torch.randint(num_classes, (batch_size,)).to(device)
    codes: dict[str, Tensor] = {}

    def sample(name: str, steps: int) -> None:
        generator, sampler = forms[name]
        codes[name] = sampler(steps)(generator, labels, SampleStreams(0, torch.arange(batch_size))).cpu()

    alternate({name: partial(sample, name, 1) for name in forms}, 1, device)
    seconds = alternate({name: partial(sample, name, steps) for name in forms}, rounds, device)
    same = (codes['eqzoo'] == codes['plain']).float().mean()
    return {name: batch_size / min(own) for name, own in seconds.items()}, float(same)
