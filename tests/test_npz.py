"""Npz files: numpy's and ours, mapped, written in pieces, damaged."""

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eqzoo.npz import NpzArchive, write_npz

STATM = Path('/proc/self/statm')


def pixels(count=7, size=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_numpys_files_are_mapped_and_read(tmp_path, save, order):
    path, array = tmp_path / 'a.npz', np.asarray(pixels(), order=order)
    save(path, array, arr_1=np.arange(3), mu=np.float32([1, 2]))
    archive = NpzArchive(path)
    assert archive.names == ['arr_0', 'arr_1', 'mu']
    assert 'mu' in archive
    assert 'sigma' not in archive
    for each in (archive.map('arr_0'), archive.read('arr_0')):
        np.testing.assert_array_equal(each, array)
    mapped = archive.map('arr_0')
    assert not mapped.flags.writeable
    assert type(mapped) is np.ndarray
    assert archive.map('mu').tolist() == [1, 2]


@pytest.mark.skipif(not STATM.exists(), reason='needs Linux: /proc/self/statm')
@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_mapping_takes_no_memory_of_the_process(tmp_path, save):
    path = tmp_path / 'large.npz'
    save(path, np.zeros((40, 1 << 20), np.uint8))
    before = own_bytes()
    mapped = NpzArchive(path).map('arr_0')
    assert mapped[::7].sum() == 0
    assert own_bytes() - before < 20 << 20


def own_bytes():
    _, resident, shared, *_ = map(int, STATM.read_text().split())
    return (resident - shared) * os.sysconf('SC_PAGESIZE')


def test_mapping_a_deflated_array_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'tmp'))
    (tmp_path / 'tmp').mkdir()
    np.savez_compressed(tmp_path / 'a.npz', pixels())
    mapped = NpzArchive(tmp_path / 'a.npz').map('arr_0')
    assert list((tmp_path / 'tmp').iterdir()) == []
    np.testing.assert_array_equal(mapped, pixels())


def test_empty_arrays_and_bytes_before_the_zip(tmp_path):
    np.savez(tmp_path / 'a.npz', pixels(), none=np.zeros((0, 3)))
    shifted = tmp_path / 'b.npz'
    shifted.write_bytes(b'#!/bin/sh\n' + (tmp_path / 'a.npz').read_bytes())
    assert NpzArchive(shifted).map('none').shape == (0, 3)
    np.testing.assert_array_equal(NpzArchive(shifted).map('arr_0'), pixels())


def test_numpy_reads_arrays_written_in_pieces(tmp_path):
    path, images = tmp_path / 'deep/er/a.npz', torch.from_numpy(pixels(10)).permute(0, 3, 1, 2)
    with write_npz(path) as npz:
        npz.add_images('arr_0', images.split(4), 10)
        npz.add('mu', np.float32([1, 2]))
        npz.add('meta', 'größer')
        npz.add_pieces('counts', (np.full((2, 3), i) for i in range(3)), (6, 3), int)
    with np.load(path) as loaded:
        np.testing.assert_array_equal(loaded['arr_0'], pixels(10))
        assert loaded['mu'].dtype == np.float32
        assert str(loaded['meta']) == 'größer'
        assert loaded['counts'][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert [each.name for each in path.parent.iterdir()] == ['a.npz']


def test_the_same_arrays_give_the_same_bytes_and_fingerprint(tmp_path):
    for name in ('a.npz', 'b.npz'):
        with write_npz(tmp_path / name) as npz:
            npz.add('x', pixels())
    assert (tmp_path / 'a.npz').read_bytes() == (tmp_path / 'b.npz').read_bytes()
    np.savez_compressed(tmp_path / 'c.npz', x=pixels(), y=1)
    np.savez(tmp_path / 'd.npz', x=pixels(seed=1))
    prints = [NpzArchive(tmp_path / f'{name}.npz').fingerprint(['x']) for name in 'acd']
    assert prints[0] == prints[1] != prints[2]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a.npz'
    path.write_text('old')

    def batches():
        yield torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
        raise KeyError('the loader died')

    with pytest.raises(KeyError, match='the loader died'), write_npz(path) as npz:
        npz.add_images('arr_0', batches(), 4)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def zeros(*shape, dtype=torch.uint8):
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ('batches', 'message'),
    [
        ([zeros(2, 3, 4, 4)], "array 'arr_0': got 2 rows, expected 4"),
        ([zeros(5, 3, 4, 4)], 'got 5 rows, expected 4'),
        ([], 'got 0 rows, expected 4'),
        ([zeros(2, 3, 4, 4), zeros(2, 3, 8, 8)], r'\(2, 8, 8, 3\) of uint8; expected \(B, 4, 4, 3\)'),
        ([zeros(4, 3, 4, 4, dtype=torch.float32)], 'uint8: .* of float32'),
    ],
)
def test_images_that_do_not_fit_are_refused(tmp_path, batches, message):
    with pytest.raises(ValueError, match=message), write_npz(tmp_path / 'a.npz') as npz:
        npz.add_images('arr_0', batches, 4)
    assert list(tmp_path.iterdir()) == []


