"""The autoencoder's config in every checkpoint."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from eqzoo.autoencoders.arguments import plain_config
from eqzoo.registry import HOOKS


@HOOKS.register_module()
class AutoencoderConfigHook(Hook):
    """Save what builds the autoencoder as `checkpoint['autoencoder']`, so that the file alone opens it.

    Plain data, since checkpoints are read with `weights_only=True`; padding, which changes
    outputs but no weight's name or shape, is in it.
    """

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the config."""
        config = runner.cfg.model.get('autoencoder')
        if config is not None:
            checkpoint['autoencoder'] = plain_config(config)
