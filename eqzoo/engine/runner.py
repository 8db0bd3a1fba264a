"""Runner: mmengine's, built from a config, with eqzoo's own loops and log."""

import copy
import itertools
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import mmengine.device.utils
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, LogProcessor, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from eqzoo.data import build_eval_loader, build_train_loader
from eqzoo.distributed import broadcast_weights, get_device, rank_and_world_size
from eqzoo.engine.checkpoints import latest_checkpoint, latest_whole_checkpoint, read_checkpoint
from eqzoo.engine.evaluation import check_evaluators, merge_metrics, readable_batches, run_evaluators
from eqzoo.engine.hooks import StopHook
from eqzoo.engine.optimizers import MuonAdamW, OptimWrapperDict, learning_rate
from eqzoo.engine.resume import (
    Change,
    Settings,
    check_changes,
    concerns_best,
    concerns_optimizers,
    config_changes,
    describe_changes,
    keep_old_values,
)
from eqzoo.engine.sharding import shard
from eqzoo.engine.training import Training, check_memory, compile_blocks
from eqzoo.evaluators.base import AutoencoderView, Evaluator
from eqzoo.machine import hardware
from eqzoo.randomness import StepRandomness
from eqzoo.registry import LOG_PROCESSORS, LOOPS, OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS, build, component_of
from eqzoo.registry.ranges import PositiveInt, parameters_of
from eqzoo.zoo import without_passwords

# Hooks of every run, whatever its config has.
_HOOKS = ('PlainCheckpointHook', 'ModelConfigHook', 'UnreadableHook', 'ScalarsHook', 'ProgressHook', 'StopHook')

# For configs without them: mmengine's own defaults count epochs, of which a run has one, and save every step.
_DEFAULT_HOOKS = {
    'logger': dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    'checkpoint': dict(type='CheckpointHook'),
}

# Beginnings of messages that mmengine prints in every run.
_BOILERPLATE = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'Checkpoints will be saved to',
    'Distributed training is not used',
    'Exp name:',
    'Saving checkpoint at',
)

# Scalars that are averaged over a log window: in training all but learning rates, in validation times.
_MEANS = {'train': re.compile(r'^(?!.*lr$)'), 'val': re.compile(r'time')}

_RUNS = itertools.count()


def build_runner(
    config: Config,
    *,
    resume: bool = False,
    datasets: Mapping[str, Dataset] | None = None,
    announce: Callable[[Training], None] | None = None,
) -> Runner:
    """Build the runner that trains what `config` describes.

    Args:
        config: A config of `load_config`.
        resume: Continue from the newest undamaged checkpoint in the work directory. With `resume='auto'` in
            the config, a run does so if there is one.
        datasets: Data sets that preflight has opened, by their places in the config; others are built.
        announce: Called on the first process with the built model, before it is sharded or compiled.

    Raises:
        ValueError: If the config is wrong, if there is nothing to resume from, or if the work
            directory already holds a run and `resume` is not given.
    """
    datasets = datasets or {}
    checkpoint = _checkpoint_to_resume(config, resume)
    changes = _changes_since(checkpoint, config) if checkpoint else []
    mmengine.device.utils.DEVICE = get_device()  # where mmengine's Runner moves the model
    torch.manual_seed(config.seed)
    model = build(config.model)
    if announce is not None and rank_and_world_size()[0] == 0:
        with torch.random.fork_rng(devices=[]):  # it draws nothing of the run's
            announce(model)
    broadcast_weights(model)
    sharded = _shard_if_asked(config, model)
    loader = train_loader(config, datasets.get('train_dataloader.dataset'))
    model.check_data(loader.dataset)
    if not sharded:
        check_memory(model, loader.dataset, loader.batch_size)
    if options := config.get('compile', False):
        compile_blocks(model.blocks(), **({} if options is True else options))
    has_validation = config.get('val_dataloader') is not None
    runner = QuietRunner(
        model=model,
        work_dir=config.work_dir,
        train_dataloader=loader,
        val_dataloader=(
            eval_loader(config.val_dataloader, datasets.get('val_dataloader.dataset')) if has_validation else None
        ),
        train_cfg=dict(type='StepLoop', **config.train_cfg),
        val_cfg=dict(type='EvaluationLoop') if has_validation else None,
        val_evaluator=build_evaluators(config.evaluators, datasets) if has_validation else None,
        optim_wrapper=build_optimizers(model, config),
        param_scheduler=_by_step(config.get('param_scheduler', [])),
        default_hooks={
            **_DEFAULT_HOOKS,
            **(config.get('default_hooks') or {}),
            'runtime_info': dict(type='RunInfoHook'),
        },
        # built here: mmengine would not build components nested in them
        custom_hooks=_hooks(config, sharded=sharded),
        visualizer=config.get('visualizer'),
        log_processor={'type': 'MeanLogProcessor', 'by_epoch': False, **config.get('log_processor', {})},
        # unique: mmengine names runs by the second, and runs with equal names share a log
        experiment_name=f'{Path(config.filename or "run").stem}_{os.getpid()}_{next(_RUNS)}',
        randomness=dict(seed=config.seed),
        load_from=str(checkpoint) if checkpoint else None,
        resume=checkpoint is not None,
        default_scope='eqzoo',
        cfg=_FormattedConfig(config.to_dict(), filename=config.filename),
    )
    runner.changes = changes
    if changes:
        runner.logger.info(describe_changes(changes, checkpoint.name))  # into the log file: it has several lines
    return runner


