"""The moving average of the weights that a training is about."""

import copy
from typing import Any, ClassVar

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from eqzoo.distributed import local
from eqzoo.engine.sharding import duplicate, is_sharded
from eqzoo.registry import HOOKS


class MovingAverageHook(Hook):
    """Average a model's subject over steps, validate the average, save both.

    Checkpoints hold the average as `ema_state_dict` under the subject's own names.
    Differs from mmengine's EMAHook: nothing else is averaged, a discriminator say, and
    `state_dict` is never the swapped one.

    Args:
        decay: The share of the old average kept in a step.
    """

    priority = 'NORMAL'
    subject: ClassVar[str]

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f'{type(self).__name__}.decay must be in [0, 1), got {decay}.')
        self.decay = decay

    def before_run(self, runner: Runner) -> None:
        """Start from the weights as they are.

        Raises:
            ValueError: If the model trains something else.
        """
        trained = runner.model.subject
        if trained != self.subject:
            raise ValueError(
                f'{type(self).__name__} averages the {self.subject}, {type(runner.model).__name__} trains the '
                f'{trained}; use {trained.capitalize()}EMAHook.'
            )
        module = getattr(runner.model, trained)
        average = duplicate(runner.model, runner.cfg.model) if is_sharded(module) else copy.deepcopy(module)
        self.average = average.requires_grad_(False).eval()
        # listed once: to walk a model's modules anew takes milliseconds a step
        self._weights = [list(each.parameters()) for each in (module, self.average)]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on from the saved average, or from the loaded weights where there is none."""
        saved = checkpoint.get('ema_state_dict')
        self.average.load_state_dict(saved or getattr(runner.model, self.subject).state_dict())

    @torch.no_grad()
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the average a little towards the weights."""
        new, old = ([local(each) for each in weights] for weights in self._weights)
        torch._foreach_lerp_(old, new, 1 - self.decay)

    def before_val_epoch(self, runner: Runner) -> None:
        """Let the average be validated."""
        self.trained = getattr(runner.model, self.subject)
        setattr(runner.model, self.subject, self.average)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the trained weights back."""
        setattr(runner.model, self.subject, self.trained)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the average."""
        if not is_sharded(self.average):  # else gathered by all processes, before
            checkpoint['ema_state_dict'] = {name: value.cpu() for name, value in self.average.state_dict().items()}


@HOOKS.register_module()
class AutoencoderEMAHook(MovingAverageHook):
    """Average the autoencoder; see `MovingAverageHook`."""

    subject = 'autoencoder'


@HOOKS.register_module()
class GeneratorEMAHook(MovingAverageHook):
    """Average the generator; see `MovingAverageHook`."""

    subject = 'generator'


def averaged(runner: Runner) -> nn.Module:
    """Return the moving average of what `runner` trains where there is one, else that itself."""
    averages = [hook.average for hook in runner.hooks if isinstance(hook, MovingAverageHook)]
    return averages[0] if averages else getattr(runner.model, runner.model.subject)
