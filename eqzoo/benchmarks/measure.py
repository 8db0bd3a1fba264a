"""Measurement: stop-watches and peak memory."""

import ctypes
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

_PROC = Path('/proc/self')
_CPU = torch.device('cpu')


class Cost(NamedTuple):
    """Images a second, and the peak memory in GiB."""

    images_per_second: float
    peak_memory: float


def timed(work: Callable[[], Any], device: torch.device = _CPU) -> tuple[float, Any]:
    """Run `work`; return its seconds, until the device has finished, and its result."""
    _synchronize(device)
    started = time.perf_counter()
    result = work()
    _synchronize(device)
    return time.perf_counter() - started, result


def alternate(
    ways: Mapping[str, Callable[[], object]], rounds: int, device: torch.device = _CPU
) -> dict[str, list[float]]:
    """Run all ways in turn, `rounds` times, and return the seconds of each run.

    As they take turns, other work on the machine delays all of them equally.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            seconds[name].append(timed(work, device)[0])
    return seconds


def cpu_seconds(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run all ways in turn, once untimed and then `rounds` times, and return the CPU seconds of this thread."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            started = time.thread_time()
            work()
            if number:
                seconds[name].append(time.thread_time() - started)
    return seconds


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median ratio of times that were measured in turn."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def peak_memory(work: Callable[[], object], device: torch.device) -> float:
    """Run `work` and return its peak memory in GiB: the device's, or on CPU the process's.

    On Linux the process's peak is reset first; on other systems it is that of the whole run.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) / 2**30
    if (_PROC / 'clear_refs').exists():
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that the allocator keeps would count
        (_PROC / 'clear_refs').write_text('5')
    work()
    if (_PROC / 'status').exists():
        line = next(line for line in (_PROC / 'status').read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
