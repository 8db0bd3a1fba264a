"""What mkdocs does while it builds: the API's sources in one place, and pages made of the metafiles."""

import atexit
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import zoo_pages
from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parents[1]


@event_priority(100)  # before mkdocstrings reads it
def on_config(config: Any) -> Any:
    """Show mkdocstrings a copy of the package, `registry/` in it, which in a checkout lies beside it.

    Google's style writes `Example:`; griffe takes `Examples:` for a section of sessions, any other word for a note.
    """
    package = _sources() / 'eqzoo'
    shutil.rmtree(package, ignore_errors=True)
    for folder, place in ((ROOT / 'eqzoo', package), (ROOT / 'registry', package / 'registry')):
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns('__pycache__'))
    for module in package.rglob('*.py'):
        module.write_text(re.sub(r'^( +)Example:$', r'\1Examples:', module.read_text(), flags=re.MULTILINE))
    config.plugins['mkdocstrings'].config.handlers['python']['paths'] = [str(_sources())]
    return config


@cache
def _sources() -> Path:
    folder = Path(tempfile.mkdtemp(prefix='eqzoo-docs-'))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put tables and cards of released models where a page says `<!-- models: GROUP -->` or `<!-- cards: GROUP -->`."""
    write = {'models': zoo_pages.models_table, 'cards': zoo_pages.model_cards}
    return re.sub(r'<!-- (models|cards): ([\w ]+) -->', lambda found: write[found[1]](found[2]), markdown)
