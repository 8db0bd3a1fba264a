"""`eqzoo env`: versions, devices and folders, for a bug report."""

import configparser
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import chain
from pathlib import Path

from eqzoo import __version__

_ROOT = Path(__file__).resolve().parents[2]

_NAME = re.compile(r'[\w.-]+')
_EXTRA = re.compile(r'extra == [\'"]([\w-]+)')


def env() -> None:
    """Print versions, devices and folders, to paste into a bug report.

    Nothing is sent anywhere, and no environment variable that could be a secret is printed.
    """
    lines = {**_versions(), **_devices(), **_folders()}
    width = max(map(len, lines)) + 2
    print(*(f'{name:<{width}}{value}' for name, value in lines.items()), sep='\n')


def _versions() -> dict[str, str]:
    needed, extras = _requirements()
    packages = {name: _version_of(name) for name in dict.fromkeys([*needed, *chain(*extras.values())])}
    found = {name: value for name, value in packages.items() if value is not None}
    lacking = {extra: [name for name in names if name not in found] for extra, names in extras.items()}
    missing = ', '.join(f'{extra} ({", ".join(names)})' for extra, names in lacking.items() if names)
    return {
        'eqzoo': f'{__version__}{_commit()}',
        'python': f'{platform.python_version()} ({sys.executable})',
        'system': f'{platform.platform()}',
        **found,
        'not installed': ', '.join(name for name in needed if name not in found) or '-',
        'missing extras': f"{missing}; pip install 'eqzoo[NAME]' adds one" if missing else '-',
    }


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Return the packages that eqzoo needs, and those of each extra but `test` and `docs`."""
    setup = configparser.ConfigParser()
    setup.read(_ROOT / 'setup.cfg')
    if setup.get('metadata', 'name', fallback=None) == 'eqzoo':  # a checkout, which may not be installed
        groups = {'': setup['options']['install_requires'], **setup['options.extras_require']}
        groups = {extra: lines.splitlines() for extra, lines in groups.items()}
    else:
        try:
            lines = requires('eqzoo') or []
        except PackageNotFoundError:  # a folder of modules that pip did not make
            lines = []
        groups = {}
        for line in lines:
            extra = _EXTRA.search(line)
            groups.setdefault(extra[1] if extra else '', []).append(line)
    names = {extra: [_NAME.match(line)[0] for line in lines if line] for extra, lines in groups.items()}
    return names.pop('', []), {extra: found for extra, found in names.items() if extra not in ('test', 'docs')}


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
    from eqzoo.machine import hardware

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
