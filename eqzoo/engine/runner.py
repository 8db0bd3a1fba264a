"""From a config to mmengine's Runner, with everything built and checked first."""

import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapperDict
from mmengine.registry import OPTIMIZERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from eqzoo.data import build_eval_loader, build_train_loader
from eqzoo.distributed import broadcast_weights, rank_and_world_size
from eqzoo.engine.checkpoints import latest_checkpoint, latest_whole_checkpoint
from eqzoo.engine.compilation import compile_blocks
from eqzoo.engine.sharding import shard
from eqzoo.engine.training import Training
from eqzoo.registry import OPTIM_WRAPPERS, build

# What mmengine says on every run of whatever project.
_BOILERPLATE = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'Checkpoints will be saved to',
    'Distributed training is not used',
    'Exp name:',
    'Saving checkpoint at',
)

# What every run has, whatever its config says.
_HOOKS = ('PlainCheckpointHook', 'ModelConfigHook', 'UnreadableHook', 'ScalarsHook', 'StopHook')


_RUNS = itertools.count()


class QuietRunner(Runner):
    """mmengine's Runner whose dumps and boilerplate go to the log file only."""

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Build the logger; keep dumps and boilerplate off the terminal."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_for_the_terminal)
        return logger


def _is_for_the_terminal(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return '\n' not in message and not message.startswith(_BOILERPLATE)


def build_runner(config: Config, *, resume: bool = False) -> Runner:
    """Build the runner that trains what `config` describes.

    Args:
        config: As `load_config` returns it.
        resume: Go on from the newest whole checkpoint in the work directory. A config's `resume='auto'`
            does if there is one.

    Raises:
        ValueError: If the config is wrong, if there is nothing to resume from, or if the work
            directory already holds a run and `resume` is not given.
    """
    checkpoint = _checkpoint_to_resume(config, resume)
    torch.manual_seed(config.seed)
    model = build(config.model)
    broadcast_weights(model)
    sharded = _shard_if_asked(config, model)
    if config.get('compile', False):
        compile_blocks(model.blocks())
    loader = train_loader(config)
    model.check_data(loader.dataset)
    has_validation = config.get('val_dataloader') is not None
    return QuietRunner(
        model=model,
        work_dir=config.work_dir,
        train_dataloader=loader,
        val_dataloader=eval_loader(config.val_dataloader) if has_validation else None,
        train_cfg=dict(type='StepLoop', **config.train_cfg),
        val_cfg=dict(type='EvaluationLoop') if has_validation else None,
        val_evaluator=build_evaluators(config.evaluators) if has_validation else None,
        optim_wrapper=build_optimizers(model, config),
        param_scheduler=config.get('param_scheduler', []),
        default_hooks={**config.default_hooks, 'runtime_info': dict(type='RunInfoHook')},
        # built here: mmengine would not build what is nested in them
        custom_hooks=_hooks(config, sharded=sharded),
        visualizer=config.get('visualizer'),
        log_processor={'type': 'MeanLogProcessor', **config.get('log_processor', {})},
        # mmengine names a run by the second, and gives runs of one name one log
        experiment_name=f'{Path(config.filename or "run").stem}_{os.getpid()}_{next(_RUNS)}',
        randomness=dict(seed=config.seed),
        load_from=str(checkpoint) if checkpoint else None,
        resume=checkpoint is not None,
        default_scope='eqzoo',
        cfg=config,
    )


def _shard_if_asked(config: Config, model: Training) -> bool:
    sharding = config.get('sharding')
    if sharding not in (None, 'full'):
        raise ValueError(f"sharding: got {sharding!r}; accepted is 'full', or leave it out.")
    if sharding:
        shard(model, torch.device(get_device()))
    return bool(sharding)


def _hooks(config: Config, *, sharded: bool) -> list[Hook]:
    names = (*_HOOKS, 'GatherHook', 'ScatterHook') if sharded else _HOOKS
    return [build(hook) for hook in (*(dict(type=name) for name in names), *config.get('custom_hooks', []))]


def train_loader(config: Config) -> DataLoader:
    """Build the training batches; `batch_size` in the config is that of all processes together."""
    rank, world_size = rank_and_world_size()
    arguments = {key: value for key, value in config.train_dataloader.items() if key != 'dataset'}
    dataset = build(config.train_dataloader.dataset)
    return build_train_loader(dataset, **arguments, seed=config.seed, rank=rank, world_size=world_size)


def eval_loader(dataloader: dict[str, Any]) -> DataLoader:
    """Build the batches of an evaluation: every image once over all processes."""
    rank, world_size = rank_and_world_size()
    arguments = {key: value for key, value in dataloader.items() if key != 'dataset'}
    return build_eval_loader(build(dataloader['dataset']), **arguments, rank=rank, world_size=world_size)


def build_evaluators(evaluators: Sequence[dict[str, Any]]) -> list[Any]:
    """Build evaluators afresh, with empty states."""
    return [build(evaluator) for evaluator in evaluators]


def build_optimizers(model: nn.Module, config: Config) -> OptimWrapperDict:
    """Build one optimizer for each of the model's parameter groups, as `optim_wrapper` names them.

    Raises:
        ValueError: If the names differ.
    """
    groups = model.parameter_groups()
    given = dict(config.optim_wrapper)
    if set(groups) != set(given):
        raise ValueError(
            f'optim_wrapper: the model has the parameter groups {sorted(groups)}, the config has optimizers for '
            f'{sorted(given)}; give each group one.'
        )
    return OptimWrapperDict(**{name: _build_optimizer(groups[name], given[name]) for name in groups})


def _build_optimizer(parameters: list[nn.Parameter], config: dict[str, Any]) -> Any:
    arguments = {'type': 'StepOptimWrapper', **config}
    optimizer = OPTIMIZERS.build(dict(params=parameters, **arguments.pop('optimizer')))
    return OPTIM_WRAPPERS.build(dict(arguments, optimizer=optimizer))


def _checkpoint_to_resume(config: Config, resume: bool) -> Path | None:
    automatic = config.get('resume')
    if automatic not in (None, 'auto'):
        raise ValueError(f"resume: got {automatic!r}; accepted is 'auto', or leave it out.")
    if latest_checkpoint(config.work_dir) is None:
        if resume and not automatic:
            raise ValueError(
                f'--resume: {config.work_dir} has no checkpoint; start without --resume, or set work_dir=.'
            )
        return None
    if not resume and not automatic:
        raise ValueError(
            f'{config.work_dir} already holds a run ({latest_checkpoint(config.work_dir).name}); go on with it by '
            '--resume, choose another place by work_dir=PATH, or delete it.'
        )
    whole, damaged = latest_whole_checkpoint(config.work_dir)
    if whole is None:
        raise ValueError(
            f'--resume: no checkpoint in {config.work_dir} is whole ({"; ".join(damaged)}); delete them to start anew.'
        )
    for each in damaged:
        print(f'Skipped, a damaged checkpoint: {each}')
    return whole
