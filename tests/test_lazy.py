"""LazyModule: a module that is imported when it is used."""

import sys

import pytest

from eqzoo.lazy import LazyModule, postponed


def test_a_lazy_module_is_imported_when_something_in_it_is_used():
    name = 'wsgiref.headers'  # of the standard library, and rare
    for each in (name, 'wsgiref'):
        sys.modules.pop(each, None)
    module = LazyModule(name)
    assert repr(module) == f"LazyModule('{name}')"
    assert name not in sys.modules
    assert module.Headers([('a', 'b')])['A'] == 'b'
    assert module.Headers is sys.modules[name].Headers


def test_what_is_not_there_is_an_error_as_of_the_module():
    with pytest.raises(AttributeError, match="'math' has no attribute 'pie'"):
        LazyModule('math').pie  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match='no_such_module'):
        LazyModule('no_such_module').anything  # noqa: B018


def test_a_postponed_module_is_imported_when_something_taken_from_it_is_called():
    names = ('wsgiref', 'wsgiref.headers')
    for each in names:
        sys.modules.pop(each, None)
    with postponed(*names, 'math'):
        import math  # imported before: as it is
        import wsgiref.headers
        from wsgiref.headers import Headers
    assert not set(names) & set(sys.modules)
    assert math.floor(1.5) == 1
    assert sys.modules['math'] is math
    assert Headers([('a', 'b')])['A'] == 'b'
    assert 'wsgiref.headers' in sys.modules
    assert wsgiref.headers.Headers is sys.modules['wsgiref.headers'].Headers


def test_what_the_import_system_asks_of_a_postponed_module_imports_nothing():
    sys.modules.pop('wsgiref', None)
    with postponed('wsgiref'):
        module = sys.modules['wsgiref']
        assert module.__spec__ is None  # Python 3.13 asks for it in every import, and passes errors on
        with pytest.raises(AttributeError, match="LazyModule\\('wsgiref'\\) has no __file__ yet"):
            module.__file__  # noqa: B018


def test_nothing_stays_postponed_after_an_error():
    sys.modules.pop('wsgiref', None)
    with pytest.raises(ZeroDivisionError), postponed('wsgiref'):
        raise ZeroDivisionError
    assert 'wsgiref' not in sys.modules
