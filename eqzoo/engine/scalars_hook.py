"""The log's numbers, read from the device now and then, and a stop when one is not a number."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from eqzoo.distributed import average
from eqzoo.engine.checkpoints import latest_checkpoint
from eqzoo.registry import HOOKS

_Step = tuple[int, Mapping[str, Any], Mapping[str, Any]]  # its number, what it logs, of what batch

_AT_ONCE = 100  # steps whose values wait on the device, where no logger asks for them earlier


@HOOKS.register_module()
class RunInfoHook(RuntimeInfoHook):
    """mmengine's hook without its reading of every value in every step, for which the host waits for the device."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Leave the step's values to `ScalarsHook`."""


@HOOKS.register_module()
class ScalarsHook(Hook):
    """Keep what a step logs on its device until somebody asks: the logger, a validation, a checkpoint.

    Then all of it is averaged over processes and read at once, and the first step whose loss is
    not finite stops the run, before a checkpoint of spoilt weights is written. Under
    `model.on_nonfinite='skip'` such values are left out of the log's means instead.
    """

    priority = 55  # after hooks that add to a step's outputs, before the logger's 60

    def __init__(self) -> None:
        self._waiting: list[_Step] = []
        self._interval = _AT_ONCE

    def before_train(self, runner: Runner) -> None:
        """Look up how often the log is written."""
        loggers = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._interval = min(loggers, default=_AT_ONCE)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keep the step's values; read all that wait when the log is due."""
        self._waiting.append((runner.iter, outputs, {name: data_batch.get(name) for name in ('indices', 'draws')}))
        if self.every_n_train_iters(runner, self._interval) or self.is_last_train_iter(runner):
            self.read(runner)

    def before_val(self, runner: Runner) -> None:
        """Read what waits: weights that are spoilt are not worth validating."""
        self.read(runner)

    def read(self, runner: Runner) -> None:
        """Hand all waiting values to mmengine's log.

        Raises:
            FloatingPointError: Naming the first step whose loss is not finite, and its batch.
        """
        waiting, self._waiting = self._waiting, []
        tensors = [value for _, outputs, _ in waiting for value in outputs.values() if isinstance(value, Tensor)]
        if not tensors:
            return
        own = torch.stack([each.detach().double().reshape(()) for each in tensors])
        (everyones,) = average([own])
        skips = runner.model.on_nonfinite == 'skip'
        own, everyones = iter(own.tolist()), iter(everyones.tolist())
        for step, outputs, batch in waiting:
            names = [name for name, value in outputs.items() if isinstance(value, Tensor)]
            values, means = (dict(zip(names, each, strict=False)) for each in (own, everyones))
            if not skips and not _are_finite(means):
                raise FloatingPointError(_message(runner, step, values, batch))
            for name, value in {**outputs, **means}.items():
                if math.isfinite(value) or not skips:
                    runner.message_hub.update_scalar(f'train/{name}', value)

    def before_checkpoint(self, runner: Runner) -> None:
        """Read what waits: weights that are spoilt are not saved."""
        self.read(runner)


def _are_finite(values: Mapping[str, float]) -> bool:
    """Return whether all losses are, a discriminator's too."""
    return all(math.isfinite(value) for name, value in values.items() if name.endswith('loss'))


def _message(runner: Runner, step: int, values: Mapping[str, float], batch: Mapping[str, Any]) -> str:
    if _are_finite(values):
        return f'step {step + 1}: the loss of another process is not finite; its message says more.'
    shown = ', '.join(f'{name} {value:.4g}' for name, value in values.items())
    indices = batch['indices'].tolist() if batch['indices'] is not None else []
    names = getattr(runner.train_dataloader.dataset, 'names', None)
    images = [names[index] for index in indices] if names else indices
    latest = latest_checkpoint(runner.work_dir)
    go_on = (
        f'{latest.name} is from before: go on with --resume' if latest else 'There is no checkpoint yet: start again'
    )
    more = f' and {len(images) - 8} more' if len(images) > 8 else ''
    return (
        f'step {step + 1}: the loss is not finite ({shown}); its batch on this process: {_first(images)}{more}. '
        f'{go_on}, with a smaller learning rate or clip_grad, or leave such steps out: model.on_nonfinite=skip.'
    )


def _first(images: list[Any]) -> str:
    return ', '.join(map(str, images[:8]))
