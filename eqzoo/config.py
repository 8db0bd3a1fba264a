"""Config files: find, read, override, check."""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmengine.config.config
from mmengine.config import Config

from eqzoo.files import did_you_mean, nearest
from eqzoo.registry import argument_defaults


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
    hint = did_you_mean(str(path), [*_names(Path('configs')), *_names(own)])
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


# What a run is made of. Other names in a config file are its building blocks.
KEYS = (
    'model',
    'train_dataloader',
    'val_dataloader',
    'test_dataloader',
    'cache_dataloader',
    'cache_encoder',
    'evaluators',
    'test_evaluators',
    'sampling',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'default_hooks',
    'custom_hooks',
    'custom_imports',
    'visualizer',
    'log_processor',
    'seed',
    'compile',
    'resume',
    'device',
    'sharding',
    'work_dir',
)

_PACKAGE = Path(__file__).resolve().parent
_WORDS = {'true': True, 'false': False, 'none': None}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file, import the user's own components, apply `key=value` overrides.

    Args:
        path: A Python config in mmengine's pure-Python style; `configs/…` that are not here are
            those that come with eqzoo.
        overrides: `a.b.0.c=value`: keys that exist in the config, or arguments of a component
            in it; values are Python literals, or words.

    Raises:
        ValueError: If the file is missing or broken, a top-level name looks like a misspelt
            key, an override has no `=`, an unknown key or a value of another type, or a
            module of `custom_imports` cannot be imported.
    """
    path = find_config(path)
    try:
        whole = read_config(path)
    except (SyntaxError, ImportError, NameError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f'Config {path} cannot be read: {type(error).__name__}: {error}') from error
    _check_names(whole, path)
    config = Config({key: whole[key] for key in KEYS if key in whole}, filename=str(path))
    config.setdefault('work_dir', default_work_dir(path))
    config.setdefault('seed', 0)
    config.setdefault('resume', None)
    config.setdefault('device', 'auto')
    config.setdefault('sharding', None)
    _import_custom(config, path)
    for override in overrides:
        apply_override(config, override)
    return config


def default_work_dir(path: Path) -> str:
    """Return where a config's run goes: `work_dirs/<its folder>/<its name>`."""
    return str(Path('work_dirs') / path.resolve().parent.name / path.stem)


def apply_override(config: Any, override: str) -> None:
    """Set one `a.b.0.c=value` in place.

    Raises:
        ValueError: If there is no `=`, the key is neither in the config nor an argument of the
            component there, or the type differs.
    """
    key, separator, text = override.partition('=')
    if not separator:
        raise ValueError(f'Override {override!r}: expected key=value, such as train_cfg.max_iters=1000.')
    *parents, last = key.split('.')
    node, where = config._cfg_dict if isinstance(config, Config) else config, ''
    for part in parents:
        node = node[_existing(node, part, where)]
        where = f'{where}.{part}'.lstrip('.')
    defaults = argument_defaults(node['type']) if isinstance(node, dict) and 'type' in node else {}
    if last in defaults and last not in node:
        old = defaults[last]
    else:
        last = _existing(node, last, where)
        old = node[last]
    node[last] = _same_type(key, old, parse_value(text))


def parse_value(text: str) -> Any:
    """Read a value as Python writes it; true, false and none in any case; else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _existing(node: Any, part: str, where: str) -> Any:
    """Return `part` as a key or index of `node`, which must have it."""
    place = where or 'the config'
    if isinstance(node, list | tuple):
        if re.fullmatch(r'-?\d+', part) and -len(node) <= int(part) < len(node):
            return int(part)
        raise ValueError(f'Override: {place} is a list of {len(node)}; {part!r} is no index of it.')
    if not isinstance(node, dict):
        raise ValueError(f'Override: {place} is {node!r}, which has no key {part!r}.')
    if part not in node:
        hint = did_you_mean(part, node)
        raise ValueError(f'Override: {place} has no key {part!r}.{hint} It has: {", ".join(map(str, node))}.')
    return part


def _same_type(key: str, old: Any, new: Any) -> Any:
    """Refuse a value whose type could not have been meant; an int may become a float."""
    numbers = (int, float)
    plain = (bool, int, float, str, dict)
    if old is None or new is None or (type(old) not in plain and not isinstance(old, dict)):
        return new
    both_numbers = type(old) in numbers and type(new) in numbers
    if both_numbers or isinstance(new, type(old)) or (isinstance(old, dict) and isinstance(new, dict)):
        return new
    raise ValueError(f'Override {key}: expected {_kind(old)} such as {old!r}, got {new!r}.')


def _kind(value: Any) -> str:
    return {bool: 'true or false', int: 'a number', float: 'a number', str: 'text'}.get(type(value), 'a dict')


def _check_names(config: Config, path: Path) -> None:
    """Refuse top-level names that look like a misspelt key."""
    for name in config:
        meant = nearest(name, KEYS, cutoff=0.85)
        if name not in KEYS and meant:
            raise ValueError(f'Config {path}: {name!r} is no key of a run. Did you mean {meant!r}?')


def _import_custom(config: Config, path: Path) -> None:
    """Import the user's modules, found beside the config, in the current directory or as usual."""
    modules = config.get('custom_imports') or []
    names = modules['imports'] if isinstance(modules, dict) else modules
    names = [names] if isinstance(names, str) else list(names)
    for folder in (str(Path.cwd()), str(path.resolve().parent)):
        if names and folder not in sys.path:
            sys.path.insert(0, folder)
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise ValueError(
                f'Config {path}: custom_imports: {name!r} cannot be imported: {error}. '
                f'Modules are looked for in {path.parent}, in the current directory and on PYTHONPATH.'
            ) from error


def configs_folder() -> Path:
    """Return the folder `configs`: inside the installed package, or beside it in a checkout."""
    inside = _PACKAGE / 'configs'
    return inside if inside.is_dir() else _PACKAGE.parent / 'configs'
