"""The report of one test: metrics, curves, pictures, and how all of it was measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from eqzoo.report.alike import giver
from eqzoo.report.charts import draw_chart
from eqzoo.report.pages import embed, write_page
from eqzoo.report.table import better


class _Line(NamedTuple):
    name: str
    value: float | None
    better: str
    evaluator: str


def write_report(path: str | Path, result: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> None:
    """Write a test's result as one self-contained HTML page.

    It holds everything itself, needs no script, and reads in light and dark, on paper and on a phone.

    Args:
        path: Of the page; its folder is made if it is not there.
        result: As metrics.json holds it: metrics, card, and where there are any, cases and curves.
        pictures: By title, embedded without loss.

    Raises:
        ValueError: If a curve is not of the form that `draw_chart` takes.
    """
    card = result['card']
    values = dict(
        title=_title(card),
        lead=_lead(card),
        versions={name: card.get(name) for name in ('eqzoo', 'torch')},
        card={name: value for name, value in card.items() if name not in ('evaluators', 'unreadable')},
        evaluators={name: _protocol(its) for name, its in card.get('evaluators', {}).items()},
        unreadable=card.get('unreadable', []),
        metrics=_lines(result['metrics'], card),
        cases=_lines(result.get('cases', {}), card),
        charts=[draw_chart(curve, number) for number, curve in enumerate(result.get('curves', []))],
        pictures=[embed(title, picture) for title, picture in pictures.items()],
    )
    write_page(path, 'report.html', values)


def _title(card: Mapping[str, Any]) -> str:
    """Return what the page is called: its config's folder and name, or its samples' name."""
    named = card.get('config') or card.get('samples')
    if not named:
        return 'Test report'
    path = Path(str(named))
    return f'{path.parent.name}/{path.stem}' if card.get('config') and path.parent.name else path.stem


def _lead(card: Mapping[str, Any]) -> str:
    """Say in a line what was measured on what."""
    data, weights = card.get('data'), card.get('weights')
    parts = [f'{card["num_images"]} images'] if 'num_images' in card else []
    if isinstance(data, Mapping):
        parts.append(' '.join(str(data[name]) for name in ('kind', 'root') if name in data))
    if isinstance(weights, Mapping) and 'file' in weights:
        parts.append(f'weights {weights["file"]}')
    return ' · '.join(part for part in parts if part)


def _protocol(card: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in card.items() if name != 'metrics'}


def _lines(values: Mapping[str, float | None], card: Mapping[str, Any]) -> list[_Line]:
    return [_Line(name, value, better(name), giver(name, card) or '') for name, value in values.items()]