def rehearse(
    config: Config,
    datasets: Mapping[str, Dataset] | None = None,
    *,
    resume: bool | None = None,
    announce: Callable[[Training], None] | None = None,
) -> Training:
    """Build everything that a run builds before its first step, in a folder that is removed; return the model.

    Nothing is written to the run's own folder, and nothing is logged or drawn.

    Args:
        config: The config of the run.
        datasets: As in `build_runner`.
        resume: As in `build_runner`; None does not look for checkpoints.
        announce: As in `build_runner`.

    Raises:
        ValueError: For whatever the run would refuse.
    """
    own = Config(copy.deepcopy(config.to_dict()), filename=config.filename)
    if resume is not None and (checkpoint := _checkpoint_to_resume(config, resume)):
        _changes_since(checkpoint, own)
    with tempfile.TemporaryDirectory() as folder:
        own.update(work_dir=folder, visualizer=None, compile=False, resume=None)
        runner = build_runner(own, datasets=datasets, announce=announce)
        # as mmengine's Runner.train does
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        if runner._val_loop is not None:
            runner._val_loop = runner.build_val_loop(runner._val_loop)
        runner.call_hook('before_run')
        for handler in list(runner.logger.handlers):
            if isinstance(handler, logging.FileHandler):
                handler.close()
                runner.logger.removeHandler(handler)
    return runner.model


def train_loader(config: Config, dataset: Dataset | None = None) -> DataLoader:
    """Build the loader of training batches; `batch_size` in the config counts all processes together.

    Args:
        config: The config of the run.
        dataset: The opened data set; None builds it.
    """
    rank, world_size = rank_and_world_size()
    arguments = {key: value for key, value in config.train_dataloader.items() if key != 'dataset'}
    dataset = build(config.train_dataloader.dataset) if dataset is None else dataset
    return build_train_loader(dataset, **arguments, seed=config.seed, rank=rank, world_size=world_size)


def eval_loader(dataloader: dict[str, Any], dataset: Dataset | None = None) -> DataLoader:
    """Build the loader of an evaluation: every image once over all processes.

    Args:
        dataloader: Its config.
        dataset: The opened data set; None builds it.
    """
    rank, world_size = rank_and_world_size()
    arguments = {key: value for key, value in dataloader.items() if key != 'dataset'}
    dataset = build(dataloader['dataset']) if dataset is None else dataset
    return build_eval_loader(dataset, **arguments, rank=rank, world_size=world_size)


def build_evaluators(
    evaluators: Sequence[dict[str, Any]], datasets: Mapping[str, Dataset] | None = None, key: str = 'evaluators'
) -> list[Any]:
    """Build evaluators, with empty states.

    Args:
        evaluators: Their configs.
        datasets: Data sets that preflight has opened, by their places in the config; others are built.
        key: The place of `evaluators` in the config.
    """
    opened = datasets or {}
    return [
        build({name: opened.get(f'{key}[{number}].{name}', value) for name, value in evaluator.items()})
        for number, evaluator in enumerate(evaluators)
    ]


