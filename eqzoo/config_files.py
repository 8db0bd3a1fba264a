"""Config files: where they are looked for, and how they are read."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import mmengine.config.config
from mmengine.config import Config

from eqzoo.zoo.index import configs_folder


def find_config(path: str | Path) -> Path:
    """Return the config file `path`: as it stands, or of the configs that come with eqzoo.

    A file in the current directory wins over eqzoo's `configs/…` of the same name.

    Raises:
        ValueError: If there is none, with the nearest.
    """
    path, own = Path(path), configs_folder()
    if path.is_file():
        return path
    if path.parts[:1] == ('configs',) and (own.parent / path).is_file():
        return own.parent / path
    nearest = difflib.get_close_matches(str(path), [*_names(Path('configs')), *_names(own)], n=1)
    hint = f' Did you mean {nearest[0]!r}?' if nearest else ''
    raise ValueError(
        f'Config {str(path)!r} is not a file.{hint} '
        f"Looked for in {Path.cwd()} and, as configs/…, among eqzoo's own in {own} (eqzoo configs lists them)."
    )


def leaf_configs(folder: Path) -> list[Path]:
    """Return the configs in `folder` that a run is made of: all but the bases."""
    return sorted(path for path in folder.rglob('*.py') if '_base_' not in path.relative_to(folder).parts)


def read_config(path: str | Path, *, import_custom: bool = False) -> Config:
    """Read a config file whose bases are relative imports, or `from eqzoo.configs.… import …`.

    Args:
        path: The file.
        import_custom: Import what its `custom_imports` names, as mmengine does.
    """
    with _bases_in_packages():
        return Config.fromfile(path, import_custom_modules=import_custom)


@contextmanager
def _bases_in_packages() -> Iterator[None]:
    """Let mmengine find a package's configs: it asks pkg_resources, which setuptools no longer has."""
    original = mmengine.config.config.get_installed_path
    mmengine.config.config.get_installed_path = _package_folder
    try:
        yield
    finally:
        mmengine.config.config.get_installed_path = original


def _package_folder(package: str) -> str:
    if package == 'eqzoo':
        return str(configs_folder().parent)  # in a checkout, eqzoo.configs is the folder configs beside eqzoo
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f'no package {package!r}')
    return next(iter(spec.submodule_search_locations))


def _names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder.parent)) for path in leaf_configs(folder)]
