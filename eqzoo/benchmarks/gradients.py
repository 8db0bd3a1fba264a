"""Benchmark of averaging gradients over processes: during the backward pass, and in one sum after it."""

import tempfile
import time
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from eqzoo.config import Config
from eqzoo.distributed import use_device
from eqzoo.engine.averaging import GradientMean, Traffic
from eqzoo.engine.runner import build_optimizers, train_loader
from eqzoo.engine.training import optimized_parameters
from eqzoo.randomness import StepRandomness
from eqzoo.registry import build


class ConcatenatedMean:
    """The mean of all gradients as one message after the backward pass, copied together and back."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.traffic = Traffic()

    def during_backward(self) -> AbstractContextManager:
        """Do nothing."""
        return nullcontext()

    def finish(self) -> None:
        """Replace all gradients by their means."""
        for each in self.parameters:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
        flat = torch.cat([each.grad.reshape(-1) for each in self.parameters])
        dist.all_reduce(flat)
        mean = flat / dist.get_world_size()
        for each, piece in zip(self.parameters, mean.split([each.numel() for each in self.parameters]), strict=True):
            each.grad.copy_(piece.view_as(each))
        self.traffic.sent += flat.nbytes
        self.traffic.copied += 3 * flat.nbytes  # together, divided, and back
        self.traffic.messages += 1


WAYS = {'after the pass': ConcatenatedMean, 'during the pass': GradientMean}


def compare_averaging(
    config: Config, num_processes: int, rounds: int
) -> tuple[dict[str, tuple[float, Traffic]], float]:
    """Train two copies of a model in steps that alternate, each with its own way, on the CPU.

    Args:
        config: Of an autoencoder, with data.
        num_processes: The number of processes.
        rounds: Steps of each way, after one that is not counted.

    Returns:
        The first process's seconds a step and the traffic of `rounds` steps of each way; and the largest difference
        between the weights of the two copies.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _work, (num_processes, config.to_dict(), rounds, folder), nprocs=num_processes, join=True
        )
        costs, difference = torch.load(Path(folder) / 'result.pth', weights_only=False)
    return {name: (seconds, Traffic(**traffic)) for name, (seconds, traffic) in costs.items()}, difference


def _work(rank: int, num_processes: int, config: dict[str, Any], rounds: int, folder: str) -> None:
    torch.set_num_threads(1)
    use_device('cpu')
    store = dist.FileStore(f'{folder}/store', num_processes)
    dist.init_process_group('gloo', store=store, rank=rank, world_size=num_processes)
    config = Config(config)
    batches = iter(train_loader(config))
    models, optimizers, seconds = {}, {}, defaultdict(float)
    for name, way in WAYS.items():
        torch.manual_seed(config.seed)
        model = models[name] = build(config.model).train()
        optimizers[name] = build_optimizers(model, config)
        model._means = {each: way(optimized_parameters(each)) for each in optimizers[name].values()}
    for step in range(rounds + 1):
        batch = next(batches)
        for name, model in models.items():
            started = time.perf_counter()
            model.train_step(batch, optimizers[name], StepRandomness(config.seed, step))
            if step:
                seconds[name] += time.perf_counter() - started
            else:
                for each in model._means.values():
                    each.traffic = Traffic()
    left, right = (model.state_dict() for model in models.values())
    difference = max(float((left[name].double() - right[name].double()).abs().max()) for name in left)
    if rank == 0:
        costs = {
            name: (seconds[name] / rounds, _together([each.traffic for each in model._means.values()]))
            for name, model in models.items()
        }
        torch.save((costs, difference), Path(folder) / 'result.pth')
    dist.barrier()
    dist.destroy_process_group()


def _together(traffic: list[Traffic]) -> dict[str, int]:
    return {name: sum(getattr(each, name) for each in traffic) for name in ('sent', 'early', 'copied', 'messages')}
