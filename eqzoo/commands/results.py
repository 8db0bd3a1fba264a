"""What a test leaves behind: metrics.json, pictures, and a report to read."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from eqzoo.report import write_report
from eqzoo.report.table import format_table


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
