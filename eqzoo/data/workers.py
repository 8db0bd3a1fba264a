"""Processes of loaders: their number, and the signals that they leave to the main process."""

import multiprocessing
import os
import signal
import threading
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
