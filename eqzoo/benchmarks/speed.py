"""Speed, memory and share of the machine's matrix-product peak, of whatever eqzoo spends its time on."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from eqzoo.benchmarks.memory import peak_memory

_PEAK_SIDES = (1024, 2048, 4096)  # of square matrices, the fastest of which is the peak


@dataclass
class Work:
    """Something to measure.

    Args:
        name: As it is shown.
        run: Does it once.
        images: How many images, latents or samples that are.
        precision: 'fp32' or 'bf16', whose peak it is held against.
    """

    name: str
    run: Callable[[], object]
    images: int
    precision: str = 'fp32'


@dataclass
class Measured:
    """What a piece of work cost.

    Args:
        name: Of the work.
        images_per_second: Of the fastest round.
        peak_memory: GiB, the device's, or of the whole process on a CPU.
        flops: Floating-point operations of a second: products and sums of matrix products,
            convolutions and attention, forward and backward.
        share: `flops` over the peak.
    """

    name: str
    images_per_second: float
    peak_memory: float
    flops: float
    share: float

    def row(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return asdict(self)


def matmul_peak(device: torch.device, dtype: torch.dtype, *, rounds: int = 3) -> float:
    """Return the floating-point operations a second of the fastest square matrix product."""
    best = 0.0
    for side in _PEAK_SIDES if device.type == 'cuda' else _PEAK_SIDES[:2]:
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        fastest = min(seconds_of(lambda left=left, right=right: left @ right, device) for _ in range(rounds + 1))
        best = max(best, 2 * side**3 / fastest)
    return best


def measure(work: Work, device: torch.device, peak: float, *, rounds: int) -> Measured:
    """Return what `work` costs: memory in a first round, operations in a second, then the fastest of `rounds`.

    Args:
        work: It.
        device: Where it is done.
        peak: Of its precision, from `matmul_peak`.
        rounds: How many are timed.
    """
    memory = peak_memory(work.run, device)
    with FlopCounterMode(display=False) as counter:
        work.run()
    fastest = min(seconds_of(work.run, device) for _ in range(rounds))
    flops = counter.get_total_flops() / fastest
    return Measured(work.name, work.images / fastest, memory, flops, flops / peak)


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Return how long `run` takes, until the device is done."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
