"""Benchmark of the memory of a training step: what each option saves, and what fits on a GPU of a given size."""

import copy
import inspect
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from torch.overrides import TorchFunctionMode

from eqzoo.benchmarks.autoencoders import released_step
from eqzoo.config import Config, trains_autoencoder
from eqzoo.engine.memory import StepMemory, step_memory
from eqzoo.engine.training import Training
from eqzoo.registry import build, find_component

RESERVE = 2**30
"""Bytes that are left for CUDA's context and the work space of convolutions: about half a GiB each."""

CARDS = (8, 12, 16, 24)
"""GiB of memory of common GPUs."""

_BATCHES = (1, 8, 64, 512)

_APART = {'reconstruction_loss.micro_batch_size': 1, 'adversarial_loss.micro_batch_size': 1}
_ALL = {**_APART, 'checkpointing': True}
_NO_GAN = {'adversarial_loss': None}

# By name, the keys of `model` that an option sets.
_AUTOENCODER_OPTIONS: dict[str, dict[str, Any]] = {
    'whole': {},
    'losses apart': _APART,
    'checkpointing': {'checkpointing': True},
    'both': _ALL,
    'both, no GAN': {**_ALL, **_NO_GAN},
    'both, no GAN, no LPIPS': {**_ALL, **_NO_GAN, 'reconstruction_loss.perceptual': None},
}
_GENERATOR_OPTIONS: dict[str, dict[str, Any]] = {
    'whole': {},
    'checkpointing': {'generator.network.checkpointing': True},
}


class MemoryRow(NamedTuple):
    """The memory of a step with an option.

    Args:
        name: The option.
        precision: 'fp32' or 'bf16'.
        memory: Of the batch that was asked for.
        peaks: Bytes by batch, in ascending order: as large batches as the largest of `CARDS` holds, and one more.
    """

    name: str
    precision: str
    memory: StepMemory
    peaks: dict[int, int]

    @property
    def each(self) -> int:
        """Bytes that one more sample takes in a large batch."""
        (less, low), (more, high) = list(self.peaks.items())[-2:]
        return (high - low) // (more - less)

    @property
    def fixed(self) -> int:
        """Bytes that do not grow with the batch: the peak of a large batch is `fixed` + batch · `each`."""
        batch, peak = list(self.peaks.items())[-1]
        return peak - batch * self.each

    def largest_batch(self, memory: int) -> int:
        """Return the largest batch for a GPU with so many bytes, of which `RESERVE` stays free; 0 if none fits.

        Between the batches that were counted the peak is at most their chord, being the largest of several moments',
        each of which is a line over the batch.
        """
        room = memory - RESERVE
        points = list(self.peaks.items())
        if points[0][1] > room:
            return 0
        for (less, low), (more, high) in pairwise(points):
            if high > room:
                return less + (room - low) * (more - less) // (high - low)
        return (room - self.fixed) // self.each


def memory_rows(config: Config, size: int, batch_size: int = 1, names: tuple[str, ...] = ()) -> Iterator[MemoryRow]:
    """Yield the memory of a step with each option, in fp32 and bf16.

    Args:
        config: Of an autoencoder or a generator; files of weights are not read.
        size: Pixels a side of an autoencoder's images.
        batch_size: Samples at once.
        names: The options; default: all.
    """
    is_autoencoder = trains_autoencoder(config.model)
    options = _AUTOENCODER_OPTIONS if is_autoencoder else _GENERATOR_OPTIONS
    sides = (size, size) if is_autoencoder else None
    has_gan = is_autoencoder and config.model.get('adversarial_loss') is not None
    for precision in ('fp32', 'bf16'):
        if has_gan and precision == 'fp32' and (not names or 'released' in names):
            model = _model(config, {}, precision)
            yield _row('released', precision, model, config, sides, batch_size, step=_released)
        for name, changes in options.items():
            if names and name not in names:
                continue
            if not has_gan:
                if 'no GAN' in name:
                    continue
                changes = {key: value for key, value in changes.items() if not key.startswith('adversarial')}
            yield _row(name, precision, _model(config, changes, precision), config, sides, batch_size)


def step_peak(config: Config, name: str, precision: str, size: int = 256) -> int:
    """Return the bytes at the peak of an autoencoder's step on one image with an option of `memory_rows`."""
    changes = _AUTOENCODER_OPTIONS[name]
    if config.model.get('adversarial_loss') is None:
        changes = {key: value for key, value in changes.items() if not key.startswith('adversarial')}
    return step_memory(_model(config, changes, precision), config, (size, size), 1).peak


def _row(
    name: str, precision: str, model: Training, config: Config, sides: Any, batch_size: int, **options: Any
) -> MemoryRow:
    memory = step_memory(model, config, sides, batch_size, **options)
    peaks = {}
    for batch in _BATCHES:
        peaks[batch] = memory.peak if batch == batch_size else step_memory(model, config, sides, batch, **options).peak
        if peaks[batch] > CARDS[-1] * 2**30 and len(peaks) > 1:
            break
    return MemoryRow(name, precision, memory, peaks)


def _model(config: Config, changes: Mapping[str, Any], precision: str) -> Training:
    own = copy.deepcopy(config.model.to_dict())
    own.update(precision=precision, micro_batch_size=None)
    for key, value in changes.items():
        *path, last = key.split('.')
        place = own
        for name in path:
            place = place[name]
        place[last] = value
    with _WithoutInitialisation():
        return build(without_files(own))


def _released(model: Any, batch: Any, optimizers: Any, randomness: Any) -> None:
    released_step(model, batch, optimizers, randomness, randomness)


def without_files(config: Any) -> Any:
    """Return a component's config with random weights in place of all files, also in its parts."""
    if isinstance(config, Mapping):
        parts = {key: without_files(value) for key, value in config.items()}
        component = find_component(parts['type']) if isinstance(parts.get('type'), str) else parts.get('type')
        if component is not None and 'weights' in inspect.signature(component).parameters:
            is_frozen = component.__module__.startswith(('eqzoo.vision', 'eqzoo.losses.perceptual'))
            parts['weights'] = 'random' if is_frozen else None
        return parts
    return [without_files(each) for each in config] if isinstance(config, list | tuple) else config


class _WithoutInitialisation(TorchFunctionMode):
    """Leave new weights as they are: random numbers for an XL network take longer than all that is counted."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, '__name__', '')
        if name in ('uniform_', 'normal_', 'trunc_normal_') or name.startswith(('kaiming_', 'xavier_')):
            return args[0] if args else kwargs['tensor']
        return func(*args, **(kwargs or {}))
