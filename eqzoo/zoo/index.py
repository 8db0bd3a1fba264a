"""The index of released weights: the metafiles beside the configs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from eqzoo.config import configs_folder
from eqzoo.files import did_you_mean


@dataclass(frozen=True)
class ReleasedFile:
    """A public file of weights.

    Args:
        url: Where it comes from.
        name: The name it is kept under.
        size: Bytes, where known.
        sha256: Hex digest, where known from elsewhere than the download.
        member: The file wanted, where `url` is a zip archive.
        license_page: For a gated file, where its licence is accepted; a token is then needed.
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
        name: As `tools/download.py` and `eqzoo.load` take it.
        files: One, or the several that make it.
        config: The config file, relative to the folder that holds `configs/`.
        parameters: How many numbers it has.
        license: Its name.
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


def find(name: str) -> ReleasedModel:
    """Return the released model `name`.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in models():
        hint = did_you_mean(name, models())
        raise ValueError(f'Unknown model {name!r}.{hint} In the zoo: {", ".join(sorted(models()))}.')
    return models()[name]


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
