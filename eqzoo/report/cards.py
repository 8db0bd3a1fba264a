"""Metric cards: whether two results of a metric were measured in the same way."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from eqzoo.report.results import Result
from eqzoo.text import printable

_ABSENT = object()
_MAX_CHARACTERS = 60  # of a value in a message
_DATA_FIELDS = ('data', 'num_images', 'unreadable')  # of the card; every metric depends on them
# Of an evaluator's card: the autoencoder, which is being compared as the weights are, and what follows from its shape.
_SUBJECT = ('autoencoder', 'undetermined')
_LOCATIONS = ('root', 'file')  # ignored where a hash is known: a folder and a zip of it agree


class CardDifference(NamedTuple):
    """A field of the card in which two results differ."""

    field: str
    first: str
    second: str


def differences(metric: str, first: Result, second: Result) -> list[CardDifference]:
    """Return the differences between two cards in everything that the value of `metric` depends on.

    These are the data set, the number of images, the unreadable images and the card of the metric's
    evaluator. Weights, config and the autoencoder in an evaluator's card are left out, since they are being compared,
    and so are versions.
    Of sets of samples, which are being compared too, only the number and the size have to agree.

    Older files do not name the evaluator of a metric; then all evaluators that both have must agree.
    """
    cards = [first.card, second.card]
    if all('samples' in card for card in cards):
        cards = [_without_content(card) for card in cards]
    found = []
    for field in _DATA_FIELDS:
        found += _compare(field, *(card.get(field, _ABSENT) for card in cards))
    for field, one, other in _evaluator_cards(metric, first, second):
        found += _compare(field, one, other)
    return found


def evaluator_of(metric: str, card: Mapping[str, Any]) -> str | None:
    """Return the evaluator that measured `metric`, or the metric it is a case of; None if the card does not say."""
    case, mark, number = metric.partition('#')
    # `fd/reconstructions` is a metric of its own, not a case of `fd`
    measured = case.removesuffix('_std')  # a standard error has no name of its own there
    for wanted in (metric, f'{measured}{mark}{number}', f'{measured.rpartition("/")[0]}{mark}{number}'):
        for name, its in card.get('evaluators', {}).items():
            metrics = its.get('metrics')
            if isinstance(metrics, list) and wanted in metrics:
                return name
    return None


def protocol(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return an evaluator's card without the names of its metrics."""
    return {name: value for name, value in card.items() if name != 'metrics'}


def _evaluator_cards(metric: str, first: Result, second: Result) -> Iterator[tuple[str, Any, Any]]:
    """Yield the pairs of evaluators' cards that have to agree, each with its place."""
    evaluators = [evaluator_of(metric, each.card) for each in (first, second)]
    cards = [
        {name: _without_subject(protocol(card)) for name, card in each.card['evaluators'].items()}
        for each in (first, second)
    ]
    if None not in evaluators:
        kinds = [name.split('#')[0] for name in evaluators]
        if kinds[0] != kinds[1]:
            yield 'evaluators', *kinds
        else:
            yield f'evaluators.{evaluators[0]}', *(each[name] for each, name in zip(cards, evaluators, strict=True))
        return
    # one file does not name the evaluator: take the other file's, or all that both have
    known = next((name for name in evaluators if name), None)
    shared = [name for name in cards[0] if name in cards[1]]
    for name in [known] if known in shared else shared:
        yield f'evaluators.{name}', cards[0][name], cards[1][name]


def _without_subject(card: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in card.items() if name not in _SUBJECT}


def _without_content(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card whose data are described by the size of the images alone."""
    data = card.get('data')
    size = data.get('size', _ABSENT) if isinstance(data, Mapping) else _ABSENT
    return {**card, 'data': {'size': size}}


def _compare(field: str, first: Any, second: Any) -> Iterator[CardDifference]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        hashed = first.get('sha256') and second.get('sha256')
        for name in dict.fromkeys([*first, *second]):
            if hashed and name in _LOCATIONS:
                continue
            yield from _compare(f'{field}.{name}', first.get(name, _ABSENT), second.get(name, _ABSENT))
    elif first is not second and first != second:
        yield CardDifference(field, _format_value(first), _format_value(second))


def _format_value(value: Any) -> str:
    if value is _ABSENT:
        return 'not stated'
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _MAX_CHARACTERS else f'{text[: _MAX_CHARACTERS - 13]}…{text[-12:]}'
