"""Hooks of training: scalars, stops by signal, unreadable images, dead codes."""

import math
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from eqzoo.distributed import all_gather_object, all_reduce, average, greatest_over_processes, rank_and_world_size
from eqzoo.engine.checkpoints import CheckpointHook, latest_checkpoint
from eqzoo.evaluators.codebook import perplexity
from eqzoo.randomness import seeded
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


_STREAM = 2  # beside 0 and 1 of `StepRandomness`


@HOOKS.register_module()
class CodebookHook(Hook):
    """Log how a `VQAutoencoder` uses its codes, and revive those that it does not use.

    Each step logs `codebook/usage`, the share of the K codes that any process chose,
    `codebook/perplexity`, exp of the entropy of that choice (1 to K), and, with
    `revive_after`, `codebook/revived`. A code that nothing chose for `revive_after` steps is
    replaced by a feature of the step at hand, drawn at random (as Jukebox does,
    arXiv 2005.00341, Sec. 3), and its optimizer state is forgotten. The count of idle steps is
    saved in checkpoints.

    Args:
        revive_after: Steps without use after which a code is replaced. None: never.

    Raises:
        ValueError: If `revive_after` is not positive.
    """

    def __init__(self, revive_after: int | None = None) -> None:
        if revive_after is not None and revive_after < 1:
            raise ValueError(f'CodebookHook.revive_after must be at least 1 step, or None, got {revive_after}.')
        self.revive_after = revive_after
        self.idle: Tensor | None = None
        self._features: list[Tensor] = []
        self._indices: list[Tensor] = []

    def before_run(self, runner: Runner) -> None:
        """Check that there is a codebook.

        Raises:
            ValueError: If there is none.
        """
        autoencoder = runner.model.autoencoder
        if not autoencoder.has_codebook:
            raise ValueError(f'CodebookHook: {type(autoencoder).__name__} has no codebook; leave the hook out.')
        if self.idle is None:
            self.idle = torch.zeros(autoencoder.num_codes, dtype=torch.long, device=autoencoder.last_layer.device)

    def before_train(self, runner: Runner) -> None:
        """Listen to the quantizer; only now, when the moving average has been copied without it."""
        self._listener = runner.model.autoencoder.quantize.register_forward_hook(self._listen)

    def after_train(self, runner: Runner) -> None:
        """Stop listening."""
        self._listener.remove()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Forget what was quantised outside of a step."""
        self._features.clear()
        self._indices.clear()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log this step's usage and revive codes that are due."""
        counts = torch.bincount(torch.cat(self._indices), minlength=len(self.idle)).double()
        all_reduce(counts)
        scalars = {'usage': (counts > 0).double().mean(), 'perplexity': perplexity(counts)}
        self.idle = torch.where(counts > 0, 0, self.idle + 1)
        if self.revive_after is not None:
            scalars['revived'] = self._revive(runner, data_batch['draws'])
        outputs |= {f'codebook/{name}': value for name, value in scalars.items()}  # read with the step's other values

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on from the saved counts."""
        saved = checkpoint.get('codebook_idle')
        if saved is not None:
            self.idle = saved.to(runner.model.autoencoder.last_layer.device)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the counts."""
        checkpoint['codebook_idle'] = self.idle.cpu()

    def _listen(self, module: Any, inputs: tuple[Tensor, ...], outputs: Any) -> None:
        self._indices.append(outputs[2][2].flatten())
        if self.revive_after is not None:
            self._features.append(inputs[0].detach().movedim(1, -1).flatten(0, -2))

    @torch.no_grad()
    def _revive(self, runner: Runner, draws: Tensor) -> int:
        """Replace the codes that are due by features of the whole step; return how many."""
        due = (self.idle >= self.revive_after).nonzero().flatten()
        if not len(due):
            return 0
        features = self._everyones_features(draws)
        order = torch.randperm(len(features), generator=seeded(runner.seed, _STREAM, runner.iter))
        due = due[: len(features)]
        codebook = runner.model.autoencoder.quantize.embedding.weight
        codebook[due] = features[order[: len(due)]].to(codebook)
        for state in runner.optim_wrapper['autoencoder'].optimizer.state.get(codebook, {}).values():
            if isinstance(state, Tensor) and state.shape == codebook.shape:
                state[due] = 0
        self.idle[due] = 0
        return len(due)

    def _everyones_features(self, draws: Tensor) -> Tensor:
        """Return the features (N, C) of this step's samples, in the order of their draws, however many processes."""
        own = torch.cat(self._features)
        parts = all_gather_object((draws, own.view(len(draws), -1, own.shape[-1]).cpu()))
        all_draws, samples = (torch.cat(each) for each in zip(*parts, strict=True))
        return samples[all_draws.argsort()].flatten(0, 1)
