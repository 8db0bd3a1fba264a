"""Processes of loaders: their number, the memory of their batches, and the signals that they leave to the main one."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from eqzoo.distributed import rank_and_world_size


def worker_options(num_workers: int) -> dict[str, Any]:
    """Return the arguments of a `DataLoader` about its processes.

    More processes than cores read no faster and take memory each: their number is capped to the cores that this
    process may use, which is printed once. It changes no batch.

    Args:
        num_workers: The processes that are asked for; 0 reads in this process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    if num_workers > cores:
        _say_cap(num_workers, cores)
    used = min(num_workers, cores)
    # only forked processes inherit threads that a library makes anew; others are fresh
    forks = used > 0 and multiprocessing.get_start_method() == 'fork'
    return dict(
        num_workers=used, worker_init_fn=leave_signals, **(dict(multiprocessing_context=CONTEXT) if forks else {})
    )


class _ForkedWorker(multiprocessing.get_context('fork').Process):
    """A process that is born with SIGTERM blocked.

    Some libraries make their threads anew in a forked process, Arrow's pools for one, before any code of ours runs
    there: a signal to the group would end the process through one of them.
    """

    def start(self) -> None:
        """Fork the process."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _ForkContext(type(multiprocessing.get_context('fork'))):
    Process = _ForkedWorker


CONTEXT = _ForkContext()
"""Where loaders get their processes from."""


def batch_memory(num_bytes: int) -> Tensor:
    """Return uninitialised memory of a batch, (num_bytes,) uint8.

    In the worker of a loader it is memory shared with the main process, as in torch's `default_collate`: other memory
    would be copied there.
    """
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(num_bytes, np.uint8))  # numpy asks for huge pages
    return torch.tensor([], dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(num_bytes))


class BatchRows:
    """Memory for the images of a batch, one behind the other, so that none of them is copied into the batch.

    Args:
        count: The most images.
    """

    def __init__(self, count: int) -> None:
        self._count, self._next = count, 0
        self._rows: Tensor | None = None

    def take(self, height: int, width: int) -> Tensor:
        """Return uninitialised memory of the next image, (3, height, width) uint8.

        The first one decides on the size: memory for others, and for more than `count`, is somewhere else.
        """
        if self._rows is None:
            self._rows = batch_memory(self._count * 3 * height * width).view(self._count, 3, height, width)
        if self._next == self._count or self._rows.shape[2:] != (height, width):
            return batch_memory(3 * height * width).view(3, height, width)
        self._next += 1
        return self._rows[self._next - 1]


def joined(images: Sequence[Tensor]) -> Tensor | None:
    """Return images that lie one behind the other in one memory as one tensor (B, …), without a copy; None for others.

    Example:
        >>> rows = torch.arange(6).view(3, 2)
        >>> joined([rows[1], rows[2]]), joined([rows[2], rows[1]])
        (tensor([[2, 3],
                [4, 5]]), None)
    """
    first, size = images[0], images[0].numel()
    memory = first.untyped_storage().data_ptr()
    for place, image in enumerate(images):
        is_next = image.storage_offset() == first.storage_offset() + place * size
        if not is_next or not image.is_contiguous() or image.untyped_storage().data_ptr() != memory:
            return None
    return first.as_strided((len(images), *first.shape), (size, *first.stride()))


def leave_signals(worker_id: int = 0) -> None:
    """Leave signals to the main process, which finishes its step and saves: a `worker_init_fn`.

    A terminal, SLURM and torchrun send them to all processes. Only SIGTERM of the main process itself ends a
    worker: with it multiprocessing ends those that are left when the main process does, and waits for them.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, 'sigwaitinfo'):  # macOS
        return
    # Blocked here and in all threads that follow, so that it waits for the one that can ask for its sender.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_on_wish_of, args=(os.getppid(),), daemon=True).start()


def _end_on_wish_of(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


@cache  # once, not for each loader
def _say_cap(asked: int, cores: int) -> None:
    if rank_and_world_size()[0] == 0:
        print(f'num_workers: {asked} asked for, {cores} used, one for each core of this process.', flush=True)
