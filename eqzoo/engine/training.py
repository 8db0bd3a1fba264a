"""What is alike in all training: one optimizer a group of parameters, pieces of a batch, precision."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.utils.data import Dataset

from eqzoo.distributed import average_gradients
from eqzoo.randomness import StepRandomness


class Training(nn.Module):
    """A model with the losses that train it, as `StepLoop` and the hooks use it.

    Args:
        micro_batch_size: Samples per process that go through the network at once; gradients
            of a batch's pieces are summed. None: the whole batch.
        precision: 'fp32', or 'bf16' for autocast without gradient scaling.
    """

    subject: ClassVar[str]
    """The attribute that is trained to be used: it is averaged, compiled, and what checkpoints are of."""

    def __init__(self, micro_batch_size: int | None, precision: Literal['fp32', 'bf16']) -> None:
        super().__init__()
        if precision not in ('fp32', 'bf16'):
            raise ValueError(f"{type(self).__name__}.precision must be 'fp32' or 'bf16', got {precision!r}.")
        self.micro_batch_size = micro_batch_size
        self.precision = precision

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

    def pieces(self, size: int) -> Iterator[tuple[slice, float]]:
        """Yield the micro-batches of a batch of `size` samples, each with its share of it."""
        piece = self.micro_batch_size or size
        for start in range(0, size, piece):
            part = slice(start, min(start + piece, size))
            yield part, (part.stop - start) / size


def update(optimizer: OptimWrapper, parameters: Sequence[nn.Parameter]) -> None:
    """Step along the gradients' mean over all processes."""
    average_gradients(parameters)
    optimizer.step()
    optimizer.zero_grad()


def accumulate(log: dict[str, Tensor], parts: Mapping[str, Tensor], share: float) -> None:
    """Add a piece's values to the batch's means."""
    for name, value in parts.items():
        log[name] = log[name] + share * value.detach()
