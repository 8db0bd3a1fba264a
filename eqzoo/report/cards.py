"""Whether two results of a metric were measured alike, as their cards tell."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from eqzoo.report.results import Result, printable

_NOTHING = object()
_SHOWN = 60  # characters of a value in a message
_ALL_DEPEND_ON = ('data', 'num_images', 'unreadable')  # of a card
_NAMES = ('root', 'file')  # of what is known by its hash: a folder and a zip of it agree


class Difference(NamedTuple):
    """A field of the card that two results do not agree on."""

    field: str
    first: str
    second: str


def differences(metric: str, first: Result, second: Result) -> list[Difference]:
    """Return where the cards of `metric` disagree in what its value depends on.

    That is the data set, the number of images, which were unreadable, and the card of the evaluator
    that gave it; not the weights and the config, which are what is compared, and not the versions.
    Of a set of samples, which is itself what is compared, it is the number and the size.

    Older files do not say which evaluator gave a metric: then all that both results have must agree.
    """
    cards = [first.card, second.card]
    if all('samples' in card for card in cards):
        cards = [_without_content(card) for card in cards]
    found = []
    for field in _ALL_DEPEND_ON:
        found += _between(field, *(card.get(field, _NOTHING) for card in cards))
    for field, one, other in _evaluator_cards(metric, first, second):
        found += _between(field, one, other)
    return found


def _evaluator_cards(metric: str, first: Result, second: Result) -> Iterator[tuple[str, Any, Any]]:
    """Yield pairs of evaluators' cards that have to agree, with where they are."""
    givers = [giver(metric, each.card) for each in (first, second)]
    cards = [
        {name: _without_metrics(card) for name, card in each.card['evaluators'].items()} for each in (first, second)
    ]
    if None not in givers:
        kinds = [name.split('#')[0] for name in givers]
        if kinds[0] != kinds[1]:
            yield 'evaluators', *kinds
        else:
            yield f'evaluators.{givers[0]}', *(each[name] for each, name in zip(cards, givers, strict=True))
        return
    # either file does not say: the evaluator that the other names, else all
    known = next((name for name in givers if name), None)
    shared = [name for name in cards[0] if name in cards[1]]
    for name in [known] if known in shared else shared:
        yield f'evaluators.{name}', cards[0][name], cards[1][name]


def giver(metric: str, card: Mapping[str, Any]) -> str | None:
    """Return the evaluator that gave `metric`, or the metric that it is a case of; None if the card does not say."""
    case, mark, number = metric.partition('#')
    wanted = metric, f'{case.rpartition("/")[0]}{mark}{number}'
    for name, its in card.get('evaluators', {}).items():
        metrics = its.get('metrics')
        if isinstance(metrics, list) and any(each in wanted for each in metrics):
            return name
    return None


def _without_content(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card that says of its data only their images' size."""
    data = card.get('data')
    size = data.get('size', _NOTHING) if isinstance(data, Mapping) else _NOTHING
    return {**card, 'data': {'size': size}}


def _without_metrics(card: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in card.items() if name != 'metrics'}


def _between(field: str, first: Any, second: Any) -> Iterator[Difference]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        hashed = first.get('sha256') and second.get('sha256')
        for name in dict.fromkeys([*first, *second]):
            if hashed and name in _NAMES:
                continue
            yield from _between(f'{field}.{name}', first.get(name, _NOTHING), second.get(name, _NOTHING))
    elif first is not second and first != second:
        yield Difference(field, _shown(first), _shown(second))


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return 'not stated'
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _SHOWN else f'{text[: _SHOWN - 13]}…{text[-12:]}'
