"""Counts and names the images that could not be read while training."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eqzoo.registry import HOOKS


@HOOKS.register_module()
class UnreadableHook(Hook):
    """Warn of each unreadable image once, and say at the end how many there were."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Name the images that this batch left out."""
        for name in data_batch['unreadable']:
            if name not in self.names:
                self.names.add(name)
                runner.logger.warning(f'Unreadable image skipped: {name} ({len(self.names)} so far)')

    def after_train(self, runner: Runner) -> None:
        """Say how many there were."""
        if self.names:
            runner.logger.warning(f'{len(self.names)} unreadable images were skipped.')
