"""What mkdocs does while it builds: the API's sources in one place, and tables made of the metafiles."""

import atexit
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
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
    """Put tables of released models where a page says `<!-- models: GROUP -->`."""
    return re.sub(r'<!-- models: ([\w ]+) -->', lambda found: models_table(found[1]), markdown)


def models_table(group: str) -> str:
    """Return a table of what the metafiles list.

    Args:
        group: 'autoencoders', 'generators', or 'losses and metrics'.
    """
    lines = [
        '| name | parameters | licence | config | results, by the source | trained on | weights | MB | sha256 |',
        '|---|--:|---|---|---|---|---|--:|---|',
    ]
    for path in sorted((ROOT / 'configs').rglob('metafile.yml')):
        metafile = yaml.safe_load(path.read_text())
        sources = {each['Name']: _source_of(each) for each in metafile.get('Collections', ())}
        for model in metafile['Models']:
            if _group(model, path) == group:
                lines.append(_row(model, sources))
    return '\n'.join(lines)


def _group(model: Mapping[str, Any], metafile: Path) -> str:
    if metafile.parent.name in ('losses', 'evaluation'):
        return 'losses and metrics'
    return 'generators' if '_published' in model['Config'] else 'autoencoders'


def _row(model: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    files = model.get('Files') or [{**model, 'URL': model['Weights']}]
    metadata = model['Metadata']
    training = [metadata['Training Data']] if 'Training Data' in metadata else []
    training += [f'{metadata["Epochs"]} epochs'] if 'Epochs' in metadata else []
    results = [f'{name} {value}' for each in model.get('Results', ()) for name, value in each['Metrics'].items()]
    sizes = [file.get('Bytes') for file in files]
    gated = f' ([gated]({model["Gated"]}))' if 'Gated' in model else ''
    cells = [
        f'`{model["Name"]}`',
        f'{metadata["Parameters"]:,}',
        model['License'] + gated,
        f'`{model["Config"]}`',
        ', '.join(results) or '–',
        ', '.join(training) or '–',
        f'[{urlsplit(files[0]["URL"]).hostname}]({files[0]["URL"]}); {sources[model["In Collection"]]}',
        '?' if None in sizes else f'{sum(sizes) / 1e6:,.1f}',
        'known' if all('SHA256' in file for file in files) else '–',
    ]
    return f'| {" | ".join(cells)} |'


def _source_of(collection: Mapping[str, Any]) -> str:
    """Return a link to the paper or the code."""
    origin = collection.get('Paper') or collection['Code']
    return f'[{collection["Name"]}]({origin["URL"]})'
