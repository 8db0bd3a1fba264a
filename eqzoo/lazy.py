"""Modules of other packages that are imported when they are first used."""

from importlib import import_module
from typing import Any


class LazyModule:
    """A module whose import waits for the first use of something in it.

    For packages that take long to import and are used rarely. In annotations their names have to be quoted.

    Args:
        name: The full name of the module.

    Example:
        >>> fractions = LazyModule('fractions')  # in place of `import fractions`
        >>> fractions.Fraction(2, 4)
        Fraction(1, 2)
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f'LazyModule({self._name!r})'
