"""Moving average of the trained weights."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Average the autoencoder or generator that is trained over steps, or both; validate and save the average.

    Checkpoints hold the average as `ema_state_dict`, under the names of the averaged module; of two modules under
    `autoencoder.` and `generator.`. Statistics that a training moves, such as those of latents, are averaged as weights
    are. Differs from mmengine's EMAHook: other weights, such as a discriminator's, are not averaged, and `state_dict`
    always holds the trained weights.

    Args:
        decay: The share of the old average that a step keeps.
    """

    priority = 'NORMAL'

    def __init__(self, decay: Decay = 0.9999) -> None:
        self.decay = decay
        self._starts_from_loaded = False

    def before_run(self, runner: Runner) -> None:
        """Start from the current weights."""
        module = _joined(runner, _trained(runner))
        average = copy_sharded(runner.model, runner.cfg.model) if is_sharded(module) else copy.deepcopy(module)
        self.average = average.requires_grad_(False).eval()
        # listed once: walking a model's modules again takes milliseconds a step
        self._weights = [_numbers_of(each) for each in (module, self.average)]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Continue from the saved average, or from the loaded weights if there is none."""
        saved = checkpoint.get('ema_state_dict')
        self._starts_from_loaded = saved is None  # mmengine loads the weights after this call
        if saved is not None:
            self.average.load_state_dict(saved)

    def before_train(self, runner: Runner) -> None:
        """Start from the loaded weights, if they came without an average."""
        if self._starts_from_loaded:
            self.average.load_state_dict(_joined(runner, _trained(runner)).state_dict())

    @torch.no_grad()
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the average towards the weights."""
        new, old = ([local_shard(each) for each in weights] for weights in self._weights)
        torch._foreach_lerp_(old, new, 1 - self.decay)

    def before_val_epoch(self, runner: Runner) -> None:
        """Put the average in the place of the trained weights, to validate it."""
        self._set_aside = _trained(runner)
        _put(runner, _parts(runner, self.average))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the trained weights back."""
        _put(runner, self._set_aside)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the average."""
        if not is_sharded(self.average):  # otherwise `ShardingHook` has gathered it, which takes all processes
            checkpoint['ema_state_dict'] = {name: value.cpu() for name, value in self.average.state_dict().items()}


def averaged_model(runner: Runner, name: str) -> nn.Module:
    """Return the moving average of a model's 'autoencoder' or 'generator', or that itself if it has none."""
    averages = [hook.average for hook in runner.hooks if isinstance(hook, EMAHook)]
    found = _parts(runner, averages[0]) if averages else {}
    return found[name] if name in found else getattr(runner.model, name)


@contextmanager
def averages_in_place(runner: Runner) -> Iterator[None]:
    """Put averages, if there are any, in the place of the trained weights inside the block."""
    trained = _trained(runner)
    _put(runner, {name: averaged_model(runner, name) for name in trained})
    yield
    _put(runner, trained)


def _trained(runner: Runner) -> dict[str, nn.Module]:
    return {name: getattr(runner.model, name) for name in runner.model.subjects}


def _joined(runner: Runner, parts: dict[str, nn.Module]) -> nn.Module:
    """Return the only module, or all of them as one."""
    return nn.ModuleDict(parts) if len(parts) > 1 else parts[runner.model.subjects[0]]


def _parts(runner: Runner, joined: nn.Module) -> dict[str, nn.Module]:
    """Return the modules by name that `_joined` has made one."""
    names = runner.model.subjects
    return dict(joined.items()) if len(names) > 1 else {names[0]: joined}


def _put(runner: Runner, parts: dict[str, nn.Module]) -> None:
    for name, module in parts.items():
        setattr(runner.model, name, module)


def _numbers_of(module: nn.Module) -> list[torch.Tensor]:
    """Return weights and statistics, not counts."""
    return [*module.parameters(), *(each for each in module.buffers() if each.is_floating_point())]
