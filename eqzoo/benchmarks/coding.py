"""What encoding and decoding cost."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from eqzoo.autoencoders import Autoencoder
from eqzoo.benchmarks.cost import Cost
from eqzoo.benchmarks.memory import peak_memory


@torch.no_grad()
def coding_costs(autoencoder: Autoencoder, images: Tensor, *, rounds: int) -> dict[str, Cost]:
    """Return the cost of `encode` and of `decode`.

    Args:
        autoencoder: In evaluation mode.
        images: (B, 3, H, W), float in [-1, 1], on the autoencoder's device.
        rounds: Timed passes, after one that is not.
    """
    latents = autoencoder.encode(images).mean
    work = {'encode': lambda: autoencoder.encode(images).mean, 'decode': lambda: autoencoder.decode(latents)}
    return {name: _cost(function, images, rounds) for name, function in work.items()}


def _cost(function: Callable[[], Tensor], images: Tensor, rounds: int) -> Cost:
    memory = peak_memory(function, images.device)
    _synchronize(images.device)
    started = time.perf_counter()
    for _ in range(rounds):
        function()
    _synchronize(images.device)
    return Cost(rounds * len(images) / (time.perf_counter() - started), memory)


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
