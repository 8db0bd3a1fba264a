"""The machine that numbers were computed on: its devices, and the versions of packages."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ('torch', 'torchvision', 'diffusers', 'timm', 'mmengine-lite', 'numpy')  # numbers depend on them


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
