"""The keys of a config that are no components' arguments: their types and ranges, checked before anything is built.

Arguments of components have theirs in the annotations of the constructors; this table has the rest, with the same
checks (`eqzoo.registry.ranges`). A key that ends in '?' may be missing; '*' stands for any name. A dict without '*' has
the listed keys only.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from eqzoo.files import did_you_mean
from eqzoo.registry import (
    DATASETS,
    EVALUATORS,
    HOOKS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    SAMPLERS,
    VISION,
    VISUALIZERS,
    Kind,
    check_config,
    component_of,
)
from eqzoo.registry.kinds import OF_BITSANDBYTES
from eqzoo.registry.ranges import (
    Component,
    Decay,
    Filled,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Range,
    check_value,
)

_EVAL_LOADER = {'batch_size': PositiveInt, 'num_workers': NonNegativeInt, 'dataset': Component}

SCHEMA: dict[str, Any] = {
    'model?': dict,  # of a run it is a component; to cache latents its autoencoder is enough
    'train_dataloader?': {**_EVAL_LOADER, 'shuffle?': bool},
    'val_dataloader?': _EVAL_LOADER,
    'test_dataloader?': _EVAL_LOADER,
    'cache_dataloader?': _EVAL_LOADER,
    'cache_encoder?': Component | None,
    'evaluators?': Sequence[Component],
    'test_evaluators?': Sequence[Component],
    'default_hooks?': {'*': Component | None},
    'custom_hooks?': {'*': Component},
    'sampling?': {
        'num_samples': PositiveInt,
        'batch_size': PositiveInt,
        'sampler': Component,
        'labels?': Literal['random', 'balanced'] | Filled[NonNegativeInt],
        'seed?': NonNegativeInt,
        'precision?': Literal['fp32', 'bf16'],
        'inpaint?': {'root': str, 'box': tuple[Probability, Probability, Probability, Probability]},
    },
    'optim_wrapper?': {
        '*': {
            'type?': Any,
            'optimizer': Component,
            'clip_grad?': dict | None,
            'accumulative_counts?': Literal[1],  # `micro_batch_size` does this
        }
    },
    'param_scheduler?': Component | Sequence[Component] | Mapping[str, Component | Sequence[Component]],
    'train_cfg?': {'max_iters': PositiveInt, 'val_interval?': PositiveInt},
    'phases?': Any,  # `eqzoo.engine.phases` checks them
    'custom_imports?': str | Sequence[str] | dict | None,
    'visualizer?': Component | None,
    'log_processor?': {
        'type?': Any,
        'window_size?': PositiveInt,
        'by_epoch?': bool,
        'custom_cfg?': Sequence[dict] | None,
        'num_digits?': PositiveInt,
        'log_with_hierarchy?': bool,
        'mean_pattern?': str,
    },
    # numpy's global state takes no larger seed, and mmengine sets it
    'seed': Annotated[int, Range(at_least=0, at_most=2**32 - 1)],
    'compile?': bool,
    'resume?': Literal['auto'] | None,
    'device?': str,
    'gpu?': {'deterministic?': bool, 'tf32?': bool | None, 'cudnn_benchmark?': bool},
    'sharding?': Literal['full'] | None,
    'work_dir': Annotated[str, Range(at_least=1, of_length=True)],
}

# May be None, which leaves them out.
_MAY_BE_NONE = ('val_dataloader', 'test_dataloader', 'cache_dataloader', 'gpu')

# Ranges of arguments of torch's and mmengine's classes, whose annotations say nothing of them.
_LR = PositiveFloat
_FACTOR = Annotated[float, Range(above=0, at_most=1)]
_FOREIGN: dict[str, Any] = {
    'lr': _LR,
    'betas': tuple[Decay, Decay],
    'eps': NonNegativeFloat,
    'weight_decay': NonNegativeFloat,
    'momentum': NonNegativeFloat,
    'start_factor': _FACTOR,
    'end_factor': Annotated[float, Range(at_least=0, at_most=1)],
    'begin': NonNegativeInt,
    'end': PositiveInt,
    'T_max': PositiveInt,
    'total_iters': PositiveInt,
    'step_size': PositiveInt,
    'interval': PositiveInt,
}

_KINDS_OF_KEYS = {
    'train_dataloader': DATASETS,
    'val_dataloader': DATASETS,
    'test_dataloader': DATASETS,
    'cache_dataloader': DATASETS,
    'cache_encoder': VISION,
    'evaluators': EVALUATORS,
    'test_evaluators': EVALUATORS,
    'default_hooks': HOOKS,
    'custom_hooks': HOOKS,
    'sampling': SAMPLERS,
    'optim_wrapper': OPTIMIZERS,
    'param_scheduler': PARAM_SCHEDULERS,
    'visualizer': VISUALIZERS,
}

# Optimizers that a training step cannot use, with the reason, and one that it can.
_UNFIT = {
    'LBFGS': ('computes the loss several times a step, which training does not', 'AdamW, for one'),
    'SparseAdam': ('is for sparse gradients, which training does not have', 'AdamW, for one'),
    'Muon': ('updates matrices alone, no convolutions, biases and norms', 'MuonAdamW, which updates all'),
}

# Arguments that the run supplies.
_SUPPLIED = {
    'optim_wrapper': ('params', 'optimizer'),
    'param_scheduler': ('optimizer', 'param_name'),
    'visualizer': ('save_dir', 'name'),
}

# The packages of visualizer backends that eqzoo does not install, and the extras that do.
_WITH_EXTRA = {'wandb': "'eqzoo[wandb]'", 'mlflow': "'eqzoo[mlflow]'"}
_EXTRAS = {
    'WandbVisBackend': ('wandb',),
    'MLflowVisBackend': ('mlflow',),
    'ClearMLVisBackend': ('clearml',),
    'NeptuneVisBackend': ('neptune',),
    'DVCLiveVisBackend': ('dvclive',),
    'AimVisBackend': ('aim',),
    'TensorboardVisBackend': ('tensorboard', 'tensorboardX'),
}


def check_keys(config: Mapping[str, Any]) -> None:
    """Check the types and ranges of all keys of a config that are no arguments of components.

    Args:
        config: The config of a run, or a part of one; a top-level key may always be missing.

    Raises:
        ValueError: For the first wrong, unknown or missing key.
    """
    present = {key: value for key, value in config.items() if not (key in _MAY_BE_NONE and value is None)}
    known = {key: wanted for key, wanted in SCHEMA.items() if key.rstrip('?') in present}
    _check('', known, present)


def kind_of_key(config: Mapping[str, Any], key: str) -> Kind | None:
    """Return the kind of the components under a top-level key of a config; None where it says nothing."""
    if key == 'optim_wrapper' and any('type' in each for each in (config.get(key) or {}).values()):
        return None  # wrappers, with optimizers in them
    return _KINDS_OF_KEYS.get(key)


def check_foreign(config: Mapping[str, Any]) -> None:
    """Check the optimizers, schedulers, hooks and the visualizer of a run: names, arguments, packages they need.

    These are torch's and mmengine's classes mostly, which check little before the first step.

    Raises:
        ValueError: For an unknown name or argument, a value out of range, or a package that is not installed.
    """
    for name, wrapper in (config.get('optim_wrapper') or {}).items():
        wanted = (wrapper.get('optimizer') or {}).get('type')
        if isinstance(wanted, str) and OF_BITSANDBYTES.fullmatch(wanted) and find_spec('bitsandbytes') is None:
            raise ValueError(
                f'optim_wrapper.{name}.optimizer: {wanted} is of bitsandbytes, which is not installed; expected: '
                "pip install 'eqzoo[8bit]'; or another optimizer."
            )
        if 'type' in wrapper:
            _check_wrapper(f'optim_wrapper.{name}', wrapper['type'])
    for key in ('optim_wrapper', 'param_scheduler', 'visualizer', 'default_hooks', 'custom_hooks'):
        options = dict(kind=kind_of_key(config, key), supplied=_SUPPLIED.get(key, ()), annotations=_FOREIGN)
        for where, cls, arguments in check_config(config.get(key), key, **options):
            if key == 'optim_wrapper' and cls.__name__ in _UNFIT:
                reason, other = _UNFIT[cls.__name__]
                raise ValueError(f'{where}: {cls.__name__} {reason}; expected {other}.')
            if key == 'param_scheduler' and arguments.get('by_epoch') and not _counts_epochs(cls, arguments):
                raise ValueError(
                    f'{where}: {cls.__name__}.by_epoch: got True, but a run counts steps and has a single epoch; '
                    'expected False, with begin, end and other lengths in steps; or leave it out.'
                )
            packages = _EXTRAS.get(cls.__name__, ())
            if packages and not any(map(find_spec, packages)):
                raise ValueError(
                    f'{where}: {cls.__name__} needs {" or ".join(packages)}, which is not installed; expected: '
                    f'pip install {_WITH_EXTRA.get(packages[0], packages[0])}; or leave it out.'
                )
    for name, wrapper in (config.get('optim_wrapper') or {}).items():
        clipping = wrapper.get('clip_grad')
        if clipping is not None:
            _check(f'optim_wrapper.{name}.clip_grad', {'max_norm': PositiveFloat}, clipping)


def _check_wrapper(where: str, wanted: Any) -> None:
    """Refuse wrappers of optimizers that scale losses or clip gradients themselves, beside what a training does."""
    ours = component_of(OPTIM_WRAPPERS, 'StepOptimWrapper')
    cls = component_of(OPTIM_WRAPPERS, wanted) if isinstance(wanted, str) else wanted
    if not (isinstance(cls, type) and issubclass(cls, ours)):
        raise ValueError(
            f'{where}.type: got {getattr(wanted, "__name__", wanted)!r}; expected StepOptimWrapper, the default, or a '
            'subclass; leave it out. For mixed precision set model.precision=bf16.'
        )


def _counts_epochs(cls: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether a schedule may have `by_epoch=True`: it is converted to steps, or waits for validations."""
    return bool(arguments.get('convert_to_iter_based')) or getattr(cls, 'need_val_args', False)


def _check(place: str, schema: Any, value: Any) -> None:
    if not isinstance(schema, Mapping):
        check_value(place, schema, value)
        return
    if not isinstance(value, Mapping):
        check_value(place, dict, value)
    if '*' in schema:
        for key, item in value.items():
            _check(f'{place}.{key}', schema['*'], item)
        return
    required = [key for key in schema if not key.endswith('?')]
    names = [key.rstrip('?') for key in schema]
    for key in value:
        if key not in names:
            raise ValueError(
                f'{place} has no key {key!r}.{did_you_mean(str(key), names)} Its keys: {", ".join(names)}.'
            )
    missing = [key for key in required if key not in value]
    if missing:
        raise ValueError(f'{place} needs {", ".join(map(repr, missing))}.')
    for key, wanted in schema.items():
        if key.rstrip('?') in value:
            _check(f'{place}.{key.rstrip("?")}'.lstrip('.'), wanted, value[key.rstrip('?')])
