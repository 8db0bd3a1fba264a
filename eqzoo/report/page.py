"""HTML pages, and the report of a test as one: a single self-contained file without scripts."""

import base64
import io
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from eqzoo.files import replacing, save_picture, write_json
from eqzoo.report.cards import protocol
from eqzoo.report.charts import draw_chart
from eqzoo.report.meanings import SYMBOLS, meaning
from eqzoo.report.table import ARROWS, better, format_number, format_table
from eqzoo.text import printable

_WEBP_LIMIT = 16383  # pixels of a side
_OF_AUTOENCODERS = ('psnr', 'eq_')


class EmbeddedPicture(NamedTuple):
    """A picture as the page holds it: its title, size in pixels and data URL."""

    title: str
    width: int
    height: int
    url: str


class _Line(NamedTuple):
    name: str
    value: float | None
    better: str
    meaning: str


class _Protocol(NamedTuple):
    title: str
    protocol: dict[str, Any]


def save_result(result: Mapping[str, Any], pictures: Mapping[str, Image.Image], folder: Path, name: str) -> None:
    """Write metrics.json, the pictures and report.html to `folder`, and print the table.

    Args:
        result: As `eqzoo.engine.evaluation.evaluate` returns it, with its card completed.
        pictures: By title, from which their files are named.
        folder: Created if it does not exist.
        name: The result's name in the printed table.
    """
    write_json(folder / 'metrics.json', _without_nan(result))
    for title, picture in pictures.items():
        save_picture(picture, folder / f'{title.lower().replace(" ", "_")}.png')
    write_report(folder / 'report.html', result, pictures)
    print(format_table({name: result['metrics']}))
    print(printable(f'Written: {folder}/metrics.json and {folder}/report.html'))


def write_report(path: str | Path, result: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> None:
    """Write a test's result as one self-contained HTML page, for light and dark, paper and phone.

    Args:
        path: The page's file; its folder is created if it does not exist.
        result: As in metrics.json: metrics, card, and optionally cases and curves.
        pictures: By title, embedded without loss.

    Raises:
        ValueError: If a curve does not have the form that `draw_chart` takes.
    """
    card = result['card']
    values = dict(
        title=_title(card),
        lead=_lead(card),
        versions={name: card.get(name) for name in ('eqzoo', 'torch')},
        card={name: value for name, value in card.items() if name not in ('evaluators', 'unreadable')},
        evaluators=[_protocol(name, its) for name, its in card.get('evaluators', {}).items()],
        unreadable=card.get('unreadable', []),
        metrics=[_Line(name, value, better(name), meaning(name)) for name, value in result['metrics'].items()],
        cases=[_Line(name, value, better(name), '') for name, value in result.get('cases', {}).items()],
        # of an autoencoder's pictures; a generator's are samples
        symbols=SYMBOLS if any(name.startswith(_OF_AUTOENCODERS) for name in result['metrics']) else {},
        before=_before(card),
        charts=[draw_chart(curve, number) for number, curve in enumerate(result.get('curves', []))],
        pictures=[embed(title, picture) for title, picture in pictures.items()],
    )
    write_page(path, 'report.html', values)


def write_page(path: str | Path, template: str, values: dict[str, Any]) -> None:
    """Fill one of this package's templates and write the page, atomically.

    All `values` are escaped, except for the SVG of charts.
    """
    page = printable(_environment().get_template(template).render(values), lines=True)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding='utf-8')


def embed(title: str, picture: Image.Image) -> EmbeddedPicture:
    """Return a picture as a data URL, without loss: a codec's artefacts would be blamed on the autoencoder."""
    if picture.mode not in ('RGB', 'RGBA', 'L'):
        picture = picture.convert('RGBA' if 'A' in picture.getbands() or 'transparency' in picture.info else 'RGB')
    buffer = io.BytesIO()
    if max(picture.size) <= _WEBP_LIMIT:
        kind = 'webp'
        picture.save(buffer, 'WEBP', lossless=True, quality=20, method=1)  # quality: of the search, not the pixels
    else:
        kind = 'png'
        picture.save(buffer, 'PNG')
    url = f'data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}'
    return EmbeddedPicture(title, *picture.size, url)


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
    environment.filters['arrow'] = ARROWS.__getitem__
    return environment


def _title(card: Mapping[str, Any]) -> str:
    """Return the page's title: its config's folder and name, or its samples' name."""
    source = card.get('config') or card.get('samples')
    if not source:
        return 'Test report'
    path = Path(str(source))
    name = path.stem if path.suffix in ('.py', '.npz', '.zip') else path.name
    return f'{path.parent.name}/{name}' if card.get('config') and path.parent.name else name


def _lead(card: Mapping[str, Any]) -> str:
    """Return a line on the images, the data set and the weights."""
    data, weights = card.get('data'), card.get('weights')
    parts = [f'{card["num_images"]} images'] if 'num_images' in card else []
    if isinstance(data, Mapping):
        parts.append(' '.join(str(data[name]) for name in ('kind', 'root') if name in data))
    if isinstance(weights, Mapping) and 'file' in weights:
        parts.append(f'weights {weights["file"]}')
    return ' · '.join(part for part in parts if part)


def _before(card: Mapping[str, Any]) -> str | None:
    """Return the file of the weights that pictures show as before the training, if they do."""
    started_from = card.get('started_from')
    return str(started_from['file']) if isinstance(started_from, Mapping) and 'file' in started_from else None


def _protocol(name: str, card: Mapping[str, Any]) -> _Protocol:
    """Return an evaluator's card below the metrics it is about; cards of older files do not list them."""
    metrics = card.get('metrics')
    title = ', '.join(map(str, metrics)) if isinstance(metrics, list) and metrics else name
    return _Protocol(title, {**protocol(card), 'evaluator': name})


def _without_nan(value: Any) -> Any:
    """Replace numbers that JSON does not have by null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
