"""Checkpoints of training: finding, reading, atomic writing, retention, and plain contents."""

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from torch import Tensor

from eqzoo.distributed import rank_and_world_size, say_once
from eqzoo.engine.ema import averages_in_place
from eqzoo.files import replacing, zip_damage
from eqzoo.registry import HOOKS
from eqzoo.registry.ranges import PositiveInt
from eqzoo.report.table import better

_LOG_VALUES = 1000  # values of each scalar kept in a checkpoint: the longest window of a log's mean


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the newest checkpoint in a work directory, or None."""
    return max(_numbered(work_dir), key=step_of, default=None)


def latest_whole_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Return the newest undamaged checkpoint, and a line about each newer one that is damaged.

    Every byte is read and compared with the checksums in the file, and its contents are read as a resume reads them.
    """
    damage = []
    for file in sorted(_numbered(work_dir), key=step_of, reverse=True):
        reason = zip_damage(file) or _unreadable(file)
        if reason is None:
            return file, damage
        damage.append(f'{file.name}: {reason}')
    return None, damage


def _unreadable(file: Path) -> str | None:
    """Return why torch cannot read a checkpoint, or None."""
    try:
        read_checkpoint(file, mmap=True)
    except Exception as error:  # whatever torch makes of damage that is in no checksum, or of another kind of file
        return f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'
    return None


def step_of(file: Path) -> int | None:
    """Return the step in a checkpoint's file name, or None."""
    number = file.stem.removeprefix('iter_')
    return int(number) if number.isdigit() else None


