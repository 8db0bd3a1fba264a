"""LMDB: what `lmdb` itself has, in forked workers too; entries that are no images, damage."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from containers import pixels_of, png

from eqzoo.data import ImageFolder, build_eval_loader, lmdbs

lmdb = pytest.importorskip('lmdb')


@pytest.fixture
def content():
    images = {f'{folder}/{number}'.encode(): png(number) for folder in ('ant', 'bee') for number in range(4)}
    return {**images, b'length': b'8', b'__keys__': b'x' * 100, '\udce9'.encode(errors='surrogateescape'): png(9)}


def write(path, content, **options):
    with lmdb.open(str(path), map_size=1 << 24, **options) as environment, environment.begin(write=True) as transaction:
        for key, value in content.items():
            transaction.put(key, value)
    return path


@pytest.mark.parametrize('subdir', [True, False])
def test_it_has_what_lmdb_has(tmp_path, content, subdir):
    dataset = ImageFolder(write(tmp_path / 'a.lmdb', content, subdir=subdir), 10)
    assert dataset.names == [*sorted(key.decode() for key in content if b'/' in key), '\udce9']
    assert dataset.classes == ['.', 'ant', 'bee']
    for index, name in enumerate(dataset.names):
        raw = content[name.encode(errors='surrogateescape')]
        assert dataset.source.read(name) == raw
        assert dataset.source.byte_size(name) == len(raw)
        assert np.array_equal(dataset[index]['image'], pixels_of(raw)[:, :, 1:11])
    assert dataset.source.left_out == {'of no image': 2}
    with pytest.raises(FileNotFoundError, match='no image'):
        dataset.source.read('length')


def test_workers_open_their_own(tmp_path, content):
    dataset = ImageFolder(write(tmp_path / 'a', content), 8)
    dataset[0]  # opened here, before the fork
    batches = [
        next(iter(build_eval_loader(dataset, batch_size=9, num_workers=number)))['images'].numpy() for number in (0, 2)
    ]
    assert np.array_equal(*batches)
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[3]['image'], dataset[3]['image'])


def test_threads_open_it_once(tmp_path, content, monkeypatch):
    source = ImageFolder(write(tmp_path / 'a', content), 8).source

    class Slow(dict):
        def pop(self, *given):
            found = super().pop(*given)
            time.sleep(0.005)
            return found

    monkeypatch.setattr(lmdbs, '_environments', Slow(lmdbs._environments))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(source.read, source.names()))
    assert found == [content[name.encode(errors='surrogateescape')] for name in source.names()]


def test_damage_and_a_missing_library_are_one_message(tmp_path, content, monkeypatch):
    write(tmp_path / 'a', content)
    with pytest.raises(ValueError, match=r"label='.cls', and a LMDB data base has folders as labels"):
        ImageFolder(tmp_path / 'a', 8, label='.cls')
    file = tmp_path / 'a' / 'data.mdb'
    damaged = bytearray(file.read_bytes())
    damaged[16:20] = damaged[4096 + 16 : 4096 + 20] = b'none'
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match=r'a: no LMDB data base, or damaged \('):
        ImageFolder(tmp_path / 'a', 8)
    monkeypatch.setattr('eqzoo.data.lmdbs.find_spec', lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'eqzoo\[lmdb\]'"):
        ImageFolder(tmp_path / 'a', 8)
