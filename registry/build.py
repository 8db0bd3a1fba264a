"""Look up, check and build components from nested configs, innermost first, with errors that say where."""

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from eqzoo.files import did_you_mean, nearest
from eqzoo.registry.contracts import Corruption, EquivarianceTransform, Objective, Penalty
from eqzoo.registry.light import Registry, get_object_from_string
from eqzoo.registry.ranges import Component, check_arguments, in_words, parameters_of

# All kinds of component; filled by eqzoo.registry.kinds, which imports this module.
KINDS: list[Registry] = []

# A contract is a set of methods, which components of other kinds may have as well.
_KINDS_OF_CONTRACTS = {
    EquivarianceTransform: 'transform',
    Objective: 'regulariser',
    Corruption: 'regulariser',
    Penalty: 'regulariser',
}

# mmengine applies these dicts itself, after the component exists.
_KEPT_AS_DICT = ('init_cfg',)


def build(config: Mapping[str, Any]) -> Any:
    """Build the component that `config` describes, and everything nested in it first.

    Args:
        config: `dict(type=..., **arguments)`; `type` is a registered name of any kind, a class
            or a dotted path. Values that are such dicts, also inside lists and dicts, are
            built before; `init_cfg` stays a dict.

    Raises:
        ValueError: For an unknown name, an unknown or a missing argument, a value that the argument's
            annotation does not allow, or one that a component refuses. The message starts with the place in the config.

    Example:
        >>> build(dict(type='Compose', transforms=[dict(type='Flip'), dict(type='Rotate', turns=(2,))])).transforms[1]
        Rotate(turns=(2,))
    """
    return _build(config, '', None, {})


def build_in(config: Mapping[str, Any], default_args: Mapping[str, Any] | None = None, *, registry: Registry) -> Any:
    """Build for mmengine's `Registry.build`: the outermost `type` is of that kind, `default_args` are its defaults."""
    return _build(config, '', registry, default_args or {})


def check_config(
    config: Any,
    where: str = '',
    *,
    kind: Registry | None = None,
    supplied: Collection[str] = (),
    annotations: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, type | Callable, dict[str, Any]]]:
    """Check every component of a nested config against its constructor, building nothing.

    Args:
        config: A component's config, or dicts and lists of them.
        where: Its place, for messages.
        kind: The kind of the outermost components; None for any.
        supplied: Names of arguments that are supplied when the components are built.
        annotations: Annotations of the arguments of classes that are not eqzoo's, where they say more than theirs.

    Yields:
        For each component, outermost first: its place in the config, its class and its
        arguments (still configs).

    Raises:
        ValueError: As `build`, but for values that only a constructor can judge.
    """
    if _is_component(config):
        cls = _resolve(config['type'], where, kind)
        arguments = {key: value for key, value in config.items() if key != 'type'}
        _check_arguments(cls, arguments, where, supplied, annotations)
        yield where, cls, arguments
        config = {key: value for key, value in arguments.items() if key not in _KEPT_AS_DICT}
        kind = None
    more = dict(kind=kind, supplied=supplied, annotations=annotations)
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from check_config(value, f'{where}.{key}' if where else str(key), **more)
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            yield from check_config(value, f'{where}[{index}]', **more)


def argument_defaults(wanted: str | Callable) -> dict[str, Any]:
    """Return the arguments of the component `wanted` with their defaults, None for required ones.

    The result is empty for an unknown component.
    """
    cls = wanted if callable(wanted) else find_component(wanted)
    parameters = inspect.signature(cls).parameters.values() if cls is not None else ()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: None if p.default is p.empty else p.default for p in named}


def find_component(name: str) -> type | Callable | None:
    """Return the component registered as `name` in any kind, or as mmengine's own; None if there is none."""
    if not isinstance(name, str):  # a config may have anything
        return None
    for kind in KINDS:
        if name in kind.module_dict:
            return kind.module_dict[name]
    for kind in KINDS:
        _import_components(kind, name)
        if name in kind.module_dict:
            return kind.module_dict[name]
    for kind in KINDS:
        if kind.parent is not None and name in kind.parent.module_dict:
            return kind.parent.module_dict[name]
    return None


def unknown_message(name: str, kind: Registry | None) -> str:
    """Return the error message for an unknown `name`: the nearest name, and the list.

    Args:
        name: The name in the config.
        kind: The kind expected there; None to guess it from the nearest name of all kinds.
    """
    if kind is None:
        candidates = {known: each for each in KINDS for known in each.names()}
        found = nearest(name, candidates)
        kind = candidates[found] if found else None
    if kind is None:
        return f'Unknown component {name!r}. Registered: {_list_names(candidates)}.'
    # mmengine's own too where eqzoo adds nothing to them, such as optimizers
    names = kind.names() or sorted(kind.parent.module_dict if kind.parent is not None else ())
    return f'Unknown {kind.name} {name!r}.{did_you_mean(name, names)} Registered: {_list_names(names)}.'


def _build(config: Any, where: str, kind: Registry | None, defaults: Mapping[str, Any]) -> Any:
    if not _is_component(config):
        raise ValueError(f"{where or 'build'}: a component's config is a dict with the key 'type', got {config!r}.")
    cls = _resolve(config['type'], where, kind)
    arguments = {**defaults, **{key: value for key, value in config.items() if key != 'type'}}
    _check_arguments(cls, arguments, where)
    built = {key: _build_value(key, value, f'{where}.{key}' if where else key) for key, value in arguments.items()}
    built |= _paths(cls, built)
    try:
        return cls(**built)
    except ValueError as error:
        if where:
            error.args = (f'{where}: {error}', *error.args[1:])
        raise
    except TypeError as error:
        raise ValueError(f'{where}: {error}' if where else str(error)) from error


