"""Run as a program: two processes, then three, take means of gradients; each saves what it saw to FOLDER.

python averages.py FOLDER
"""

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from eqzoo.engine.averaging import GradientMean

SMALL = 64  # bytes: weights are sent by themselves, biases together


class Crossed(nn.Module):
    """Layers that are registered in another order than they are used in, and one that not every input reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 1)
        self.side = nn.Linear(6, 6)
        self.first = nn.Conv2d(2, 6, 3)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.idle = nn.Linear(6, 6)  # without a gradient anywhere

    def forward(self, x: Tensor, *, with_side: bool = True) -> Tensor:
        hidden = self.frozen(self.first(x).mean((2, 3)).tanh())
        return self.last(self.side(hidden) if with_side else hidden).square().mean()


class Views(nn.Module):
    """A sum of views of two weights: autograd gives both the same memory as gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(36)), nn.Parameter(torch.randn(1, 36))

    def forward(self, x: Tensor) -> Tensor:
        return (self.left.view(6, 6) * 1 + (self.left.view(6, 6) + self.right.view(6, 6)) * x.mean()).square().sum()


def images(step: int, micro_batch: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + 10 * micro_batch + dist.get_rank())
    return torch.randn(3, 2, 8, 8, generator=generator)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


def observe(network: nn.Module, losses: Callable[[int], list[Callable[[], Tensor]]], small: int = SMALL) -> list[dict]:
    """Return own gradients, their means and the traffic of three steps; `losses(step)` has the micro-batches'."""
    mean = GradientMean(list(network.parameters()), small)
    seen = []
    for step in range(3):
        *others, last = losses(step)
        for each in (*others, last):
            each().backward()
        own = gradients(network)
        network.zero_grad()
        for each in others:
            each().backward()
        loss = last()
        with mean.during_backward():
            loss.backward()
        mean.finish()
        strides = {name: each.grad.stride() for name, each in network.named_parameters() if each.grad is not None}
        seen.append({'own': own, 'mean': gradients(network), 'traffic': asdict(mean.traffic), 'strides': strides})
        network.zero_grad()
    return seen


def scenarios() -> dict[str, Callable[[], list[dict]]]:
    def plain(small: int = SMALL) -> list[dict]:
        network = Crossed()
        return observe(network, lambda step: [lambda: network(images(step))], small)

    def micro_batches() -> list[dict]:
        network = Crossed()
        return observe(network, lambda step: [lambda: network(images(step)), lambda: network(images(step, 1))])

    def uneven() -> list[dict]:  # another process has no gradient of `side`, and in turn
        network = Crossed()
        return observe(
            network, lambda step: [lambda: network(images(step), with_side=(step + dist.get_rank()) % 2 == 0)]
        )

    def views() -> list[dict]:
        network = Views()
        return observe(network, lambda step: [lambda: network(images(step))])

    def channels_last() -> list[dict]:
        network = Crossed().to(memory_format=torch.channels_last)
        return observe(network, lambda step: [lambda: network(images(step))])

    def differentiated_twice() -> list[dict]:
        network = Crossed()

        def loss(step: int) -> Tensor:
            value = network(images(step))
            (gradient,) = torch.autograd.grad(value, network.last.weight, retain_graph=True)
            return value * gradient.norm().detach()

        return observe(network, lambda step: [lambda: loss(step)])

    everything = [plain, micro_batches, uneven, views, channels_last, differentiated_twice]
    return {**{each.__name__: each for each in everything}, 'together': lambda: plain(2**20)}


def work(folder: Path, rank: int, world_size: int) -> None:
    store = dist.FileStore(str(folder / f'store_{world_size}'), world_size)
    dist.init_process_group('gloo', store=store, rank=rank, world_size=world_size)
    results = {}
    for name, scenario in scenarios().items():
        torch.manual_seed(0)
        results[name] = scenario()
    torch.save(results, folder / f'{rank}_of_{world_size}.pth')
    dist.barrier()
    dist.destroy_process_group()


def main(folder: Path) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    for world_size in (2, 3):
        children = []
        for rank in range(world_size):
            child = os.fork()
            if child == 0:
                try:
                    work(folder, rank, world_size)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
        if any(os.waitpid(child, 0)[1] for child in children):
            sys.exit(1)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
