"""Checkpoints that load safely, strictly, and after a kill at any moment."""

import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner

from eqzoo.registry import HOOKS
from eqzoo.zip_damage import zip_damage

_LOG_VALUES = 1000  # of each scalar in a checkpoint: as many as a log's mean may be of


class AtomicLocalBackend(LocalBackend):
    """Write a file beside its place and move it in: a kill leaves the old one or the new one."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write the bytes `obj` to `filepath`."""
        path = Path(filepath)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open('wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise OSError(
                error.errno,
                f'{error.strerror}, writing {len(obj) / 2**20:.0f} MiB; what was there before is as it was',
                str(path),
            ) from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


# mmengine has no other way to say how its hook writes files.
register_backend('local', AtomicLocalBackend, prefixes='', force=True)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keep checkpoints free of pickled objects, and refuse one with other weights on loading.

    mmengine stores its log buffers and numpy scalars, which `torch.load` refuses with
    `weights_only=True`; and it resumes with `strict=False`, so that a checkpoint of another
    model would go on from random weights after a warning. Of the log the last values are kept, as plain
    lists, so that the means of a resumed run's log are those of a run that never stopped.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._log: dict[str, Any] = {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace the log history by its last values, and turn numpy values into Python's."""
        hub = dict(checkpoint['message_hub'])
        checkpoint['log'] = {name: _last(buffer) for name, buffer in runner.message_hub.log_scalars.items()}
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
        self._log = checkpoint.get('log', {})

    def before_train(self, runner: Runner) -> None:
        """Put the last values of the log back."""
        for name, (values, counts) in self._log.items():
            for value, count in zip(values, counts, strict=True):
                runner.message_hub.update_scalar(name, value, count)


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the newest checkpoint of a work directory."""
    return max(_numbered(work_dir), key=step_of, default=None)


def latest_whole_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that is whole, and what is wrong with newer ones.

    Every byte is read, and compared with the sums in the file.
    """
    damage = []
    for file in sorted(_numbered(work_dir), key=step_of, reverse=True):
        reason = zip_damage(file)
        if reason is None:
            return file, damage
        damage.append(f'{file.name}: {reason}')
    return None, damage


def _numbered(work_dir: str | Path) -> list[Path]:
    return [file for file in Path(work_dir).glob('iter_*.pth') if step_of(file) is not None]


def step_of(file: Path) -> int | None:
    """Return the step that a checkpoint's name says, if it says one."""
    number = file.stem.removeprefix('iter_')
    return int(number) if number.isdigit() else None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint without running any code in it."""
    return torch.load(path, map_location='cpu', weights_only=True)


def _last(buffer: HistoryBuffer) -> tuple[list[float], list[int]]:
    values, counts = (each[-_LOG_VALUES:].tolist() for each in buffer.data)
    return values, [int(count) for count in counts]


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
