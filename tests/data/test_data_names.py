"""Names: a sequence of strings in little memory."""

import pickle

import pytest

from eqzoo.data import sources as module
from eqzoo.data.sources import Names

TEXTS = ['a/1.png', '', 'é/ß.jpg', 'odd\udcff.png', 'a/1.png']


@pytest.mark.parametrize('at_once', [1, 2, 100])
def test_names_are_the_strings(at_once, monkeypatch):
    monkeypatch.setattr(module, '_AT_ONCE', at_once)
    names = Names(iter(TEXTS))
    assert list(names) == TEXTS
    assert [names[index] for index in range(-5, 5)] == TEXTS * 2
    assert list(names[1:4]) == TEXTS[1:4]
    assert list(names[::-2]) == TEXTS[::-2]
    assert len(names) == 5


def test_names_compare_and_pickle():
    names = Names(TEXTS)
    assert names == TEXTS
    assert names == Names(tuple(TEXTS))
    assert names != TEXTS[:4]
    assert names != [*TEXTS[:4], 'b']
    assert pickle.loads(pickle.dumps(names)) == names
    assert repr(names) == "Names(5: 'a/1.png', '', 'é/ß.jpg', …)"


def test_names_may_be_empty():
    assert list(Names([])) == []
    with pytest.raises(IndexError, match='no name 0 of 0'):
        Names([])[0]


def test_names_take_their_bytes_and_eight_more_each():
    names = Names(f'class_{index % 1000:04d}/{index:08d}.jpg' for index in range(50_000))
    assert names._bytes.nbytes + names._ends.nbytes == 50_000 * (23 + 8)
