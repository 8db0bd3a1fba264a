"""Stop-watches and memory."""

import ctypes
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Cost:
    """Images a second, and the peak memory in GiB."""

    images_per_second: float
    peak_memory: float


_PROC = Path('/proc/self')


def peak_memory(work: Callable[[], object], device: torch.device) -> float:
    """Run `work` and return its peak memory in GiB: the device's, or on CPU the process's.

    On Linux the process's peak is reset first; elsewhere it is that of the whole run.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) / 2**30
    _reset_process_peak()
    work()
    return _process_peak()


def _reset_process_peak() -> None:
    if (_PROC / 'clear_refs').exists():
        ctypes.CDLL(None).malloc_trim(0)  # freed memory kept by the allocator would count
        (_PROC / 'clear_refs').write_text('5')


def _process_peak() -> float:
    if (_PROC / 'status').exists():
        line = next(line for line in (_PROC / 'status').read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
