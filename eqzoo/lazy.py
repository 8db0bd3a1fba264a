"""Modules of other packages that are imported when they are first used."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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


@contextmanager
def postponed(*names: str) -> Iterator[None]:
    """Within the block, importing one of these modules postpones that to the first call of something in it.

    For modules of other packages that import more than they need. `import a.b` and `from a.b import c` both work in
    the block, where `c` stands for a function or a class that is only called: neither subclassed nor asked for. Modules
    that have been imported already are left as they are.

    Args:
        names: Full names of modules, each package of them included.
    """
    waiting = {name: _PostponedModule(name) for name in names if name not in sys.modules}
    sys.modules.update(waiting)
    try:
        yield
    finally:
        for name, module in waiting.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _PostponedModule(LazyModule):
    """Stands for a module while others are imported: what is taken from it is imported when it is called."""

    __path__ = ()  # a package, to the import of a module in it
    __spec__ = None  # the import system asks for it in every import: a module without one is initialised

    def __getattr__(self, attribute: str) -> Any:
        if self is not sys.modules.get(self._name):
            return super().__getattr__(attribute)
        if attribute.startswith('__'):
            raise AttributeError(f'{self!r} has no {attribute} yet.')
        return partial(_call, self._name, attribute)


def _call(module: str, attribute: str, /, *arguments: Any, **options: Any) -> Any:
    return getattr(import_module(module), attribute)(*arguments, **options)
