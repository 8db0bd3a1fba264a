"""Types and ranges of arguments, as annotations that are checked: `steps: PositiveInt`.

A registered class checks its constructor's arguments by their annotations, whether a config or Python calls it.
Checked are numbers with their bounds, text, `bool`, `None`, `Literal`, unions, sequences, tuples and mappings of these.
For any other annotation, such as a class or a protocol, plain data are refused and objects are accepted: components fit
by what they can do.
"""

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from os import PathLike
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar('T')


@dataclass(frozen=True, repr=False)
class Range:
    """Bounds of a number, such as `Annotated[float, Range(above=0)]`; of a sequence's length with `of_length`.

    Args:
        at_least: The smallest number.
        at_most: The largest number.
        above: A bound that is itself outside.
        below: A bound that is itself outside.
        of_length: Whether the number is the length of a sequence.
    """

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    of_length: bool = False

    def holds(self, value: Any) -> bool:
        """Return whether a number, or a sequence's length, is in the range."""
        number = len(value) if self.of_length else value
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __repr__(self) -> str:
        low = self.at_least if self.above is None else self.above
        high = self.at_most if self.below is None else self.below
        if None not in (low, high):
            ends = '[' if self.above is None else '(', ']' if self.below is None else ')'
            return f'in {ends[0]}{_figure(low)}, {_figure(high)}{ends[1]}'
        if low is not None:
            return f'at least {_figure(low)}' if self.above is None else f'above {_figure(low)}'
        return f'at most {_figure(high)}' if self.below is None else f'below {_figure(high)}'


PositiveInt = Annotated[int, Range(at_least=1)]
NonNegativeInt = Annotated[int, Range(at_least=0)]
PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(at_least=0)]
Probability = Annotated[float, Range(at_least=0, at_most=1)]
# of a moving average, of a moment
Decay = Annotated[float, Range(at_least=0, below=1)]
# a sequence with at least one item, such as Filled[PositiveInt]
Filled = Annotated[Sequence[T], Range(at_least=1, of_length=True)]


class Component:
    """The annotation of a value that must be a component's config, `dict(type=…)`, or a built component."""


_LARGEST_INT = 2**63 - 1  # torch's and numpy's
_CONFIG = ', dict(type=…)'
_LONGEST_VALUE = 100  # characters of a value in a message


def check_value(place: str, annotation: Any, value: Any) -> None:
    """Refuse a value that its annotation does not allow.

    Args:
        place: The name of the value, as the user knows it.
        annotation: A type as described at the top of this module.
        value: The value, or its config.

    Raises:
        ValueError: Naming the place, what is accepted, and the value.

    Example:
        >>> check_value('ODE.steps', PositiveInt, 0)
        Traceback (most recent call last):
        ValueError: ODE.steps must be a whole number of at least 1, got 0.
    """
    if not accepts(annotation, value):
        for index, each in enumerate(_items(annotation, value)):  # the first wrong item of a list is named
            check_value(f'{place}[{index}]', *each)
        raise ValueError(f'{place} must be {_wanted(annotation, value)}, got {_shown(value)}{_hint(annotation, value)}')


