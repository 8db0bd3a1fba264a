"""Measurement: stop-watches, peak memory, and a description of the machine."""

import ctypes
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

_PACKAGES = ('torch', 'torchvision', 'diffusers', 'timm', 'mmengine-lite', 'numpy')  # numbers depend on them
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


def hardware() -> dict[str, Any]:
    """Return processor, threads, memory, GPU, Python and the versions of the packages that numbers depend on."""
    return {
        'processor': processor_name(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'memory_gib': _memory(),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'python': platform.python_version(),
        'system': f'{platform.system()} {platform.machine()}',
        **{name: version(name) for name in _PACKAGES},
    }


def processor_name() -> str:
    """Return the processor's name, on Linux with its model."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30)
    except (ValueError, OSError, AttributeError):
        return None


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
