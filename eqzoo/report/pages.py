"""Self-contained HTML pages: one file that needs no network, no script and no other file."""

import base64
import io
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from eqzoo.report.table import format_number

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
