"""The loops under mmengine's Runner: steps that can start anywhere, and evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from eqzoo.engine.evaluation import compute, update
from eqzoo.evaluators.base import Evaluator
from eqzoo.randomness import StepRandomness
from eqzoo.registry import LOOPS


@LOOPS.register_module()
class StepLoop(BaseLoop):
    """Train for a number of steps; a resumed run goes straight to its place in the data.

    Differs from mmengine's IterBasedTrainLoop: it sets the sampler's start instead of
    decoding again everything already seen, and hands each step its own random streams.

    Args:
        runner: mmengine's runner.
        dataloader: Batches without end, with a `RunSampler`.
        max_iters: The steps of the whole run.
        val_interval: Steps between validations; the last step is always validated.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader, max_iters: int, val_interval: int = 1000) -> None:
        super().__init__(runner, dataloader)
        self.max_iters = max_iters
        self.val_interval = val_interval
        self.stop_training = False
        # the names that mmengine's Runner and hooks read and write
        self.max_epochs = 1
        self.val_begin = 1
        self._epoch = 0
        self._iter = 0

    @property
    def epoch(self) -> int:
        """Always 0: a run is one long epoch."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Return the steps done."""
        return self._iter

    def run(self) -> torch.nn.Module:
        """Train until `max_iters` and return the model."""
        runner = self.runner
        sampler = self.dataloader.sampler
        sampler.start_draw = self._iter * self.dataloader.batch_size * sampler.world_size
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        if self._iter:  # a resumed run: its checkpoint is from before the validation of that step
            self._validate_if_due()
        batches = iter(self.dataloader)
        while self._iter < self.max_iters and not self.stop_training:
            runner.model.train()
            self._run_step(next(batches))
            self._validate_if_due()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def _validate_if_due(self) -> None:
        due = self._iter % self.val_interval == 0 or self._iter == self.max_iters
        if due and self.runner.val_loop is not None and not self.stop_training:
            self.runner.val_loop.run()

    def _run_step(self, batch: Mapping[str, Any]) -> None:
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=batch)
        randomness = StepRandomness(runner.seed, self._iter)
        outputs = runner.model.train_step(batch, runner.optim_wrapper, randomness)
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=batch, outputs=outputs)
        self._iter += 1


@LOOPS.register_module()
class EvaluationLoop(BaseLoop):
    """Run evaluators over a data set between training steps.

    Args:
        runner: mmengine's runner.
        dataloader: Batches, every image once.
        evaluator: The evaluators.

    Raises:
        ValueError: If the data set is too small for one of them.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader, evaluator: Sequence[Evaluator]) -> None:
        super().__init__(runner, dataloader)
        self.evaluators = evaluator
        for each in evaluator:
            each.check(len(self.dataloader.dataset))

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Evaluate, tell the hooks, and return the metrics."""
        runner = self.runner
        runner.call_hook('before_val')
        runner.call_hook('before_val_epoch')
        runner.model.eval()
        for index, batch in enumerate(self.dataloader):
            runner.call_hook('before_val_iter', batch_idx=index, data_batch=batch)
            update(self.evaluators, runner.model.val_step(batch), batch)
            runner.call_hook('after_val_iter', batch_idx=index, data_batch=batch, outputs=None)
        metrics = compute(self.evaluators, len(self.dataloader.dataset))
        runner.call_hook('after_val_epoch', metrics=metrics)
        runner.call_hook('after_val')
        return metrics