def _paths(cls: type | Callable, arguments: Mapping[str, Any]) -> dict[str, Path]:
    """Return the texts among the arguments whose annotations ask for a path and not for text; configs hold text."""
    try:
        parameters = parameters_of(cls)
    except ValueError:  # a builtin without a signature
        return {}
    texts = {key: value for key, value in arguments.items() if isinstance(value, str) and key in parameters}
    return {key: Path(value) for key, value in texts.items() if _asks_for_path(parameters[key].annotation)}


def _asks_for_path(annotation: Any) -> bool:
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return Path in options and str not in options


def _build_value(key: str, value: Any, where: str) -> Any:
    if key in _KEPT_AS_DICT:
        return value
    if _is_component(value):
        return _build(value, where, None, {})
    if isinstance(value, Mapping):
        return {name: _build_value(name, item, f'{where}.{name}') for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_build_value('', item, f'{where}[{index}]') for index, item in enumerate(value))
    return value


def _is_component(config: Any) -> bool:
    return isinstance(config, Mapping) and 'type' in config


def _resolve(wanted: Any, where: str, kind: Registry | None) -> type | Callable:
    if callable(wanted):
        return wanted
    if not isinstance(wanted, str):
        raise ValueError(f'{f"{where}." if where else ""}type must be a name or a class, got {wanted!r}.')
    found = component_of(kind, wanted) if kind is not None else find_component(wanted)
    if found is None and '.' in wanted:
        try:
            found = get_object_from_string(wanted)
        except (ImportError, AttributeError):
            found = None
    if found is None:
        raise ValueError((f'{where}: ' if where else '') + unknown_message(wanted, kind))
    return found


def component_of(kind: Registry, name: str) -> type | Callable | None:
    """Return the component registered as `name` in one kind, or in mmengine's registry of it; None if there is none."""
    _import_components(kind, name)
    parents = [kind] + ([kind.parent] if kind.parent is not None else [])
    return next((each.module_dict[name] for each in parents if name in each.module_dict), None)


def _import_components(kind: Registry, name: str) -> None:
    """Import the modules that register the components of a kind; rare ones if `name` is one of them."""
    kind.import_from_location()
    pattern, module = getattr(kind, 'rare', None) or (None, '')
    if pattern is not None and pattern.fullmatch(name):
        import_module(module)


def _check_arguments(
    cls: type | Callable,
    arguments: Mapping[str, Any],
    where: str,
    supplied: Collection[str] = (),
    annotations: Mapping[str, Any] | None = None,
) -> None:
    """Refuse unknown arguments, values that their annotations do not allow, and the absence of required ones."""
    try:
        parameters = parameters_of(cls)
    except ValueError:  # a builtin without a signature checks its own arguments
        return
    if annotations and not cls.__module__.startswith('eqzoo.'):
        parameters = {key: p.replace(annotation=annotations.get(key, p.annotation)) for key, p in parameters.items()}
    named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named]
    prefix = f'{where}: ' if where else ''
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in arguments:
            if key not in names:
                hint, known = did_you_mean(key, names), ', '.join(names) or 'none'
                raise ValueError(f'{prefix}{cls.__name__} has no argument {key!r}.{hint} Expected one of: {known}.')
    missing = [p.name for p in named if p.default is p.empty and p.name not in {*arguments, *supplied}]
    if missing:
        raise ValueError(f'{prefix}{cls.__name__} needs {", ".join(map(repr, missing))}.')
    check_arguments(f'{prefix}{cls.__name__}', parameters, arguments)
    for key, value in arguments.items():
        if key in parameters:
            _check_parts(f'{prefix}{cls.__name__}.{key}', parameters[key].annotation, value)


def _check_parts(place: str, annotation: Any, value: Any) -> None:
    """Refuse components of eqzoo where the annotation asks for others, of one argument or in a list of them."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if _is_component(value):
        _check_part(place, annotation, options, value['type'])
    elif isinstance(value, list | tuple):
        items = [get_args(each)[0] for each in options if get_origin(each) is Sequence]
        for number, item in enumerate(value if items else ()):
            _check_parts(f'{place}[{number}]', items[0], item)


def _check_part(place: str, annotation: Any, options: Sequence[Any], wanted: Any) -> None:
    """Refuse a component of eqzoo that fits no option of the annotation; a user's own fits by what it can do."""
    options = [get_origin(each) if get_origin(each) is Callable else each for each in options]
    part = wanted if callable(wanted) else find_component(wanted)
    if not isinstance(part, type) or not part.__module__.startswith('eqzoo.'):
        return
    if not any(_fits(part, each) for each in options):
        raise ValueError(f'{place} must be {in_words(annotation)}, got the {_kind_of(part)} {part.__name__}.')


def _fits(part: type, wanted: Any) -> bool:
    """Return whether a component's class fits an annotation, by its kind and its methods."""
    if not isinstance(wanted, type) or wanted in (Component, Any, object, inspect.Parameter.empty):
        return True
    kind = _KINDS_OF_CONTRACTS.get(wanted)
    if not issubclass(part, wanted) or kind not in (None, _kind_of(part)):
        return False
    # objectives, corruptions and penalties are of one kind, and differ in what they are called with
    return kind != 'regulariser' or _called_with(part) == _called_with(wanted)


def _called_with(part: type) -> list[str]:
    """Return the names of the arguments of a component's call; of a module, of its `forward`."""
    return list(inspect.signature(getattr(part, 'forward', part.__call__)).parameters)[1:]


def _kind_of(part: type) -> str:
    return next((kind.name for kind in KINDS if part in kind.module_dict.values()), 'class')


def _list_names(names: Iterable[str]) -> str:
    return ', '.join(sorted(names)) or 'none'
