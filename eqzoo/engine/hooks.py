"""Training hooks: logged scalars, stopping on signals, unreadable images, idle codes of a codebook."""

import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

import torch
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from eqzoo.data.loaders import with_reason
from eqzoo.distributed import (
    all_gather_object,
    all_reduce,
    local_shard,
    max_over_processes,
    mean_over_processes,
    rank_and_world_size,
)
from eqzoo.engine.checkpoints import CheckpointHook, latest_checkpoint
from eqzoo.engine.training import Training
from eqzoo.evaluators.codebook import perplexity
from eqzoo.precision import to_double
from eqzoo.randomness import Stream, seeded
from eqzoo.registry import HOOKS
from eqzoo.registry.ranges import PositiveFloat, PositiveInt
from eqzoo.text import counted, printable

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

_STEPS_AT_ONCE = 100  # steps whose values wait on the device if there is no logger to read them earlier
_MAX_NAMES = 8  # images named in a message

_Step = tuple[int, Mapping[str, Any], Mapping[str, Any]]  # number, logged values, batch


@HOOKS.register_module()
class RunInfoHook(RuntimeInfoHook):
    """mmengine's hook without its reading of all values in every step, for which the host waits for the device."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Do nothing: `ScalarsHook` reads the step's values."""


@HOOKS.register_module()
class ScalarsHook(Hook):
    """Keep logged scalars on the device until they are needed by the logger, a validation or a checkpoint.

    They are then averaged over processes and read all at once. The first step whose loss is not
    finite stops the run, before a checkpoint of such weights is written; with
    `model.on_nonfinite='skip'` such values are left out of the log's means instead.
    """

    priority = 55  # after hooks that add to a step's outputs, before the logger's 60

    def __init__(self) -> None:
        self._waiting: list[_Step] = []
        self._interval = _STEPS_AT_ONCE

    def before_train(self, runner: Runner) -> None:
        """Look up the interval of the logger."""
        loggers = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._interval = min(loggers, default=_STEPS_AT_ONCE)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Keep the step's values; read all waiting values when the log is due."""
        self._waiting.append((runner.iter, outputs, {name: data_batch.get(name) for name in ('indices', 'draws')}))
        if self.every_n_train_iters(runner, self._interval) or self.is_last_train_iter(runner):
            self.read(runner)

    def before_val(self, runner: Runner) -> None:
        """Read all waiting values: a run whose loss is not finite stops before the validation."""
        self.read(runner)

    def read(self, runner: Runner) -> None:
        """Read all waiting values into mmengine's log.

        Raises:
            FloatingPointError: Naming the first step whose loss is not finite, and its batch.
        """
        waiting, self._waiting = self._waiting, []
        tensors = [value for _, outputs, _ in waiting for value in outputs.values() if isinstance(value, Tensor)]
        if not tensors:
            return
        own = torch.stack([to_double(each.detach()).reshape(()) for each in tensors])
        (means_of_all,) = mean_over_processes([own])
        skips = runner.model.on_nonfinite == 'skip'
        own, means_of_all = iter(own.tolist()), iter(means_of_all.tolist())
        for step, outputs, batch in waiting:
            names = [name for name, value in outputs.items() if isinstance(value, Tensor)]
            # not strict: each step takes its own values off the two iterators
            values, means = (dict(zip(names, each, strict=False)) for each in (own, means_of_all))
            if not skips and not _are_finite(means):
                raise FloatingPointError(_nonfinite_message(runner, step, values, batch))
            for name, value in {**outputs, **means}.items():
                if math.isfinite(value) or not skips:
                    runner.message_hub.update_scalar(f'train/{name}', value)

    def before_checkpoint(self, runner: Runner) -> None:
        """Read all waiting values, and look at the weights: a run that has diverged stops before the checkpoint.

        Raises:
            FloatingPointError: If a loss or a weight is not finite; a gradient may be, where the loss is finite.
        """
        self.read(runner)
        weights = [local_shard(each.detach()) for each in runner.model.parameters()]
        norms = torch.stack([to_double(each) for each in torch._foreach_norm(weights)])
        (finite,) = mean_over_processes([to_double(norms.isfinite().all())])
        if finite < 1:
            raise FloatingPointError(
                f'The weights are not finite, though the losses were: a gradient was not. {_remedy(runner)}'
            )


