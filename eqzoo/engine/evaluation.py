"""Evaluators over a data set: one pass, one result with a card that says how it was measured."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from eqzoo import __version__
from eqzoo.data.samples import NpzSamples, PngSamples
from eqzoo.distributed import all_gather_object, rank_and_world_size
from eqzoo.engine.sampling import ImageSampler, batches
from eqzoo.evaluators.base import Evaluator


@torch.no_grad()
def evaluate(
    evaluators: Sequence[Evaluator],
    loader: DataLoader,
    view_of: Callable[[Tensor, Tensor], Any],
    *,
    title: str = 'test',
) -> dict[str, Any]:
    """Show every image of `loader` to all evaluators, over all processes, and return the result.

    Args:
        evaluators: With empty states.
        loader: Batches, every image once over all processes.
        view_of: (images uint8 (B, 3, H, W), their numbers (B,)) → what evaluators look at.
        title: Of the progress bar.

    Returns:
        As `metrics.json` holds it: `metrics` by name, `cases` (a transform's single cases, standard errors),
        `curves`, and the `card`, to which the caller adds what was evaluated.

    Raises:
        ValueError: If the data set is too small for an evaluator, before the first image.
    """
    size = len(loader.dataset)
    for evaluator in evaluators:
        evaluator.check(size)
    unreadable: list[str] = []
    hidden = rank_and_world_size()[0] > 0
    for batch in tqdm(loader, desc=title, unit='batch', disable=hidden, file=sys.stdout, mininterval=1):
        update(evaluators, view_of(batch['images'], batch['indices']), batch)
        unreadable += batch['unreadable']
    unreadable = sorted(name for names in all_gather_object(unreadable) for name in names)
    given = compute_each(evaluators, size)
    values = {name: value for metrics in given for name, value in metrics.items()}
    return {
        'metrics': {name: value for name, value in values.items() if not _is_case(name)},
        'cases': {name: value for name, value in values.items() if _is_case(name)},
        'curves': [curve for evaluator in evaluators for curve in evaluator.curves],
        'card': {
            'data': loader.dataset.identity(),
            'num_images': size - len(unreadable),
            'unreadable': unreadable,
            'evaluators': _cards(evaluators, given),
            'eqzoo': __version__,
            'torch': torch.__version__,
        },
    }


def update(evaluators: Sequence[Evaluator], view: Any, batch: Mapping[str, Any]) -> None:
    """Show one batch to all evaluators; they share what the view computes."""
    for evaluator in evaluators:
        evaluator.process(batch, [view])


def compute(evaluators: Sequence[Evaluator], size: int) -> dict[str, float]:
    """Return all evaluators' metrics over `size` images, by name."""
    return {name: value for metrics in compute_each(evaluators, size) for name, value in metrics.items()}


def compute_each(evaluators: Sequence[Evaluator], size: int) -> list[dict[str, float]]:
    """Return each evaluator's metrics over `size` images; a name given before gets a number, '#2'."""
    seen: dict[str, int] = {}
    given = []
    for evaluator in evaluators:
        named = {}
        for name, value in evaluator.evaluate(size).items():
            seen[name] = seen.get(name, 0) + 1
            named[name if seen[name] == 1 else f'{name}#{seen[name]}'] = value
        given.append(named)
    return given


def _cards(evaluators: Sequence[Evaluator], given: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    cards: dict[str, dict[str, Any]] = {}
    for evaluator, metrics in zip(evaluators, given, strict=True):
        name, number = type(evaluator).__name__, 1
        while name in cards:
            number += 1
            name = f'{type(evaluator).__name__}#{number}'
        cards[name] = {'metrics': [metric for metric in metrics if not _is_case(metric)], **evaluator.card()}
    return cards


def _is_case(name: str) -> bool:
    """Whether a value is a part of a metric, `eq_err/rotation/90`, or its standard error, `eq_err/rotation_std`."""
    return name.count('/') == 2 or ('/' in name and name.endswith('_std'))


class SampleBatches:
    """Batches of samples in place of a loader; nothing is written unless `files` is given.

    Over several processes each draws its own share.

    Args:
        draw: Draws images by number.
        num_samples: N, over all processes.
        batch_size: Of this process.
        identity: How they are drawn, for metric cards.
        files: Where samples go, and where those are read that are there already.
        num_examples: How many of this process's first images are kept, as `examples`.
    """

    def __init__(
        self,
        draw: ImageSampler,
        num_samples: int,
        *,
        batch_size: int,
        identity: Mapping[str, Any],
        files: PngSamples | NpzSamples | None = None,
        num_examples: int = 128,
    ) -> None:
        self.dataset = _Samples(num_samples, identity)
        self.draw, self.batch_size, self.files, self.num_examples = draw, batch_size, files, num_examples
        self.examples: list[Tensor] = []
        self.example_labels: list[int] = []

    def __len__(self) -> int:
        return -(-len(self._own()) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        there = self.files.numbers() if self.files is not None else set()
        for numbers in batches(self._own(), self.batch_size):
            images, labels = self._images(numbers, there), self.draw.labels_of(numbers)
            for image, label in zip(images, labels.tolist(), strict=True):
                if len(self.examples) < self.num_examples:
                    self.examples.append(image)
                    self.example_labels.append(label)
            yield dict(images=images, labels=labels, indices=torch.tensor(numbers), unreadable=[])

    def _own(self) -> range:
        rank, world_size = rank_and_world_size()
        return range(rank, len(self.dataset), world_size)

    def _images(self, numbers: list[int], there: set[int]) -> Tensor:
        if self.files is None:
            return self.draw(numbers)
        lacking = [number for number in numbers if number not in there]
        found = [number for number in numbers if number in there]
        pieces = [self.files.read(found)] if found else []
        if lacking:
            drawn = self.draw(lacking)
            self.files.write(lacking, drawn)
            pieces.append(drawn)
        order = torch.tensor([*found, *lacking]).argsort()
        return torch.cat(pieces)[order]


class _Samples:
    """What an evaluation asks of a data set."""

    def __init__(self, count: int, identity: Mapping[str, Any]) -> None:
        self._count, self._identity = count, identity

    def __len__(self) -> int:
        return self._count

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)
