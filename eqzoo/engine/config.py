"""Config files: reading, overriding from the command line, and telling typos."""

import ast
import difflib
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config

from eqzoo.config_files import find_config, read_config
from eqzoo.registry import argument_defaults

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
        nearest = difflib.get_close_matches(part, node, n=1)
        hint = f' Did you mean {nearest[0]!r}?' if nearest else ''
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
        nearest = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.85)
        if name not in KEYS and nearest:
            raise ValueError(f'Config {path}: {name!r} is no key of a run. Did you mean {nearest[0]!r}?')


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