@HOOKS.register_module()
class ProgressHook(Hook):
    """Print losses and the time left early and whenever the logger is silent for long.

    On the terminal only: log, scalars and checkpoints are those of a run without this hook. The losses are those of
    the first process's samples in that step, not the logger's means.

    Args:
        steps: Steps since the start after which a line is printed.
        seconds: Time without a line after which one is printed.
    """

    priority = 'LOWEST'

    def __init__(self, steps: Sequence[PositiveInt] = (1, 5), seconds: PositiveFloat = 30.0) -> None:
        self.steps, self.seconds = tuple(steps), seconds

    def before_train(self, runner: Runner) -> None:
        """Start the clocks."""
        self._loggers = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._done, self._printed_at = 0, time.monotonic()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Print a line if one is due and the logger has not just printed its own."""
        now = time.monotonic()
        self._done += 1
        if self._done == 1:
            self._begun_at = now  # the first step has start-ups of its own: loaders, kernels, compilation
        is_due = self._done in self.steps or now - self._printed_at >= self.seconds
        is_logged = any(self.every_n_train_iters(runner, interval) for interval in self._loggers)
        if is_due or is_logged:
            self._printed_at = now
        if is_due and not is_logged and rank_and_world_size()[0] == 0:
            print(self._line(runner, outputs, now), flush=True)

    def _line(self, runner: Runner, outputs: Mapping[str, Any], now: float) -> str:
        step = runner.iter + 1
        values = [f'{name}: {float(value):.4f}' for name, value in outputs.items()]
        if self._done > 1:
            pace = (now - self._begun_at) / (self._done - 1)
            left = timedelta(seconds=int(pace * (runner.max_iters - step)))
            values += [f'{pace:.3g} s a step', f'about {left} left']
        return f'step {step:,} of {runner.max_iters:,}  {"  ".join(values)}'


@HOOKS.register_module()
class StopHook(Hook):
    """Finish the step, save a checkpoint and stop on Ctrl-C, or on SIGTERM or SIGUSR1, which SLURM sends at the end.

    A second Ctrl-C stops at once, without saving. Several processes agree every few steps, since a signal reaches
    them in different steps.

    Args:
        interval: Steps between agreements.
    """

    priority = 'LOWEST'

    def __init__(self, interval: PositiveInt = 8) -> None:
        self.interval = interval
        self.received = 0
        self.stopped_at: int | None = None
        self._before: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers."""
        # a shell starts `command &` of a script with Ctrl-C ignored, and nohup means it too
        heard = [each for each in SIGNALS if each != signal.SIGINT or signal.getsignal(each) != signal.SIG_IGN]
        self._before = {each: signal.signal(each, self._receive) for each in heard}

    def after_train(self, runner: Runner) -> None:
        """Restore the previous signal handlers."""
        self.restore()

    def restore(self) -> None:
        """Restore the previous signal handlers. The runner calls this after a failure, which mmengine tells no hook."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save and stop if a signal has arrived."""
        if not self._is_due(runner):
            return
        self.stopped_at = runner.iter + 1
        name = signal.Signals(self.received).name
        runner.train_loop.stop_training = True
        checkpoint = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if checkpoint is None:
            runner.logger.warning(f'{name}: stopped after step {self.stopped_at}; the config saves no checkpoints.')
            return
        if not self.is_last_train_iter(runner):
            checkpoint.save(runner)
        runner.logger.warning(f'{name}: stopped after step {self.stopped_at}, which is saved; continue with --resume.')

    def _is_due(self, runner: Runner) -> bool:
        if rank_and_world_size()[1] == 1:
            return bool(self.received)
        if (runner.iter + 1) % self.interval and not self.is_last_train_iter(runner):
            return False
        self.received = max_over_processes(self.received)
        return bool(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.received == signal.SIGINT:
                raise KeyboardInterrupt
            if rank_and_world_size()[0] == 0:  # not print, which a signal may have interrupted
                os.write(2, b'\nStopping after this step, which is saved. Ctrl-C again stops at once.\n')
        self.received = self.received or number  # the first counts: SLURM and torchrun both send one


@HOOKS.register_module()
class UnreadableHook(Hook):
    """Warn of each unreadable image once, and of the first enlarged one; log their numbers at the end.

    Only the first process has a log. It warns of its own images at once, and of those of other processes before the
    next checkpoint.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.num_enlarged = 0
        # of this process, since the processes met the last time
        self._unreadable: dict[str, str] = {}
        self._enlarged: list[str] = []
        self._has_enlarged = False

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Name the images that are missing from this batch."""
        reasons = data_batch.get('reasons', {})
        missing = {name: printable(with_reason(name, reasons)) for name in data_batch['unreadable']}
        enlarged = data_batch.get('enlarged', [])
        self.num_enlarged += len(enlarged)
        self._unreadable |= {name: named for name, named in missing.items() if name not in self.names}
        self._enlarged = self._enlarged or enlarged[:1]
        self._warn(runner, missing, enlarged)

    def before_checkpoint(self, runner: Runner) -> None:
        """Name the images that other processes lacked; all processes meet here."""
        for unreadable, enlarged in all_gather_object((self._unreadable, self._enlarged)):
            self._warn(runner, unreadable, enlarged)
        self._unreadable, self._enlarged = {}, []

    def after_train(self, runner: Runner) -> None:
        """Log the numbers of unreadable and of enlarged images of all processes."""
        self.before_checkpoint(runner)
        num_enlarged = sum(all_gather_object(self.num_enlarged))
        if self.names:
            runner.logger.warning(f'Skipped: {counted(len(self.names), "unreadable image")}.')
        if num_enlarged:
            runner.logger.warning(f'Enlarged: {counted(num_enlarged, "image")} of the batches.')

    def _warn(self, runner: Runner, unreadable: Mapping[str, str], enlarged: Sequence[str]) -> None:
        for name, named in unreadable.items():
            if name not in self.names:
                self.names.add(name)
                runner.logger.warning(f'Unreadable image skipped: {named} ({len(self.names)} so far)')
        if enlarged and not self._has_enlarged:
            self._has_enlarged = True
            runner.logger.warning(
                f'Enlarged, being smaller than the crop: {printable(enlarged[0])}. on_small of the dataset says what '
                "to do with such images: 'enlarge', 'skip' or 'refuse'."
            )


@HOOKS.register_module()
class CodebookHook(Hook):
    """Log the usage of a `VQAutoencoder`'s codebook, and replace idle codes.

    Each step logs `codebook/usage`, the share of the K codes that any process chose,
    `codebook/perplexity`, exp of the entropy of that choice (1 to K), and, with
    `revive_after`, `codebook/revived`. A code that was not chosen for `revive_after` steps is
    replaced by a random feature of the current step (as in Jukebox, arXiv 2005.00341, Sec. 3), and
    its optimizer state is set to zero. Checkpoints hold the number of idle steps of each code.
    A frozen codebook (`model.encoder_rate=0`) keeps its codes, and a step whose update was skipped replaces none.

    Args:
        revive_after: Number of steps without use after which a code is replaced. None: never.

    Raises:
        ValueError: If `revive_after` is not positive, or there is no table of codes to replace any in.
    """

    def __init__(self, revive_after: PositiveInt | None = None) -> None:
        self.revive_after = revive_after
        self.idle: Tensor | None = None
        self._is_listening = False
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
        if self.revive_after is not None and autoencoder.codebook is None:
            raise ValueError(
                f'CodebookHook.revive_after: got {self.revive_after}, but {type(autoencoder.quantize).__name__} '
                'computes its codes and has none to replace; leave revive_after out.'
            )
        if self.idle is None:
            self.idle = torch.zeros(autoencoder.num_codes, dtype=torch.long, device=autoencoder.last_layer.device)

    def before_train(self, runner: Runner) -> None:
        """Listen to the quantizer: not earlier, so that the moving average's copy of it has no such listener."""
        self._listener = runner.model.autoencoder.quantize.register_forward_hook(partial(self._listen, runner.model))

    def after_train(self, runner: Runner) -> None:
        """Remove the listener."""
        self._listener.remove()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Listen for this step: features of a whole validation would fill the memory."""
        self._is_listening = True

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log this step's usage and replace codes that are due."""
        self._is_listening = False
        counts = to_double(torch.bincount(torch.cat(self._indices), minlength=len(self.idle)))
        all_reduce(counts)
        is_used = counts > 0
        scalars = {'usage': to_double(is_used).mean(), 'perplexity': perplexity(counts)}
        self.idle = torch.where(is_used.to(self.idle.device), 0, self.idle + 1)
        if self.revive_after is not None:
            keeps = getattr(runner.model, 'encoder_rate', 1) == 0 or bool(outputs.get('skipped', False))
            scalars['revived'] = 0 if keeps else self._revive(runner, data_batch['draws'])
        self._features.clear()
        self._indices.clear()
        # `ScalarsHook` reads them together with the step's other values
        outputs |= {f'codebook/{name}': value for name, value in scalars.items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Continue from the saved counts."""
        saved = checkpoint.get('codebook_idle')
        if saved is not None:
            self.idle = saved.to(runner.model.autoencoder.last_layer.device)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the counts."""
        checkpoint['codebook_idle'] = self.idle.cpu()

    def _listen(self, training: Training, module: Any, inputs: tuple[Tensor, ...], outputs: Any) -> None:
        if not self._is_listening or training.is_repeating:
            return
        self._indices.append(outputs[2][2].flatten())
        if self.revive_after is not None:
            self._features.append(inputs[0].detach().movedim(1, -1).flatten(0, -2))

    @torch.no_grad()
    def _revive(self, runner: Runner, draws: Tensor) -> int:
        """Replace the codes that are due by features of the whole step; return their number."""
        due = (self.idle >= self.revive_after).nonzero().flatten()
        if not len(due):
            return 0
        features = self._features_of_all(draws)
        order = torch.randperm(len(features), generator=seeded(runner.seed, Stream.CODEBOOK, runner.iter))
        due = due[: len(features)]
        autoencoder = runner.model.autoencoder
        autoencoder.replace_codes(due, features[order[: len(due)]].to(autoencoder.codebook))
        codebook = autoencoder.codebook
        for state in runner.optim_wrapper['autoencoder'].optimizer.state.get(codebook, {}).values():
            if isinstance(state, Tensor) and state.shape == codebook.shape:
                state[due] = 0
        self.idle[due] = 0
        return len(due)

    def _features_of_all(self, draws: Tensor) -> Tensor:
        """Return the features (N, C) of this step's samples on all processes, in the order of their draws."""
        own = torch.cat(self._features)
        parts = all_gather_object((draws, own.view(len(draws), -1, own.shape[-1]).cpu()))
        all_draws, samples = (torch.cat(each) for each in zip(*parts, strict=True))
        return samples[all_draws.argsort()].flatten(0, 1)


def stopped_by(runner: Runner) -> int:
    """Return the number of the signal that stopped a run, or 0."""
    return next((hook.received for hook in runner.hooks if isinstance(hook, StopHook) and hook.stopped_at), 0)


def _are_finite(values: Mapping[str, float]) -> bool:
    """Return whether all losses and norms of gradients are finite, a discriminator's too."""
    return all(math.isfinite(value) for name, value in values.items() if name.endswith(('loss', 'grad_norm')))


def _nonfinite_message(runner: Runner, step: int, values: Mapping[str, float], batch: Mapping[str, Any]) -> str:
    if _are_finite(values):
        return f'step {step + 1}: the loss of another process is not finite; see its message.'
    shown = ', '.join(f'{name} {value:.4g}' for name, value in values.items())
    indices = batch['indices'].tolist() if batch['indices'] is not None else []
    names = getattr(runner.train_dataloader.dataset, 'names', None)
    images = [str(names[index] if names else index) for index in indices]
    more = f' and {len(images) - _MAX_NAMES} more' if len(images) > _MAX_NAMES else ''
    return (
        f'step {step + 1}: the loss is not finite ({shown}); its batch on this process: '
        f'{", ".join(images[:_MAX_NAMES])}{more}. {_remedy(runner)}'
    )


def _remedy(runner: Runner) -> str:
    latest = latest_checkpoint(runner.work_dir)
    remedy = f'Continue from {latest.name} with --resume' if latest else 'There is no checkpoint yet: start again'
    return f'{remedy}, with a smaller learning rate or clip_grad, or leave such steps out: model.on_nonfinite=skip.'
