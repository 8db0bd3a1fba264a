"""Shrink any config to seconds: tiny networks, built-in data, no weights, a few steps."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from eqzoo.engine.preflight import COMPONENT_KEYS
from eqzoo.engine.smoke_latents import write_smoke_latents
from eqzoo.registry import check_config, find

STEPS = 4
BATCH = 4


def shrink(config: Config) -> Config:
    """Return a copy of `config` that trains for a few steps anywhere.

    Components shrink themselves by their classmethod `smoke`; the run's length, batches and
    intervals are shrunk here. What a config is about (objective, transforms, losses,
    optimizers, hooks) stays. A generator gets latents to learn from, written to the work directory.
    """
    small = config.copy()
    for key in COMPONENT_KEYS:
        if key in small:
            list(check_config(small[key], key))  # a misspelt argument is told before it is replaced
            small[key] = _shrink_value(small[key].to_dict() if hasattr(small[key], 'to_dict') else small[key])
    small.train_cfg.update(max_iters=STEPS)
    if 'val_dataloader' in small:
        small.train_cfg.val_interval = STEPS
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'cache_dataloader'):
        if key in small:
            small[key].update(batch_size=BATCH, num_workers=0)
    if small.model.get('micro_batch_size'):
        small.model.micro_batch_size = BATCH // 2
    for hook in small.get('default_hooks', {}).values():
        if 'interval' in hook:
            hook.interval = STEPS // 2
    small.compile = False
    small.work_dir = str(config.work_dir).replace('work_dirs', 'work_dirs/smoke', 1)
    if 'generator' in small.model:
        small.sampling.update(num_samples=2 * BATCH, batch_size=BATCH)
        write_smoke_latents(small)
    return small


def _shrink_value(value: Any) -> Any:
    if isinstance(value, Mapping) and 'type' in value:
        cls = value['type'] if callable(value['type']) else find(value['type'])
        arguments = {key: _shrink_value(item) for key, item in value.items() if key != 'type'}
        shrink_arguments = getattr(cls, 'smoke', dict)
        return {'type': value['type'], **shrink_arguments(arguments)}
    if isinstance(value, Mapping):
        return {key: _shrink_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_shrink_value(item) for item in value)
    return value