def accepts(annotation: Any, value: Any) -> bool:
    """Return whether an annotation allows a value; one that is not understood allows any."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [each for each in arguments[1:] if isinstance(each, Range)]
        return accepts(arguments[0], value) and all(each.holds(value) for each in bounds)
    if origin in (Union, UnionType):
        return any(accepts(each, value) for each in arguments)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in arguments)
    if annotation in (None, NoneType):
        return value is None
    if annotation is bool:
        return isinstance(value, bool)
    if annotation is int:
        return _is_number(value, Integral) and abs(value) <= _LARGEST_INT
    if annotation is float:
        return _is_number(value, Real) and _is_finite(value)
    if annotation is str:
        return isinstance(value, str)
    kind = origin or annotation
    # a type variable, the name of a type
    if not isinstance(kind, type) or kind in (Any, object, type, inspect.Parameter.empty):
        return True
    if issubclass(kind, PathLike):
        return isinstance(value, str | kind)  # `build` makes paths of a config's text
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping) and all(
            accepts(each, item) for items in (value, value.values()) for each, item in _pairs(arguments, items)
        )
    if issubclass(kind, Iterable) and kind.__module__ in ('builtins', 'collections.abc'):
        return isinstance(value, Iterator) or (_is_collection(value) and _items_fit(kind, arguments, value))
    return not _is_plain(value)


def in_words(annotation: Any, *, plural: bool = False) -> str:
    """Return the values that an annotation allows, in words for 'must be …'."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [each for each in arguments[1:] if isinstance(each, Range)]
        if bounds and bounds[0].of_length and arguments[0] is str:
            return 'text that is not empty'
        if bounds and bounds[0].of_length:
            return in_words(arguments[0]).replace('a list of', 'a list of one or more', 1)
        limits = [f'of {each}' if str(each).startswith('at ') else str(each) for each in bounds]
        return ' '.join([in_words(arguments[0], plural=plural), *limits])
    if origin in (Union, UnionType):
        return _union(arguments, lambda each: in_words(each, plural=plural))
    if origin is Literal:
        return f'{"items, each " if plural else ""}{_either([repr(each) for each in arguments])}'
    if annotation in (None, NoneType):
        return 'None'
    names = {
        bool: ('true or false', 'true or false'),
        int: ('a whole number', 'whole numbers'),
        float: ('a number', 'numbers'),
        str: ('text', 'texts'),
    }
    if annotation in names:
        return names[annotation][plural]
    kind = origin or annotation
    if not isinstance(kind, type):
        return 'values' if plural else 'a value'
    if issubclass(kind, PathLike):
        return 'paths' if plural else 'a path'
    if issubclass(kind, Mapping):
        return f'a dict of {in_words(arguments[1], plural=True)} by name' if arguments else 'a dict'
    if issubclass(kind, Iterable) and kind.__module__ in ('builtins', 'collections.abc'):
        if kind is tuple and arguments and Ellipsis not in arguments:
            same = len(set(arguments)) == 1
            return (
                f'{len(arguments)} {in_words(arguments[0], plural=True)}'
                if same
                else f'({", ".join(map(in_words, arguments))})'
            )
        return f'a list of {in_words(arguments[0], plural=True)}' if arguments else 'a list'
    name = '' if kind in (Component, Callable) else f' ({kind.__name__})'
    return f'components{name}' if plural else f'a component{name}{_CONFIG}'


def check_arguments(place: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that the annotations of their parameters do not allow; names and absence are not looked at.

    Raises:
        ValueError: For the first one, as `check_value`.
    """
    for name, value in arguments.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        # a default may be None where the annotation has forgotten it
        if parameter.annotation is not parameter.empty and value is not parameter.default:
            check_value(f'{place}.{name}', parameter.annotation, value)


def parameters_of(function: Callable) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function or class by name, with annotations that are types.

    Of a class whose constructor only passes on its arguments, those of the base class that reads them are added.

    Raises:
        ValueError: For a builtin without a signature.
    """
    found = _signature(function)
    if isinstance(function, type) and any(each.kind is each.VAR_KEYWORD for each in found.values()):
        for base in function.__mro__[1:]:
            own = _signature(base.__init__) if '__init__' in vars(base) and base is not object else {}
            if own and not any(each.kind is each.VAR_KEYWORD for each in own.values()):
                own.pop('self', None)
                return {**own, **found}
    return found


def checks_arguments(constructor: Callable) -> Callable:
    """Return the `__init__` of a class, checking its arguments by their annotations before anything else.

    Raises:
        ValueError: When called with an argument that its annotation does not allow, naming the class.
    """
    parameters: dict[str, inspect.Parameter] = {}
    signature = inspect.signature(constructor)

    @wraps(constructor)
    def checked(self: Any, *words: Any, **options: Any) -> None:
        try:
            given = signature.bind(self, *words, **options).arguments
        except TypeError:
            return constructor(self, *words, **options)  # raises the usual error
        if not parameters:
            parameters.update(_signature(constructor))
        check_arguments(type(self).__name__, parameters, given)
        return constructor(self, *words, **options)

    return checked


def _signature(function: Callable) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function, eval_str=True).parameters)
    except (NameError, SyntaxError, TypeError):  # an annotation for type checkers alone
        return dict(inspect.signature(function).parameters)


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _is_collection(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)


