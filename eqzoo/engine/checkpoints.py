"""Checkpoints that load safely, strictly, and after a kill at any moment."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eqzoo.registry import HOOKS


class AtomicLocalBackend(LocalBackend):
    """Write a file beside its place and move it in: a kill leaves the old one or the new one."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write the bytes `obj` to `filepath`."""
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
        try:
            with temporary.open('wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


# mmengine has no other way to say how its hook writes files.
register_backend('local', AtomicLocalBackend, prefixes='', force=True)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keep checkpoints free of pickled objects, and refuse one with other weights on loading.

    mmengine stores its log buffers and numpy scalars, which `torch.load` refuses with
    `weights_only=True`; and it resumes with `strict=False`, so that a checkpoint of another
    model would go on from random weights after a warning.
    """

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Drop the log history and turn numpy values into Python's."""
        hub = dict(checkpoint['message_hub'])
        dropped = set(hub['log_scalars'])
        hub['log_scalars'] = OrderedDict()
        hub['resumed_keys'] = OrderedDict((k, v) for k, v in hub['resumed_keys'].items() if k not in dropped)
        checkpoint['message_hub'] = hub
        for key in checkpoint:
            if key != 'state_dict':
                checkpoint[key] = _plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint's names with the model's.

        Raises:
            ValueError: If they differ.
        """
        have, want = set(checkpoint['state_dict']), set(runner.model.state_dict())
        if have != want:
            raise ValueError(
                f'The checkpoint does not fit the model: {len(want - have)} tensors are missing '
                f'({_first(want - have)}), {len(have - want)} are unknown ({_first(have - want)}). '
                'Resume with the config it was made with.'
            )


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the newest checkpoint of a work directory, also after the directory was moved."""
    pointer = Path(work_dir) / 'last_checkpoint'
    if pointer.is_file():
        # mmengine writes an absolute path
        path = Path(work_dir) / Path(pointer.read_text().strip()).name
        if path.is_file():
            return path
    steps = {path: path.stem.removeprefix('iter_') for path in Path(work_dir).glob('iter_*.pth')}
    numbered = {path: int(step) for path, step in steps.items() if step.isdigit()}
    return max(numbered, key=numbered.get, default=None)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint without running any code in it."""
    return torch.load(path, map_location='cpu', weights_only=True)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return type(value)((key, _plain(item)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _first(names: set[str]) -> str:
    return ', '.join(sorted(names)[:5]) or 'none'
