"""Base class of trainings, their optimizer wrapper, and compilation."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch
import torch._functorch.config
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.utils.data import Dataset

from eqzoo.distributed import average_gradients, whole
from eqzoo.randomness import StepRandomness
from eqzoo.registry import OPTIM_WRAPPERS


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compile modules in place, each for itself; names of weights stay.

    Sizes may change from step to step, with a transform's scale; torch recompiles once and
    then keeps them dynamic.
    """
    # An autoencoder's adaptive weight differentiates a graph twice, which torch < 2.12 refuses otherwise.
    torch._functorch.config.donated_buffer = False
    for block in blocks:
        block.compile()


class Training(nn.Module):
    """A model with the losses that train it, as `StepLoop` and the hooks use it.

    Args:
        micro_batch_size: Samples per process that go through the network at once; gradients
            of a batch's pieces are summed. None: the whole batch.
        precision: 'fp32', or 'bf16' for autocast without gradient scaling.
        on_nonfinite: What a loss or gradient that is not finite does: 'stop' ends the run, before such weights are
            saved; 'skip' leaves the update out, for which the host waits for the device in every step.
    """

    subject: ClassVar[str]
    """The attribute that is trained to be used: it is averaged, compiled, and what checkpoints are of."""

    def __init__(
        self, micro_batch_size: int | None, precision: Literal['fp32', 'bf16'], on_nonfinite: Literal['stop', 'skip']
    ) -> None:
        super().__init__()
        if on_nonfinite not in ('stop', 'skip'):
            raise ValueError(f"{type(self).__name__}.on_nonfinite must be 'stop' or 'skip', got {on_nonfinite!r}.")
        if precision not in ('fp32', 'bf16'):
            raise ValueError(f"{type(self).__name__}.precision must be 'fp32' or 'bf16', got {precision!r}.")
        self.micro_batch_size = micro_batch_size
        self.precision = precision
        self.on_nonfinite = on_nonfinite

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what each optimizer trains."""

    @abstractmethod
    def train_step(
        self, batch: Mapping[str, Any], optimizers: Mapping[str, OptimWrapper], randomness: StepRandomness
    ) -> dict[str, Tensor]:
        """Update the parameters once, and return scalars for the log.

        Args:
            batch: As the data set's loader makes it, with `draws` (B,).
            optimizers: One for each of `parameter_groups`.
            randomness: The step's streams.
        """

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the modules that may be compiled, each for itself."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Return a few lines about what is trained, by title."""

    @abstractmethod
    def stored_config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return what checkpoints say of the model, as plain data, by name.

        Args:
            config: What this was built from.
        """

    def check_data(self, dataset: Dataset) -> None:
        """Refuse training data that do not fit.

        Raises:
            ValueError: Naming what differs.
        """

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """Return the context that computes in `precision`."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == 'bf16')

    def update(self, optimizer: OptimWrapper, parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
        """Step along the gradients' mean over all processes, and return scalars for the log.

        These are 'grad_norm', of all gradients before they are clipped, where they are; and
        'skipped', 1 or 0, where updates may be.
        """
        average_gradients(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        log: dict[str, Tensor] = {}
        skips, limit = self.on_nonfinite == 'skip', clip_limit(optimizer)
        if gradients and (skips or limit is not None):
            log['grad_norm'] = norm = whole(nn.utils.get_total_norm(gradients))
            if skips:
                log['skipped'] = (~norm.isfinite()).float()
                if log['skipped']:
                    optimizer.zero_grad()
                    return log
            if limit is not None:
                nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        optimizer.step()
        optimizer.zero_grad()
        return log

    def pieces(self, size: int) -> Iterator[tuple[slice, float]]:
        """Yield the micro-batches of a batch of `size` samples, each with its share of it."""
        piece = self.micro_batch_size or size
        for start in range(0, size, piece):
            part = slice(start, min(start + piece, size))
            yield part, (part.stop - start) / size


def accumulate(log: dict[str, Tensor], parts: Mapping[str, Tensor], share: float) -> None:
    """Add a piece's values to the batch's means."""
    for name, value in parts.items():
        log[name] = log[name] + share * value.detach()


@OPTIM_WRAPPERS.register_module()
class StepOptimWrapper(OptimWrapper):
    """Step an optimizer; `Training.update` clips, before: mmengine's own clipping reads the norm in every step."""

    def _clip_grad(self) -> None:
        """Do nothing."""


def clip_limit(optimizer: OptimWrapper) -> float | None:
    """Return the norm to which an optimizer's `clip_grad=dict(max_norm=…)` clips gradients; None for no clipping.

    Raises:
        ValueError: If it says anything else.
    """
    options = optimizer.clip_grad_kwargs
    if options is None:
        return None
    if set(options) != {'max_norm'} or not options['max_norm'] > 0:
        raise ValueError(f'optim_wrapper.clip_grad: got {options}; accepted is dict(max_norm=NUMBER) above 0, or None.')
    return options['max_norm']