def _is_plain(value: Any) -> bool:
    """Return whether a value is plain data, and not the config of a component."""
    if isinstance(value, Mapping):
        return 'type' not in value
    return value is None or isinstance(value, bool | int | float | str | bytes | list | tuple | set | frozenset)


def _items_fit(kind: type, arguments: tuple[Any, ...], value: Collection) -> bool:
    if kind is tuple and arguments and Ellipsis not in arguments:
        return len(value) == len(arguments) and all(map(accepts, arguments, value))
    return not arguments or all(accepts(arguments[0], item) for item in value)


def _items(annotation: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """Return the annotation and the value of each item of a list; nothing if it is none, or of another length."""
    if not isinstance(value, list | tuple):
        return
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    options = [get_args(each)[0] if get_origin(each) is Annotated else each for each in options]
    for kind, arguments in [(get_origin(each), get_args(each)) for each in options]:
        if kind is tuple and Ellipsis not in arguments:
            yield from zip(arguments, value, strict=True) if len(arguments) == len(value) else ()
        elif arguments and isinstance(kind, type) and issubclass(kind, Iterable) and not issubclass(kind, Mapping):
            yield from ((arguments[0], item) for item in value)


def _pairs(arguments: tuple[Any, ...], items: Collection) -> Iterator[tuple[Any, Any]]:
    annotation = Any if not arguments else arguments[0] if isinstance(items, Mapping) else arguments[1]
    return ((annotation, item) for item in items)


def _union(options: tuple[Any, ...], words_of: Callable[[Any], str]) -> str:
    """Return the words for one of several annotations, without repetition."""
    words: list[str] = []
    for each in options:
        words += map(repr, get_args(each)) if get_origin(each) is Literal else [words_of(each)]
    parts = [each for each in words if each.endswith(_CONFIG)]
    if len(parts) > 1:  # of several classes, 'dict(type=…)' once
        words = [each.removesuffix(_CONFIG) if each in parts[:-1] else each for each in words]
    return _either(list(dict.fromkeys(words)))


def _either(words: list[str]) -> str:
    return ' or '.join([', '.join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _wanted(annotation: Any, value: Any) -> str:
    """Return what an annotation allows, as `in_words`; of a number out of its range, the range alone."""
    if get_origin(annotation) in (Union, UnionType):
        return _union(get_args(annotation), lambda each: _wanted(each, value))
    if get_origin(annotation) is Annotated:
        base, *bounds = get_args(annotation)
        if base in (int, float) and accepts(base, value):
            return ' and '.join(str(each) for each in bounds if isinstance(each, Range))
    return in_words(annotation)


def _figure(number: float) -> str:
    return f'{number:,}' if isinstance(number, int) else f'{number:g}'


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f'{text[: _LONGEST_VALUE - 1]}…'


def _hint(annotation: Any, value: Any) -> str:
    """Return the end of a message: the number that was probably meant, if it was written as text or with a point."""
    quoted = isinstance(value, str)
    try:
        meant = float(value) if quoted or isinstance(value, float) else math.nan
    except ValueError:
        return '.'
    meant = int(meant) if math.isfinite(meant) and meant == int(meant) else meant
    if meant != meant or not accepts(annotation, meant):
        return '.'
    return f'; write {meant}{", without quotes" if quoted else ""}.'