def test_objects_are_neither_written_nor_read(tmp_path):
    with pytest.raises(ValueError, match="array 'x' holds Python objects"), write_npz(tmp_path / 'a.npz') as npz:
        npz.add('x', np.array([{}], object))
    np.savez(tmp_path / 'b.npz', x=np.array([print], object))
    archive = NpzArchive(tmp_path / 'b.npz')
    for read in (archive.read, archive.map):
        with pytest.raises(ValueError, match=r"array 'x' cannot be read \(.*(Object arrays|Python objects)"):
            read('x')


def missing(path, whole):
    return FileNotFoundError, 'no such npz file'


def text(path, whole):
    path.write_text('not a zip at all')
    return ValueError, 'not an npz file'


def empty(path, whole):
    path.write_bytes(b'')
    return ValueError, 'not an npz file'


def cut(path, whole):
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return ValueError, 'damaged or incomplete npz'


def encrypted(path, whole):
    data = bytearray(whole)
    data[data.index(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(data)
    return ValueError, 'encrypted'


@pytest.mark.parametrize('case', [missing, text, empty, cut, encrypted])
def test_files_that_are_not_npz(tmp_path, case):
    np.savez(tmp_path / 'whole.npz', pixels(20))
    path = tmp_path / 'a.npz'
    error, message = case(path, (tmp_path / 'whole.npz').read_bytes())
    with pytest.raises(error, match=message) as caught:
        NpzArchive(path)
    assert str(path) in str(caught.value)


def test_a_missing_array_is_named_with_the_existing_ones(tmp_path):
    np.savez(tmp_path / 'a.npz', x=1, mu=2)
    with pytest.raises(ValueError, match="no array 'arr_0'.* has mu, x"):
        NpzArchive(tmp_path / 'a.npz').map('arr_0')


def test_damaged_arrays_are_named(tmp_path):
    np.savez(tmp_path / 'a.npz', x=pixels(20))
    data = bytearray((tmp_path / 'a.npz').read_bytes())
    data[800] ^= 0xFF
    (tmp_path / 'bit.npz').write_bytes(data)
    with pytest.raises(ValueError, match=r"bit.npz: array 'x' cannot be read \(Bad CRC-32"):
        NpzArchive(tmp_path / 'bit.npz').read('x')
    np.savez_compressed(tmp_path / 'b.npz', x=pixels(20))
    data = bytearray((tmp_path / 'b.npz').read_bytes())
    data[300:900] = bytes(600)
    (tmp_path / 'deflated.npz').write_bytes(data)
    for read in (NpzArchive(tmp_path / 'deflated.npz').read, NpzArchive(tmp_path / 'deflated.npz').map):
        with pytest.raises(ValueError, match="array 'x' cannot be read"):
            read('x')


@pytest.mark.parametrize('content', [b'', b'not an array', b'\x93NUMPY\x09\x00'])
def test_members_that_are_not_arrays(tmp_path, content):
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('x.npy', content)
    with pytest.raises(ValueError, match="array 'x' cannot be read"):
        NpzArchive(tmp_path / 'a.npz').map('x')


def test_a_shape_that_contradicts_the_size_of_the_member(tmp_path):
    np.save(tmp_path / 'x.npy', np.zeros(100, np.uint8))
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('x.npy', (tmp_path / 'x.npy').read_bytes()[:-10])
    with pytest.raises(ValueError, match=r'shape \(100,\) and uint8 do not fill its 218 bytes'):
        NpzArchive(tmp_path / 'a.npz').map('x')


def claiming(path, *, packed=None, size=None, shape=None):
    """A deflated array of a million zeros whose directory or header claims other sizes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr='|u1', fortran_order=False, shape=shape or (1_000_000,)))
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a.npy', header.getvalue() + bytes(1_000_000))
    data = bytearray(path.read_bytes())
    start = data.rindex(b'PK\x01\x02')  # APPNOTE.TXT 4.3.12
    for value, offset in ((packed, 20), (size, 24)):
        if value is not None:
            struct.pack_into('<I', data, start + offset, value)
    path.write_bytes(data)
    return NpzArchive(path)


@pytest.mark.parametrize(
    ('claims', 'message'),
    [
        # the second message is that of zipfile since Python 3.13
        (dict(packed=2**32 - 2), r'(the file has [\d,]+ bytes, too few for the 1,000,\d+ that it claims|Overlapped)'),
        (dict(size=2**32 - 2), 'too few for the 4,294,967,294 that it claims'),
        (dict(shape=(10**12,)), r'shape \(1000000000000,\) and uint8 do not fill its 1000\d+ bytes'),
    ],
)
def test_sizes_that_a_file_claims_take_no_memory(tmp_path, claims, message):
    archive = claiming(tmp_path / 'a.npz', **claims)
    for read in (archive.read, archive.map):
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"a.npz: array 'a' cannot be read .*{message}"):
            read('a')
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 500_000


def test_what_unpacks_to_more_than_there_is_room_for_is_refused(tmp_path, monkeypatch):
    archive = claiming(tmp_path / 'a.npz')
    assert archive.read('a').shape == archive.map('a').shape == (1_000_000,)
    monkeypatch.setattr('eqzoo.npz.MAX_READ', 1000)
    with pytest.raises(ValueError, match=r'1,000,\d+ bytes, more than 1,000'):
        archive.read('a')
    monkeypatch.setattr('shutil.disk_usage', lambda _: SimpleNamespace(free=999))
    with pytest.raises(ValueError, match=r'unpacked, it has 1,000,\d+ bytes; .* has room for 999: set TMPDIR'):
        archive.map('a')
