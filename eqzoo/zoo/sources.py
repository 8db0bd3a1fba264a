"""What names weights: paths, URLs, hf:// and eqzoo://."""

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from eqzoo.zoo.index import ReleasedFile, find, models

HUB = 'https://huggingface.co'

_HF = re.compile(r'hf://(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+?))?/(?P<path>[^@]+)')


def is_remote(source: str | Path) -> bool:
    """Return whether `source` is a URL of any kind, not a local path."""
    return isinstance(source, str) and source.startswith(('https://', 'http://', 'hf://', 'eqzoo://'))


def resolve(source: str) -> ReleasedFile:
    """Return the public file that a remote source names, with what the index knows of it.

    Args:
        source: `https://…`; `hf://org/repository[@revision]/path`; or `eqzoo://model`, with
            `/file` where a model has several.

    Raises:
        ValueError: If it names nothing.

    Example:
        >>> resolve('hf://org/repo@v1/vae/model.safetensors').url
        'https://huggingface.co/org/repo/resolve/v1/vae/model.safetensors'
    """
    if source.startswith('eqzoo://'):
        return _of_the_zoo(source)
    if source.startswith('hf://'):
        source = _hub_url(source)
    known = {file.url: file for model in models().values() for file in model.files}
    name = PurePosixPath(urlsplit(source).path).name
    if not name and source not in known:
        raise ValueError(f'weights: {source!r} names no file; accepted is a URL that ends in its name.')
    return known.get(source) or ReleasedFile(source, name)


def address(file: ReleasedFile) -> str:
    """Return where to fetch `file` from, which for the Hub is `HF_ENDPOINT` where that is set."""
    endpoint = os.environ.get('HF_ENDPOINT', '').rstrip('/')
    if endpoint and file.url.startswith(f'{HUB}/'):
        return endpoint + file.url.removeprefix(HUB)
    return file.url


def _of_the_zoo(source: str) -> ReleasedFile:
    name, _, wanted = source.removeprefix('eqzoo://').partition('/')
    files = {file.name: file for file in find(name).files}
    if len(files) == 1 and not wanted:
        return next(iter(files.values()))
    if wanted not in files:
        accepted = ', '.join(f'eqzoo://{name}/{file}' for file in files)
        raise ValueError(f'weights: {source!r} is not one file; accepted are {accepted}.')
    return files[wanted]


def _hub_url(source: str) -> str:
    match = _HF.fullmatch(source)
    if match is None:
        raise ValueError(f'weights: got {source!r}; accepted is hf://org/repository[@revision]/path/of/file.')
    return f'{HUB}/{match["repository"]}/resolve/{match["revision"] or "main"}/{match["path"]}'
