"""`eqzoo env`: versions, devices and folders, for a bug report."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from eqzoo import __version__

_ROOT = Path(__file__).resolve().parents[2]


def env() -> None:
    """Print versions, devices and folders, to paste into a bug report.

    Nothing is sent anywhere, and no environment variable that could be a secret is printed.
    """
    lines = {**_versions(), **_devices(), **_folders()}
    width = max(map(len, lines)) + 2
    print(*(f'{name:<{width}}{value}' for name, value in lines.items()), sep='\n')


def _versions() -> dict[str, str]:
    packages = {name: _version_of(name) for name in _dependencies()}
    found = {name: value for name, value in packages.items() if value is not None}
    return {
        'eqzoo': f'{__version__}{_commit()}',
        'python': f'{platform.python_version()} ({sys.executable})',
        'system': f'{platform.platform()}',
        **found,
        'not installed': ', '.join(name for name in packages if name not in found) or '-',
    }


def _dependencies() -> Iterator[str]:
    """Yield the packages that eqzoo needs, then those of its extras."""
    try:
        lines = requires('eqzoo') or []
    except PackageNotFoundError:  # a checkout that is not installed
        lines = ['torch', 'torchvision', 'mmengine-lite', 'timm', 'diffusers']
    yield from dict.fromkeys(re.match(r'[\w.-]+', line)[0] for line in lines)


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """Return the commit of a checkout, and whether files differ from it."""
    if not (_ROOT / '.git').exists():
        return ''
    git = ['git', '-C', str(_ROOT), 'describe', '--always', '--dirty=, with changes', '--abbrev=10', '--exclude=*']
    try:
        described = subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git, or a folder of another owner
        return ''
    return f', commit {described}'


def _devices() -> dict[str, str]:
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken installation is what the report is about
        return {'torch': f'cannot be imported: {error}'}
    from eqzoo.benchmarks.measure import hardware

    machine = hardware()
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        'processor': f'{machine["processor"]}, {machine["cores"]} cores, {machine["threads"]} threads of torch',
        'memory': f'{machine["memory_gib"]} GiB',
        'cuda': f'{torch.version.cuda or "torch is built without it"}',
        'gpus': ', '.join(f'{each.name}, {each.total_memory / 2**30:.1f} GiB' for each in gpus) or 'none',
    }


def _folders() -> dict[str, str]:
    from eqzoo.zoo import cache_folder

    variables = sorted(name for name in os.environ if name.startswith(('EQZOO_', 'OMP_', 'CUDA_', 'NCCL_', 'HF_')))
    return {
        'cache': f'{cache_folder()}',
        'variables set': ', '.join(variables) or 'none of EQZOO_*, OMP_*, CUDA_*, NCCL_*, HF_*',
    }
