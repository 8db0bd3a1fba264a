"""What a result was made on."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

_PACKAGES = ('torch', 'torchvision', 'diffusers', 'timm', 'mmengine-lite', 'numpy')


def hardware() -> dict[str, Any]:
    """Return processor, threads, memory, GPU, Python and the versions of what numbers depend on."""
    return {
        'processor': _processor(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'memory_gib': _memory(),
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'python': platform.python_version(),
        'system': f'{platform.system()} {platform.machine()}',
        **{name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    try:
        with open('/proc/cpuinfo') as info:  # noqa: PTH123 - a file of the kernel's, not of anyone's disk
            names = [line.split(':', 1)[1].strip() for line in info if line.startswith('model name')]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30)
    except (ValueError, OSError, AttributeError):
        return None
