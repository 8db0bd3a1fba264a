"""What encoding and decoding cost, beside a reference."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from eqzoo.autoencoders import Autoencoder
from eqzoo.benchmarks.cost import Cost
from eqzoo.benchmarks.memory import peak_memory


@torch.no_grad()
def coding_costs(
    autoencoder: Autoencoder, reference: Autoencoder, images: Tensor, *, rounds: int
) -> dict[str, tuple[Cost, float]]:
    """Return the cost of `encode` and of `decode`, and how many times as fast as the reference each is.

    Passes of the two alternate and the fastest of each counts: whatever else the machine does
    holds up both alike.

    Args:
        autoencoder: In evaluation mode.
        reference: Likewise.
        images: (B, 3, H, W), float in [-1, 1], on the autoencoders' device.
        rounds: Timed passes of each, after one that is not.
    """
    costs = {}
    for name in ('encode', 'decode'):
        work, other = (_work(each, name, images) for each in (autoencoder, reference))
        memory = peak_memory(work, images.device)
        other()
        pairs = [(_seconds(work, images.device), _seconds(other, images.device)) for _ in range(rounds)]
        ours, theirs = (min(seconds) for seconds in zip(*pairs, strict=True))
        costs[name] = Cost(len(images) / ours, memory), theirs / ours
    return costs


def _work(autoencoder: Autoencoder, name: str, images: Tensor) -> Callable[[], Tensor]:
    if name == 'encode':
        return lambda: autoencoder.encode(images).mean
    latents = autoencoder.encode(images).mean
    return lambda: autoencoder.decode(latents)


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    _synchronize(device)
    started = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
