"""Stops a run in good order when the machine is wanted back."""

import signal
from types import FrameType
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eqzoo.distributed import greatest_over_processes, rank_and_world_size
from eqzoo.engine.checkpoint_hook import CheckpointHook
from eqzoo.registry import HOOKS

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@HOOKS.register_module()
class StopHook(Hook):
    """Finish the step, save a checkpoint and stop on SIGTERM or SIGUSR1, which SLURM sends before it takes a node back.

    Several processes agree every few steps, since signals reach them in different ones.

    Args:
        interval: Steps between agreements.
    """

    priority = 'LOWEST'

    def __init__(self, interval: int = 8) -> None:
        self.interval = interval
        self.received = 0
        self.stopped_at: int | None = None
        self._before: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Listen."""
        self._before = {each: signal.signal(each, self._receive) for each in SIGNALS}

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save and stop if a signal has come."""
        if not self._is_due(runner):
            return
        self.stopped_at = runner.iter + 1
        name = signal.Signals(self.received).name
        if not self.is_last_train_iter(runner):
            checkpoint = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
            checkpoint.save(runner)
        runner.logger.warning(f'{name}: stopped after step {self.stopped_at}, which is saved; go on with --resume.')
        runner.train_loop.stop_training = True

    def _is_due(self, runner: Runner) -> bool:
        if rank_and_world_size()[1] == 1:
            return bool(self.received)
        if (runner.iter + 1) % self.interval and not self.is_last_train_iter(runner):
            return False
        self.received = greatest_over_processes(self.received)
        return bool(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number  # SLURM and torchrun each send one to every process


def stopped_by(runner: Runner) -> int:
    """Return the signal that stopped a run, or 0."""
    return next((hook.received for hook in runner.hooks if isinstance(hook, StopHook) and hook.stopped_at), 0)
