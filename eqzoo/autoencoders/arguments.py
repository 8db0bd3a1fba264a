"""An autoencoder's config as its files carry it: plain data, complete, without weights."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from eqzoo.registry import AUTOENCODERS, KINDS, argument_defaults, find

NORMALIZATION = ('scale', 'shift', 'mean', 'std')

# The weights are what the file holds, and so is the normalisation, as buffers.
_LEFT_OUT = ('weights', *NORMALIZATION)


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `type` and every argument of a config as plain data, but weights and normalisation.

    Defaults are filled in, so that a file still builds the same network should they change.
    A class becomes its registered name, or its dotted path; a tuple a list, as JSON has it.

    Example:
        >>> config = plain_config(dict(type='TinyAutoencoder', num_blocks=(1, 2), weights='a.pth'))
        >>> config['type'], config['num_blocks'], config['width'], 'weights' in config
        ('TinyAutoencoder', [1, 2], 64, False)
    """
    complete = {**argument_defaults(config['type']), **config}
    kept = {key: _plain(value) for key, value in complete.items() if key not in _LEFT_OUT}
    return {'type': kept.pop('type'), **kept}


def foreign_types(config: Mapping[str, Any]) -> list[str]:
    """Return the types in a config that are neither registered here nor a module class already imported.

    The outermost has to be an autoencoder.
    """
    outermost = config['type']
    own = [] if outermost in AUTOENCODERS.names() or _is_imported(outermost) else [outermost]
    arguments = [value for key, value in config.items() if key != 'type']
    return own + [name for name in _types(arguments) if not _is_registered(name) and not _is_imported(name)]


def _types(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if 'type' in value:
            yield str(value['type'])
        yield from _types(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _types(item)


def _is_registered(name: str) -> bool:
    return any(name in kind.module_dict for kind in KINDS)


def _is_imported(name: str) -> bool:
    module, _, attribute = name.rpartition('.')
    found = getattr(sys.modules.get(module), attribute, None)
    return isinstance(found, type) and issubclass(found, nn.Module)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _name(value) if callable(value) else value


def _name(component: Callable) -> str:
    is_registered = find(component.__name__) is component
    return component.__name__ if is_registered else f'{component.__module__}.{component.__qualname__}'