def build_optimizers(model: nn.Module, config: Config) -> OptimWrapperDict:
    """Build an optimizer for each of the model's parameter groups; `optim_wrapper` has one of each name.

    Raises:
        ValueError: If the names differ, or a schedule would end the parameters' different learning rates.
    """
    groups, factors = model.parameter_groups(), model.rate_factors()
    given = dict(config.optim_wrapper)
    if set(groups) != set(given):
        raise ValueError(
            f'optim_wrapper: the model has the parameter groups {sorted(groups)}, the config has optimizers for '
            f'{sorted(given)}; give each group one optimizer.'
        )
    for name, group in groups.items():
        if any(each in factors for each in group):
            _check_floors(config.get('param_scheduler', []), name)
    # of MuonAdamW's matrices, those whose rows are looked up
    tables = [each.weight for each in model.modules() if isinstance(each, nn.Embedding)]
    return OptimWrapperDict(**{name: _build_optimizer(groups[name], given[name], factors, tables) for name in groups})


@LOOPS.register_module()
class StepLoop(BaseLoop):
    """Train for a number of steps; a resumed run starts at its place in the data at once.

    Differs from mmengine's IterBasedTrainLoop: it sets the start of the sampler instead of
    decoding all earlier data again, and gives each step its own random streams.

    Args:
        runner: mmengine's runner.
        dataloader: Endless batches, with a `RunSampler`.
        max_iters: Number of steps of the whole run.
        val_interval: Steps between validations; the last step is always validated.
    """

    def __init__(
        self, runner: Runner, dataloader: DataLoader, max_iters: PositiveInt, val_interval: PositiveInt = 1000
    ) -> None:
        super().__init__(runner, dataloader)
        self.max_iters = max_iters
        self.val_interval = val_interval
        self.stop_training = False
        # names that mmengine's Runner and hooks read and write
        self.max_epochs = 1
        self.val_begin = 1
        self._epoch = 0
        self._iter = 0

    @property
    def epoch(self) -> int:
        """Always 0: a run is one long epoch."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Number of steps done."""
        return self._iter

    def run(self) -> torch.nn.Module:
        """Train until `max_iters`, and return the model."""
        runner = self.runner
        sampler = self.dataloader.sampler
        sampler.start_draw = self._iter * self.dataloader.batch_size * sampler.world_size
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        if self._iter:  # a resumed run: its checkpoint was written before the validation of the same step
            self._validate_if_due()
        batches = iter(self.dataloader)
        while self._iter < self.max_iters and not self.stop_training:
            runner.model.train()
            self._run_step(next(batches))
            self._validate_if_due()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def _validate_if_due(self) -> None:
        due = self._iter % self.val_interval == 0 or self._iter == self.max_iters
        if due and self.runner.val_loop is not None and not self.stop_training:
            self.runner.val_loop.run()

    def _run_step(self, batch: Mapping[str, Any]) -> None:
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=batch)
        randomness = StepRandomness(runner.seed, self._iter)
        outputs = runner.model.train_step(batch, runner.optim_wrapper, randomness)
        runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=batch, outputs=outputs)
        self._iter += 1


@LOOPS.register_module()
class EvaluationLoop(BaseLoop):
    """Run evaluators over a data set between training steps.

    Args:
        runner: mmengine's runner.
        dataloader: Batches, every image once.
        evaluator: The evaluators.

    Raises:
        ValueError: If the data set is too small for one of them, or lacks classes that one needs.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader, evaluator: Sequence[Evaluator]) -> None:
        super().__init__(runner, dataloader)
        self.evaluators = evaluator
        check_evaluators(evaluator, self.dataloader.dataset)

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Evaluate, tell the hooks, and return the metrics."""
        runner = self.runner
        runner.call_hook('before_val')
        runner.call_hook('before_val_epoch')
        runner.model.eval()
        metrics = merge_metrics(run_evaluators(self.evaluators, self._views(), len(self.dataloader.dataset)))
        runner.call_hook('after_val_epoch', metrics=metrics)
        runner.call_hook('after_val')
        return metrics

    def _views(self) -> Iterator[AutoencoderView]:
        for index, batch in enumerate(readable_batches(self.dataloader)):
            self.runner.call_hook('before_val_iter', batch_idx=index, data_batch=batch)
            yield self.runner.model.val_step(batch)
            # the evaluators have seen the batch when the next one is asked for
            self.runner.call_hook('after_val_iter', batch_idx=index, data_batch=batch, outputs=None)


