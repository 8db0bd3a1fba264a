"""When checkpoints are written, and which are kept."""

from pathlib import Path
from typing import Any, Literal

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eqzoo.distributed import rank_and_world_size
from eqzoo.engine.checkpoints import step_of
from eqzoo.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Save every N steps and after the last, keep the newest and the best, each written before another is deleted.

    Files are `iter_<step>.pth`, and `best_<metric>_iter_<step>.pth` where a validation gave the
    best value yet. Differs from mmengine's: that deletes first, and remembers paths instead of
    looking at what is there.

    Args:
        interval: N.
        max_keep_ckpts: How many of the newest are kept; -1 all.
        keep_every: Checkpoints at multiples of so many steps are kept beside those.
        save_best: The metric that says which is best; None for none.
        rule: Whether 'less' or 'greater' is better.

    Raises:
        ValueError: If an argument is out of range.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        interval: int = 1000,
        *,
        max_keep_ckpts: int = 2,
        keep_every: int | None = None,
        save_best: str | None = None,
        rule: Literal['less', 'greater'] = 'less',
    ) -> None:
        if interval < 1 or (keep_every is not None and keep_every < 1):
            raise ValueError(
                f'CheckpointHook.interval and keep_every must be at least 1, got {interval}, {keep_every}.'
            )
        if max_keep_ckpts < 1 and max_keep_ckpts != -1:
            raise ValueError(f'CheckpointHook.max_keep_ckpts must be at least 1, or -1 for all, got {max_keep_ckpts}.')
        if rule not in ('less', 'greater'):
            raise ValueError(f"CheckpointHook.rule must be 'less' or 'greater', got {rule!r}.")
        self.interval, self.max_keep_ckpts, self.keep_every = interval, max_keep_ckpts, keep_every
        self.save_best, self.rule = save_best, rule

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save when it is due."""
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self.save(runner)

    def save(self, runner: Runner) -> None:
        """Save the step that has just been made, then delete what is no longer kept."""
        step = runner.iter + 1
        _write(runner, f'iter_{step}.pth', step)
        if rank_and_world_size()[0] == 0:
            self._prune(Path(runner.work_dir))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Save the weights if they are the best yet.

        Raises:
            ValueError: If no evaluator gives the metric.
        """
        if self.save_best is None:
            return
        if self.save_best not in (metrics or {}):
            raise ValueError(
                f'default_hooks.checkpoint.save_best: got {self.save_best!r}; the evaluators give '
                f'{", ".join(sorted(metrics or {}))}.'
            )
        value, hub = metrics[self.save_best], runner.message_hub
        best = hub.get_info('best_score') if 'best_score' in hub.runtime_info else None
        if not (best is None or (value < best if self.rule == 'less' else value > best)):
            return
        hub.update_info('best_score', value)
        metric = self.save_best.replace('/', '_')
        name = f'best_{metric}_iter_{runner.iter}.pth'
        _write(runner, name, runner.iter)
        if rank_and_world_size()[0] == 0:
            for file in Path(runner.work_dir).glob(f'best_{metric}_iter_*.pth'):
                if file.name != name:
                    file.unlink()
        runner.logger.info(f'Best {self.save_best} yet, {value:.4f}: {name}')

    def _prune(self, folder: Path) -> None:
        numbered = {file: step for file in folder.glob('iter_*.pth') if (step := step_of(file)) is not None}
        if self.max_keep_ckpts == -1:
            return
        newest_last = sorted(numbered, key=numbered.get)
        for file in newest_last[: -self.max_keep_ckpts]:
            if self.keep_every is None or numbered[file] % self.keep_every:
                file.unlink()


def _write(runner: Runner, name: str, step: int) -> None:
    """Save a checkpoint; hooks with a method `before_checkpoint` are called in every process before."""
    runner.call_hook('before_checkpoint')  # mmengine's `before_save_checkpoint` is the first process's alone
    runner.save_checkpoint(runner.work_dir, name, by_epoch=False, meta=dict(epoch=0, iter=step))
