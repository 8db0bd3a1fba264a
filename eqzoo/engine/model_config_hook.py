"""What builds the model, in every checkpoint."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eqzoo.registry import HOOKS


@HOOKS.register_module()
class ModelConfigHook(Hook):
    """Save the model's `stored_config` beside its weights, so that the file alone opens it.

    Plain data, since checkpoints are read with `weights_only=True`.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the config."""
        checkpoint |= runner.model.stored_config(runner.cfg.model)
