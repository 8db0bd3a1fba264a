"""The moving average of the autoencoder's weights."""

import copy
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eqzoo.registry import HOOKS


@HOOKS.register_module()
class AutoencoderEMAHook(Hook):
    """Average the autoencoder over steps, validate the average, save both.

    Checkpoints hold the average as `ema_state_dict` under the autoencoder's own names.
    Differs from mmengine's EMAHook: the discriminator is not averaged and `state_dict` is
    never the swapped one.

    Args:
        decay: The share of the old average kept in a step.
    """

    priority = 'NORMAL'

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f'AutoencoderEMAHook.decay must be in [0, 1), got {decay}.')
        self.decay = decay

    def before_run(self, runner: Runner) -> None:
        """Start from the weights as they are."""
        self.average = copy.deepcopy(runner.model.autoencoder).requires_grad_(False).eval()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Go on from the saved average, or from the loaded weights where there is none."""
        saved = checkpoint.get('ema_state_dict')
        self.average.load_state_dict(saved or runner.model.autoencoder.state_dict())

    @torch.no_grad()
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Move the average a little towards the weights."""
        new, old = list(runner.model.autoencoder.parameters()), list(self.average.parameters())
        torch._foreach_lerp_(old, new, 1 - self.decay)

    def before_val_epoch(self, runner: Runner) -> None:
        """Let the average be validated."""
        self.trained, runner.model.autoencoder = runner.model.autoencoder, self.average

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the trained weights back."""
        runner.model.autoencoder = self.trained

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Save the average."""
        checkpoint['ema_state_dict'] = {name: value.cpu() for name, value in self.average.state_dict().items()}
