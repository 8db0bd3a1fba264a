"""Evaluators over a data set: one pass, one result with a card that says how it was measured."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from eqzoo import __version__
from eqzoo.distributed import rank_and_world_size
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