@LOG_PROCESSORS.register_module()
class MeanLogProcessor(LogProcessor):
    """mmengine's log processor with window means of all scalars of training steps, not only of losses."""

    def _collect_scalars(
        self, custom_cfg: list[dict[str, Any]], runner: Runner, mode: str, *more: Any
    ) -> dict[str, Any]:
        self.mean_pattern = _MEANS['train' if mode == 'train' else 'val']
        return super()._collect_scalars(custom_cfg, runner, mode, *more)


class _FormattedConfig(Config):
    """A config whose text is formatted once for each content, and has no passwords of URLs.

    mmengine asks for the text at the start and for every checkpoint, and yapf takes a quarter of a second. It writes
    the text to the work directory, to the log, into checkpoints and to the visualizer's backends.
    """

    _texts: ClassVar[dict[str, str]] = {}

    @property
    def pretty_text(self) -> str:
        """Return the config as Python source."""
        content = repr(self.to_dict())
        if content not in _FormattedConfig._texts:
            public = Config(without_passwords(self.to_dict()), filename=self.filename)
            _FormattedConfig._texts = {content: public.pretty_text}
        return _FormattedConfig._texts[content]


class QuietRunner(Runner):
    """mmengine's Runner, with its dumps and boilerplate in the log file only."""

    def train(self) -> nn.Module:
        """Train, and give signals back to their previous handlers, however it ends."""
        try:
            return super().train()
        finally:
            for hook in self.hooks:
                if isinstance(hook, StopHook):
                    hook.restore()

    changes: Sequence[Change] = ()
    """What has changed in the config since the checkpoint that is resumed from."""

    def resume(self, filename: str, **options: Any) -> None:
        """Load a checkpoint, and put what the config has changed since in the place of the checkpoint's own."""
        settings = Settings(self) if concerns_optimizers(self.changes) else None
        # to the CPU: each part copies what it needs, and a GPU that holds shards has no room for the whole
        options = {'map_location': 'cpu', **options}
        super().resume(filename, resume_param_scheduler=settings is None, **options)
        if settings is not None:
            settings.restore(self, self.iter)
        if concerns_best(self.changes):
            self.message_hub.runtime_info.pop('best_score', None)

    def _log_env(self, env_cfg: Mapping[str, Any]) -> None:
        """Log the machine and the config. mmengine's own way needs distutils, which Python 3.12 removed."""
        facts = {**hardware(), 'seed': self.seed, 'launcher': self._launcher, 'processes': self.world_size, **env_cfg}
        lines = '\n'.join(f'    {name}: {value}' for name, value in facts.items())
        self.logger.info(f'Machine:\n{lines}\n')
        self.logger.info(f'Config:\n{self.cfg.pretty_text}')

    def _maybe_compile(self, target: str) -> None:
        """Do nothing: mmengine would compile the whole `train_step` too, whose random streams Dynamo cannot follow."""

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """Build the logger, and keep dumps and boilerplate off the terminal."""
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handleError = _raise_again
            else:
                handler.addFilter(_is_for_the_terminal)
        return logger


def _shard_if_asked(config: Config, model: Training) -> bool:
    sharding = config.get('sharding')
    if sharding:
        shard(model, torch.device(get_device()))
    return bool(sharding)


def _hooks(config: Config, *, sharded: bool) -> list[Hook]:
    names = (*_HOOKS, 'ShardingHook') if sharded else _HOOKS
    return [build(hook) for hook in (*(dict(type=name) for name in names), *config.get('custom_hooks', {}).values())]


def _by_step(schedules: Any) -> Any:
    """Return `param_scheduler` with schedules that count steps: mmengine's count epochs by default, and a run is one.

    Those that wait for a validation (ReduceOnPlateauLR) are left as they are: mmengine asks only those of epochs.
    """
    if isinstance(schedules, Mapping) and 'type' not in schedules:
        return {name: _by_step(each) for name, each in schedules.items()}
    if not isinstance(schedules, Mapping):
        return [_by_step(each) for each in schedules]
    wanted = schedules['type']
    cls = component_of(PARAM_SCHEDULERS, wanted) if isinstance(wanted, str) else wanted
    if schedules.get('convert_to_iter_based') or getattr(cls, 'need_val_args', False):
        return schedules
    return {'by_epoch': False, **schedules} if 'by_epoch' in parameters_of(cls) else schedules


