"""The index of released weights, from the metafiles beside the configs; finds the public file of a source."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from eqzoo.config import configs_folder
from eqzoo.files import did_you_mean
from eqzoo.text import printable

HUB = 'https://huggingface.co'

PACKAGED = 'package:'
"""What the address of a file begins with that comes with eqzoo: its path in the folder of the configs follows."""

DIFFUSERS_CONFIG = 'config.json'
DIFFUSERS_COMPANION = 'eqzoo.safetensors'

# diffusers' names of weights: in full precision first, then its variants.
_VARIANTS = ('', '.fp16', '.bf16', '.ema', '.non_ema')
DIFFUSERS_WEIGHTS = tuple(
    name
    for variant in _VARIANTS
    for kind in ('safetensors', 'bin')
    for name in (f'diffusion_pytorch_model{variant}.{kind}', f'diffusion_pytorch_model.{kind}.index{variant}.json')
)
"""The files that may hold the weights of a folder of diffusers, the best first; an index lists the shards."""

# user and password of a URL of any scheme
_USER = re.compile(r'(?<=://)[^/]*@')
_HUB_FOLDER = re.compile(r'hf://[\w.-]+/[\w.-]+?(@[\w.-]+)?(/[\w-]+)*/?')
_HUB_FILE = re.compile(r'hf://(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+?))?/(?P<path>[^@]+)')


@dataclass(frozen=True)
class ReleasedFile:
    """A public file of weights.

    Args:
        url: Its address, or 'package:PATH' of a file that comes with eqzoo, in the folder of the configs.
        name: Its file name in the cache.
        size: Bytes, where known.
        sha256: Hex digest, where known from another source than the download.
        member: The file to take out, where `url` is a zip archive.
        license_page: The page where the licence of a gated file is accepted; its download needs a token.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    member: str | None = None
    license_page: str | None = None


@dataclass(frozen=True)
class ReleasedModel:
    """A released model: its files, and the config that they fit.

    Args:
        name: The name that `tools/download.py` and `eqzoo.load` take.
        files: One file, or the files that make up the model.
        config: The config file, relative to the folder that holds `configs/`.
        parameters: The number of parameters.
        license: The name of the licence.
    """

    name: str
    files: tuple[ReleasedFile, ...]
    config: str
    parameters: int
    license: str


@cache
def models() -> dict[str, ReleasedModel]:
    """Return the released models by name, as the metafiles list them."""
    found = {}
    for path in sorted(configs_folder().rglob('metafile.yml')):
        for entry in yaml.safe_load(path.read_text())['Models']:
            found[entry['Name']] = _model(entry)
    return found


def find_model(name: str) -> ReleasedModel:
    """Return the released model `name`.

    Raises:
        ValueError: If there is no such model; the message has the nearest name.
    """
    if name not in models():
        hint = did_you_mean(name, models())
        raise ValueError(f'Unknown model {name!r}.{hint} In the zoo: {", ".join(sorted(models()))}.')
    return models()[name]


def is_remote(source: str | Path) -> bool:
    """Return whether `source` is a URL of any kind, not a local path."""
    return isinstance(source, str) and source.startswith(('https://', 'http://', 'hf://', 'eqzoo://'))


def is_hub_folder(source: str | Path) -> bool:
    """Return whether `source` is a repository of the Hub, or a folder in one: its last word has no ending.

    Example:
        >>> is_hub_folder('hf://org/name-v1.5'), is_hub_folder('hf://org/name/vae'), is_hub_folder('hf://org/name/a.pt')
        (True, True, False)
    """
    return isinstance(source, str) and _HUB_FOLDER.fullmatch(source) is not None


def bare_url(source: str | Path) -> str:
    """Return a source for messages and notes: a URL without a user, a password and the values of a query.

    Of a URL that is only fsspec's, such as `s3://…`, a question mark may be a wildcard, and stays.

    Example:
        >>> bare_url('https://me:secret@example.org/a.pt?token=1'), bare_url('s3://me:secret@bucket/a.tar')
        ('https://example.org/a.pt?…', 's3://bucket/a.tar')
    """
    source = _USER.sub('', str(source))
    if not is_remote(source):
        return source
    parts = urlsplit(source)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, '…' if parts.query else '', ''))


def without_passwords(value: Any) -> Any:
    """Return plain data with `bare_url` of every URL in it, also in 'ENCODER,DECODER': what may be written to files.

    Example:
        >>> without_passwords({'weights': ('https://me:secret@example.org/a.pt', 'b.pt')})
        {'weights': ('https://example.org/a.pt', 'b.pt')}
    """
    if isinstance(value, Mapping):
        return type(value)((key, without_passwords(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return type(value)(without_passwords(item) for item in value)
    if not isinstance(value, str) or '://' not in value:
        return value
    return ','.join(bare_url(part) for part in value.split(','))


def resolve(source: str) -> ReleasedFile:
    """Return the public file that a remote source names, with all that the index knows about it.

    Args:
        source: `https://…`; `hf://org/repository[@revision]/path`; or `eqzoo://model`, with
            `/file` where a model has several files.

    Raises:
        ValueError: If it does not name one file.

    Example:
        >>> resolve('hf://org/repo@v1/vae/model.safetensors').url
        'https://huggingface.co/org/repo/resolve/v1/vae/model.safetensors'
    """
    if source.startswith('eqzoo://'):
        return _file_of_model(source)
    if source.startswith('hf://'):
        match = _HUB_FILE.fullmatch(source)
        if match is None:
            raise ValueError(f'weights: got {source!r}; expected hf://org/repository[@revision]/path/of/file.')
        source = f'{HUB}/{match["repository"]}/resolve/{match["revision"] or "main"}/{match["path"]}'
    known = {file.url: file for model in models().values() for file in model.files}
    name = PurePosixPath(urlsplit(source).path).name
    # the last part of a URL becomes a file in the cache, beside the files of `eqzoo.zoo.download`
    if source not in known and (name in ('', '.', '..', 'eqzoo.json', '.lock') or printable(name) != name):
        raise ValueError(f'weights: {bare_url(source)!r} names no file; expected a URL that ends in a file name.')
    return known.get(source) or ReleasedFile(source, name)


def _file_of_model(source: str) -> ReleasedFile:
    name, _, wanted = source.removeprefix('eqzoo://').partition('/')
    files = {file.name: file for file in find_model(name).files}
    if len(files) == 1 and not wanted:
        return next(iter(files.values()))
    if wanted not in files:
        choices = ', '.join(f'eqzoo://{name}/{file}' for file in files)
        raise ValueError(f'weights: {source!r} does not name one file; expected {choices}.')
    return files[wanted]


def _model(entry: Mapping[str, Any]) -> ReleasedModel:
    files = entry.get('Files') or [{**entry, 'URL': entry['Weights']}]
    return ReleasedModel(
        name=entry['Name'],
        files=tuple(_file(each, entry.get('Gated')) for each in files),
        config=entry['Config'],
        parameters=entry['Metadata']['Parameters'],
        license=entry['License'],
    )


def _file(entry: Mapping[str, Any], license_page: str | None) -> ReleasedFile:
    member = entry.get('Archive Member')
    return ReleasedFile(
        url=entry['URL'],
        name=entry.get('File') or member or PurePosixPath(urlsplit(entry['URL']).path).name,
        size=entry.get('Bytes'),
        sha256=entry.get('SHA256'),
        member=member,
        license_page=license_page,
    )
