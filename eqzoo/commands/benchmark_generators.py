"""`tools/benchmark.py generator-step`: what a generator's training step costs, beside the plainest form."""

from typing import Literal

import torch
from mmengine.device import get_device

from eqzoo.benchmarks.generators import compare_steps


def generator_step(
    *,
    size: str = 'S',
    patch: int = 2,
    latent_size: int = 32,
    batch_size: int = 8,
    precision: Literal['fp32', 'bf16'] = 'fp32',
    compile: bool = False,
    rounds: int = 5,
) -> None:
    """Time a DiT's training step beside the same with timm's attention, not fused, in fp32.

    Args:
        size: S, B, L or XL.
        patch: Latent cells of a token's side.
        latent_size: Cells of a latent's side.
        batch_size: Samples of a step.
        precision: Of eqzoo's form: fp32 or bf16.
        compile: Compile eqzoo's form.
        rounds: Steps of each; the median counts.
    """
    device = torch.device(get_device())
    speeds, difference = compare_steps(
        size,
        patch,
        latent_size=latent_size,
        batch_size=batch_size,
        rounds=rounds,
        device=device,
        precision=precision,
        compiled=compile,
    )
    how = f'{precision}{", compiled" if compile else ""}'
    print(f'DiT-{size}/{patch}, batch {batch_size}, {device}, {torch.get_num_threads()} threads, eqzoo in {how}')
    for name, speed in speeds.items():
        print(f'{name:<8}{speed:>10.3g} samples/s')
    print(f'ratio: {speeds["eqzoo"] / speeds["plain"]:.2f}x, losses differ by {difference:.1e} relatively')