def _check_floors(schedules: Any, name: str) -> None:
    """Refuse schedules of the optimizer `name`, whose parameters have several rates, that end all at the same one."""
    if isinstance(schedules, Mapping):
        schedules = schedules if 'type' in schedules else schedules.get(name, [])
    for each in [schedules] if isinstance(schedules, Mapping) else schedules:
        kind = getattr(each['type'], '__name__', each['type'])
        if each.get('eta_min') and each.get('param_name', 'lr') == 'lr' and not kind.endswith('Momentum'):
            raise ValueError(
                f'param_scheduler: {kind}.eta_min: {each["eta_min"]:g} would be the last learning rate of all '
                f'parameters of {name!r}, where the encoder has its own (model.encoder_rate); expected eta_min_ratio, '
                'the last rate as a share of the first.'
            )


def _build_optimizer(
    parameters: list[nn.Parameter],
    config: dict[str, Any],
    factors: Mapping[nn.Parameter, float],
    tables: Sequence[nn.Parameter],
) -> Any:
    arguments = {'type': 'StepOptimWrapper', **config}
    settings = arguments.pop('optimizer')
    by_factor: dict[float, list[nn.Parameter]] = {}
    for each in parameters:
        by_factor.setdefault(factors.get(each, 1.0), []).append(each)
    if set(by_factor) - {1.0}:
        rate = learning_rate(settings)
        if rate is None:
            raise ValueError(
                f'optim_wrapper: {settings["type"]} has no learning rate of which some parameters could have a share '
                '(model.encoder_rate); set its lr.'
            )
        parameters = [{'params': group, 'lr': factor * rate} for factor, group in by_factor.items()]
    wanted = settings['type']
    if (component_of(OPTIMIZERS, wanted) if isinstance(wanted, str) else wanted) is MuonAdamW:
        settings = dict(settings, adamw_only=tables)
    optimizer = OPTIMIZERS.parent.build(dict(params=parameters, **settings))
    return OPTIM_WRAPPERS.build(dict(arguments, optimizer=optimizer))


def _checkpoint_to_resume(config: Config, resume: bool) -> Path | None:
    automatic = config.get('resume')
    if latest_checkpoint(config.work_dir) is None:
        if resume and not automatic:
            raise ValueError(
                f'--resume: {config.work_dir} has no checkpoint; start without --resume, or set work_dir=.'
            )
        return None
    if not resume and not automatic:
        raise ValueError(
            f'{config.work_dir} already holds a run ({latest_checkpoint(config.work_dir).name}); continue it with '
            '--resume, choose another folder with work_dir=PATH, or delete it.'
        )
    whole, damaged = latest_whole_checkpoint(config.work_dir)
    if whole is None:
        raise ValueError(
            f'--resume: all checkpoints in {config.work_dir} are damaged ({"; ".join(damaged)}); delete them to start '
            'again.'
        )
    for each in damaged:
        print(f'Skipped a damaged checkpoint: {each}')
    return whole


def _changes_since(checkpoint: Path, config: Config) -> list[Change]:
    """Return what `config` changes since a checkpoint, and print it; values that are kept are set in `config`.

    Raises:
        ValueError: If a change is refused.
    """
    meta = read_checkpoint(checkpoint, mmap=True).get('meta')
    stored = meta.get('cfg') if isinstance(meta, dict) else None
    now = _FormattedConfig(config.to_dict(), filename=config.filename).pretty_text
    is_first = rank_and_world_size()[0] == 0
    try:
        changes = config_changes(stored if isinstance(stored, str) else '', now)
    except ValueError as error:
        raise ValueError(f'--resume: the config in {checkpoint} cannot be compared: {error}') from None
    check_changes(changes, checkpoint)
    if changes and is_first:
        print(describe_changes(changes, checkpoint.name))
    keep_old_values(config, changes)
    return changes


def _raise_again(record: logging.LogRecord) -> None:
    """End the run when its log cannot be written: Python's handlers print a traceback for each line, and go on."""
    raise


def _is_for_the_terminal(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if message.startswith('Iter(train)') and ' loss: ' not in message:
        return False  # mmengine logs the end of the first epoch, when no values have been read
    return '\n' not in message and not message.startswith(_BOILERPLATE)
