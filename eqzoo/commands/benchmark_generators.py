"""`tools/benchmark.py generator-step` and `sampling`: what a step and a sample cost, beside the plainest form."""

from typing import Literal

import torch
from mmengine.device import get_device

from eqzoo.benchmarks.code_sampling import compare_sampling
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


def sampling(
    *,
    size: str = 'base',
    grid: int = 16,
    classes: int = 1000,
    batch_size: int = 2,
    steps: int = 8,
    rounds: int = 2,
) -> None:
    """Time MaskGIT's sampling beside the same loop without what eqzoo spares.

    That is the prediction for no class where guidance has no weight, the first prediction of a
    class that other samples of the batch have too, and the logits of classes.

    Args:
        size: base, big or huge.
        grid: Codes of an image's side.
        classes: From which the batch's labels are drawn.
        batch_size: Images at once.
        steps: Of the sampler.
        rounds: Batches of each form; the fastest counts.
    """
    device = torch.device(get_device())
    options = dict(grid=grid, num_classes=classes, batch_size=batch_size, steps=steps, rounds=rounds)
    speeds, same = compare_sampling(size, **options, device=device)
    print(
        f'MaskGIT-{size}, {grid} x {grid} codes, {classes} classes, batch {batch_size}, {steps} steps, {device}, '
        f'{torch.get_num_threads()} threads'
    )
    for name, speed in speeds.items():
        print(f'{name:<8}{speed:>10.3g} images/s')
    print(f'ratio: {speeds["eqzoo"] / speeds["plain"]:.2f}x, {same:.2%} of the codes are the same')
