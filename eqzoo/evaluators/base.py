"""Evaluators keep sums, not samples: any number of images, batches and processes."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.evaluator import BaseMetric
from torch import Tensor

from eqzoo.evaluators.view import AutoencoderView


class Evaluator(BaseMetric):
    """An mmengine metric whose state is float64 sums by name, added up over processes.

    Subclasses add to `self.sums[name]` in `update` and turn the totals into metrics in
    `compute`. Names may appear as data arrive, in some processes only: a process that saw
    no image still takes part in `evaluate` and returns what the others do.
    """

    default_prefix = ''  # metrics already have their full names

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Tensor] = {}

    @abstractmethod
    def update(self, view: AutoencoderView) -> None:
        """Add one batch to the sums."""

    @abstractmethod
    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Turn the sums over all images into metrics by their full names."""

    def card(self) -> dict[str, Any]:
        """Say how the numbers are measured, in JSON's types."""
        return {}

    def add(self, name: str, values: Tensor) -> None:
        """Add `values`, summed over their first axis, to the sum `name`."""
        total = to_double(values.detach()).sum(dim=0).cpu()
        self.sums[name] = self.sums[name] + total if name in self.sums else total

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[AutoencoderView]) -> None:
        """Take a batch as mmengine hands it over: `data_samples` holds one view."""
        (view,) = data_samples
        self.add('count', torch.ones(len(view.images)))
        self.update(view)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the metrics; mmengine's `results` are not used."""
        return self.compute(self.sums)

    def evaluate(self, size: int) -> dict[str, float]:
        """Add up the sums of all processes, forget them, and return the metrics.

        Args:
            size: The number of images in the data set, for the error message.

        Raises:
            ValueError: If no process saw an image, in all of them alike.
        """
        sums, self.sums = _over_processes(self.sums), {}
        if not sums:
            raise ValueError(f'{type(self).__name__} saw none of the {size} images; is every one unreadable?')
        return self.compute(sums)


def to_double(x: Tensor) -> Tensor:
    """Return `x` in float64, where there is float64: Apple's devices have none."""
    return (x if x.is_cuda else x.cpu()).double()


def _over_processes(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add up the sums of all processes; one that lacks a name, having seen no image, adds zeros."""
    everyones = all_gather_object({name: tuple(total.shape) for name, total in sums.items()})
    shapes = {name: shape for each in everyones for name, shape in each.items()}
    totals = {name: sums.get(name, torch.zeros(shape, dtype=torch.float64)) for name, shape in shapes.items()}
    for total in totals.values():
        all_reduce(total)
    return totals