def read_checkpoint(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a training checkpoint without running any code that it contains.

    Args:
        path: The file.
        mmap: Leave the tensors' bytes in the file until they are used.
    """
    return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Save a checkpoint every N steps and after the last; keep the newest and the best.

    Files are `iter_<step>.pth`, and `best_<metric>_iter_<step>.pth` for the best validation so far. A file is written
    before an older one is deleted. A signal, or an earlier end of the run, can leave a checkpoint of a step that is not
    due. It is deleted when the next one is written, so a stopped run ends with the same files as one that was not
    stopped; so is the last one of a finished run that goes on to a later end.

    Differs from mmengine's: that deletes first, and remembers paths instead of looking into the folder.

    Args:
        interval: N.
        max_keep_ckpts: Number of newest checkpoints to keep; -1 for all.
        keep_every: Checkpoints at multiples of this number of steps are kept too, whatever `interval` wrote them. A
            remark names the steps if `interval` leaves some out.
        save_best: Name of the metric that decides which is best, one of those that `evaluators` compute; None for none.
            Choose it with care: docs/metrics.md says what each metric predicts of a generator.
        rule: Whether 'less' or 'greater' is better; None for the metric's own direction, which is 'less' for one of a
            name that eqzoo does not know. NaN is never the best.

    Raises:
        ValueError: If an argument is out of range.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        interval: PositiveInt = 1000,
        *,
        max_keep_ckpts: PositiveInt | Literal[-1] = 2,
        keep_every: PositiveInt | None = None,
        save_best: str | None = None,
        rule: Literal['less', 'greater'] | None = None,
    ) -> None:
        if keep_every is not None and keep_every % interval:
            written = math.lcm(interval, keep_every)
            say_once(
                f'CheckpointHook.keep_every: got {keep_every:,}, no multiple of the interval {interval:,}: checkpoints '
                f'of steps {written:,}, {2 * written:,}, … are written and kept. For all multiples of keep_every, set '
                'interval to one of its divisors.'
            )
        self.interval, self.max_keep_ckpts, self.keep_every = interval, max_keep_ckpts, keep_every
        self.save_best = save_best
        self.rule = rule or ('greater' if save_best is not None and better(save_best) == 'higher' else 'less')

    def before_train(self, runner: Runner) -> None:
        """Delete checkpoints that the run would have deleted before it was killed."""
        if rank_and_world_size()[0] == 0:
            self._prune(runner, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save if a checkpoint is due."""
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self.save(runner)

    def save(self, runner: Runner) -> None:
        """Save the step that has just ended, then delete checkpoints that are no longer kept."""
        step = runner.iter + 1
        _write(runner, f'iter_{step}.pth', step)
        if rank_and_world_size()[0] == 0:
            self._prune(runner, step)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save the weights if they are the best so far.

        Raises:
            ValueError: If no evaluator computes the metric.
        """
        if self.save_best is None:
            return
        if self.save_best not in (metrics or {}):
            raise ValueError(
                f'default_hooks.checkpoint.save_best: got {self.save_best!r}; the evaluators compute '
                f'{", ".join(sorted(metrics or {}))}.'
            )
        value, hub = metrics[self.save_best], runner.message_hub
        best = hub.get_info('best_score') if 'best_score' in hub.runtime_info else None
        is_first = best is None or math.isnan(best)
        if math.isnan(value) or not (is_first or (value < best if self.rule == 'less' else value > best)):
            return
        hub.update_info('best_score', value)
        metric = self.save_best.replace('/', '_')
        name = f'best_{metric}_iter_{runner.iter}.pth'
        before = hub.get_info('best_file') if 'best_file' in hub.runtime_info else name
        hub.update_info('best_file', name)
        _write(runner, name, runner.iter)
        if rank_and_world_size()[0] == 0 and before != name:  # others of such names are not this run's
            (Path(runner.work_dir) / before).unlink(missing_ok=True)
        runner.logger.info(f'Best {self.save_best} so far, {value:.4f}: {name}')

    def _prune(self, runner: Runner, step: int) -> None:
        """Delete checkpoints up to `step`, the newest, that are not kept."""
        if self.max_keep_ckpts == -1:
            return
        # later ones are damaged: the run has resumed before them, and will replace them
        files = {step_of(file): file for file in _numbered(runner.work_dir) if step_of(file) <= step}
        due = sorted(each for each in files if each % self.interval == 0 or each == runner.max_iters)
        kept = {step, *due[-self.max_keep_ckpts :]}
        if self.keep_every is not None:
            kept |= {each for each in files if each % self.keep_every == 0}
        for each in files.keys() - kept:
            files[each].unlink()


def _write(runner: Runner, name: str, step: int) -> None:
    """Save a checkpoint, after calling the hooks' `before_checkpoint` on every process."""
    runner.call_hook('before_checkpoint')  # mmengine calls `before_save_checkpoint` on the first process only
    # mmengine's counter of begun steps is one ahead at a resumed run's first validation
    runner.message_hub.update_info('iter', step - 1)
    runner.save_checkpoint(runner.work_dir, name, by_epoch=False, meta=dict(epoch=0, iter=step))


@HOOKS.register_module()
class ModelConfigHook(Hook):
    """Save the model's `stored_config` beside its weights, so that the file can be opened by itself.

    The config is plain data, since checkpoints are read with `weights_only=True`.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the config."""
        with averages_in_place(runner):  # a card is of the weights that are read from the file
            checkpoint |= runner.model.stored_config(runner.cfg.model)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Keep pickled objects out of checkpoints; refuse a checkpoint with other weights when it is loaded.

    mmengine stores its log buffers and numpy scalars, which `torch.load` refuses with
    `weights_only=True`; and it resumes with `strict=False`, so that after a warning a checkpoint of
    another model would continue from random weights. The last values of the log are kept as plain
    lists, so that a resumed run logs the same means as a run that never stopped.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._log: dict[str, Any] = {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Replace the log history by its last values, numpy values by Python's, and tensors by contiguous ones."""
        hub = dict(checkpoint['message_hub'])
        checkpoint['log'] = {name: _last_values(buffer) for name, buffer in runner.message_hub.log_scalars.items()}
        dropped = set(hub['log_scalars'])
        hub['log_scalars'] = OrderedDict()
        hub['resumed_keys'] = OrderedDict((k, v) for k, v in hub['resumed_keys'].items() if k not in dropped)
        checkpoint['message_hub'] = hub
        for key in checkpoint:
            if key != 'state_dict':
                checkpoint[key] = _plain(checkpoint[key])
        weights = checkpoint['state_dict']
        for name, tensor in weights.items():
            weights[name] = _plain(tensor)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare the names, shapes and types of the checkpoint's tensors with the model's.

        Raises:
            ValueError: If they differ.
        """
        # mmengine would run this text as Python; eqzoo writes none
        checkpoint['meta'].pop('config', None)
        have, want = checkpoint['state_dict'], runner.model.state_dict()
        missing, unknown = want.keys() - have.keys(), have.keys() - want.keys()
        others = [name for name in want.keys() & have.keys() if _form(have[name]) != _form(want[name])]
        if missing or unknown or others:
            first = f': {min(others)} is {_form(have[min(others)])}, not {_form(want[min(others)])}' if others else ''
            raise ValueError(
                f'The checkpoint does not fit the model: {len(missing)} tensors are missing '
                f'({_first_names(missing)}), {len(unknown)} are unknown ({_first_names(unknown)}), '
                f'{len(others)} have another shape or type{first}. Resume with the config it was made with.'
            )
        _lay_out_as_weights(checkpoint, runner)
        self._log = checkpoint.get('log', {})

    def before_train(self, runner: Runner) -> None:
        """Put the last values of the log back."""
        for name, (values, counts) in self._log.items():
            for value, count in zip(values, counts, strict=True):
                runner.message_hub.update_scalar(name, value, count)


class AtomicLocalBackend(LocalBackend):
    """Atomic writing of files: a kill leaves the old file or the new one."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write the bytes `obj` to `filepath`."""
        with replacing(filepath) as temporary:
            temporary.write_bytes(obj)


# the only way to change how `Runner.save_checkpoint` writes files
register_backend('local', AtomicLocalBackend, prefixes='', force=True)


def _lay_out_as_weights(checkpoint: dict[str, Any], runner: Runner) -> None:
    """Give the states of optimizers the strides of their weights, which fused kernels take for granted."""
    for name, state in checkpoint.get('optimizer', {}).items():
        groups = runner.optim_wrapper[name].optimizer.param_groups
        parameters = [each for group in groups for each in group['params']]
        for number, values in state['state'].items():
            like = parameters[number] if number < len(parameters) else None
            for key, value in values.items():
                is_of_weight = like is not None and isinstance(value, Tensor) and value.shape == like.shape
                if is_of_weight and value.stride() != like.stride():
                    values[key] = torch.empty_strided(like.shape, like.stride(), dtype=value.dtype).copy_(value)


def _numbered(work_dir: str | Path) -> list[Path]:
    """Return the checkpoints `iter_<step>.pth`."""
    return [file for file in Path(work_dir).glob('iter_*.pth') if step_of(file) is not None]


def _last_values(buffer: HistoryBuffer) -> tuple[list[float], list[int]]:
    """Return the last values of a scalar, and of how many each is the mean."""
    values, counts = (each[-_LOG_VALUES:].tolist() for each in buffer.data)
    return values, [int(count) for count in counts]


def _plain(value: Any) -> Any:
    """Return `value` without numpy types, which `torch.load(weights_only=True)` refuses; tensors contiguous."""
    if isinstance(value, Tensor):
        return value.contiguous()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return type(value)((key, _plain(item)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _form(value: Any) -> str:
    """Return a tensor's type and shape in words."""
    return f'{value.dtype} {tuple(value.shape)}' if isinstance(value, torch.Tensor) else type(value).__name__


def _first_names(names: set[str]) -> str:
    return ', '.join(sorted(names)[:5]) or 'none'
