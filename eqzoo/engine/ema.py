"""Moving average of the trained weights."""

import copy
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from eqzoo.distributed import local_shard
from eqzoo.engine.sharding import copy_sharded, is_sharded
from eqzoo.registry import HOOKS
from eqzoo.registry.ranges import Decay


@HOOKS.register_module()
class EMAHook(Hook):
    """Average the autoencoder or generator that is trained over steps; validate and save the average.

    Checkpoints hold the average as `ema_state_dict`, under the names of the averaged module.
    Differs from mmengine's EMAHook: nothing else is averaged, such as a discriminator, and
    `state_dict` always holds the trained weights.

    Args:
        decay: The share of the old average that a step keeps.
    """

    priority = 'NORMAL'

    def __init__(self, decay: Decay = 0.9999) -> None:
        self.decay = decay

    def before_run(self, runner: Runner) -> None:
        """Start from the current weights."""
        module = _trained(runner)
        average = copy_sharded(runner.model, runner.cfg.model) if is_sharded(module) else copy.deepcopy(module)
        self.average = average.requires_grad_(False).eval()
        # listed once: walking a model's modules again takes milliseconds a step
        self._weights = [list(each.parameters()) for each in (module, self.average)]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Continue from the saved average, or from the loaded weights if there is none."""
        self.average.load_state_dict(checkpoint.get('ema_state_dict') or _trained(runner).state_dict())

    @torch.no_grad()
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the average towards the weights."""
        new, old = ([local_shard(each) for each in weights] for weights in self._weights)
        torch._foreach_lerp_(old, new, 1 - self.decay)

    def before_val_epoch(self, runner: Runner) -> None:
        """Put the average in the place of the trained weights, to validate it."""
        self._set_aside = _trained(runner)
        setattr(runner.model, runner.model.subject, self.average)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the trained weights back."""
        setattr(runner.model, runner.model.subject, self._set_aside)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the average."""
        if not is_sharded(self.average):  # otherwise `ShardingHook` has gathered it, which takes all processes
            checkpoint['ema_state_dict'] = {name: value.cpu() for name, value in self.average.state_dict().items()}


def averaged_model(runner: Runner) -> nn.Module:
    """Return the moving average of the autoencoder or generator that `runner` trains, or that itself without one."""
    averages = [hook.average for hook in runner.hooks if isinstance(hook, EMAHook)]
    return averages[0] if averages else _trained(runner)


def _trained(runner: Runner) -> nn.Module:
    return getattr(runner.model, runner.model.subject)
