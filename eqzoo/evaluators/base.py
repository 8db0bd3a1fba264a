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

    What cannot be a sum (neighbours, say) is kept row by row with `keep`: after `evaluate` has
    gathered them, `self.kept[name]` holds each image's row once, in the order of the data set,
    whichever process saw it.

    `curves`, set by `compute` where there are any, is drawn by the report.
    """

    default_prefix = ''  # metrics already have their full names

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self.curves: list[dict[str, Any]] = []
        self._rows: dict[str, list[Tensor]] = {}
        self._numbers: dict[str, list[Tensor]] = {}

    @abstractmethod
    def update(self, view: AutoencoderView) -> None:
        """Add one batch to the sums."""

    @abstractmethod
    def compute(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Turn the sums over all images into metrics by their full names."""

    def card(self) -> dict[str, Any]:
        """Say how the numbers are measured, in JSON's types."""
        return {}

    def check(self, num_images: int) -> None:
        """Refuse a data set of `num_images` that is too small; called before the first image.

        Raises:
            ValueError: With the number needed.
        """

    def flush(self) -> None:
        """Move sums kept elsewhere (on a device, say) to `self.sums`; called before they are added up."""

    def add(self, name: str, values: Tensor) -> None:
        """Add `values`, summed over their first axis, to the sum `name`."""
        self.add_total(name, to_double(values.detach()).sum(dim=0))

    def add_total(self, name: str, total: Tensor) -> None:
        """Add `total`, already summed over the batch, to the sum `name`."""
        total = to_double(total.detach()).cpu()
        if name in self.sums:
            self.sums[name] += total
        else:
            self.sums[name] = total.clone()

    def add_totals(self, name: str, totals: Mapping[str, Tensor]) -> None:
        """Add each of `totals` to the sum `<name> <its own name>`."""
        for part, total in totals.items():
            self.add_total(f'{name} {part}', total)

    def keep(self, name: str, rows: Tensor, numbers: Tensor) -> None:
        """Keep `rows` (B, ...) of the images `numbers` (B,) of the data set."""
        self._rows.setdefault(name, []).append(rows.detach().cpu())
        self._numbers.setdefault(name, []).append(numbers.cpu())

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
        self.flush()
        sums, self.sums = _over_processes(self.sums), {}
        if not sums:
            raise ValueError(f'{type(self).__name__} saw none of the {size} images; is every one unreadable?')
        self.kept = _gathered(self._rows, self._numbers)
        self._rows, self._numbers = {}, {}
        metrics = self.compute(sums)
        self.kept = {}
        return metrics


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


def _gathered(rows: Mapping[str, list[Tensor]], numbers: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return all processes' rows in the order of their numbers, each number once."""
    own = {name: (torch.cat(numbers[name]), torch.cat(rows[name])) for name in rows}
    everyones = all_gather_object(own)
    gathered = {}
    for name in dict.fromkeys(name for each in everyones for name in each):
        places, values = (torch.cat(parts) for parts in zip(*(e[name] for e in everyones if name in e), strict=True))
        order = places.argsort(stable=True)
        places = places[order]
        first = torch.cat([torch.ones(1, dtype=torch.bool), places[1:] != places[:-1]])
        gathered[name] = values[order[first]]
    return gathered
