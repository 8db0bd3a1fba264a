"""Self-contained HTML pages: one file that needs no network, no script and no other file."""

import base64
import io
import json
import math
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from eqzoo.report.cards import giver
from eqzoo.report.charts import draw_chart
from eqzoo.report.table import better, format_number, format_table

_WEBP_LIMIT = 16383  # pixels of a side
_WORDS = {'↑': 'higher is better', '↓': 'lower is better', '': ''}
# What XML and HTML have no place for; a stray byte of a file name comes as a lone surrogate.
_NO_TEXT = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')


class Embedded(NamedTuple):
    """A picture as the page holds it: its title, size in pixels and data URL."""

    title: str
    width: int
    height: int
    url: str


def write_page(path: str | Path, template: str, values: dict[str, Any]) -> None:
    """Fill one of this package's templates and move the page into place when it is whole.

    All of `values` is text to it, whatever it looks like, but for the SVG of charts.
    """
    page = _environment().get_template(template).render(values)
    page = _NO_TEXT.sub(lambda match: f'\\x{ord(match[0]):02x}', page)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    temporary.write_text(page, encoding='utf-8')
    temporary.replace(path)


def embed(title: str, picture: Image.Image) -> Embedded:
    """Put a picture into a data URL, without loss: what a codec adds would pass for the autoencoder's."""
    if picture.mode not in ('RGB', 'RGBA', 'L'):
        picture = picture.convert('RGBA' if 'A' in picture.getbands() or 'transparency' in picture.info else 'RGB')
    buffer = io.BytesIO()
    if max(picture.size) <= _WEBP_LIMIT:
        kind = 'webp'
        picture.save(buffer, 'WEBP', lossless=True, quality=20, method=1)  # quality: of the search, not the pixels
    else:
        kind = 'png'
        picture.save(buffer, 'PNG')
    return Embedded(title, *picture.size, f'data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}')


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader('eqzoo.report'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['number'] = format_number
    environment.filters['direction'] = _WORDS.__getitem__
    return environment


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


def save_result(result: Mapping[str, Any], pictures: Mapping[str, Image.Image], folder: Path, name: str) -> None:
    """Write metrics.json, the pictures and report.html to `folder`, and print the table.

    Args:
        result: As `eqzoo.engine.evaluation.evaluate` returns it, its card complete.
        pictures: By title; the title's words are the file's name.
        folder: Made if it is not there.
        name: What the table calls the result.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / '.metrics.json.tmp'
    temporary.write_text(json.dumps(_without_nan(result), indent=2, allow_nan=False) + '\n')
    temporary.replace(folder / 'metrics.json')
    for title, picture in pictures.items():
        picture.save(folder / f'{title.lower().replace(" ", "_")}.png')
    write_report(folder / 'report.html', result, pictures)
    print(format_table({name: result['metrics']}))
    print(f'Written: {folder}/metrics.json and {folder}/report.html')


def _without_nan(value: Any) -> Any:
    """Replace numbers that JSON does not have by null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
