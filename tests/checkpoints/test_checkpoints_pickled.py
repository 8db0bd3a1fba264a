"""Pickles are read without running them: the same tensors as torch's, nothing called, nothing imported, bounded."""

import collections
import contextlib
import copyreg
import io
import os
import pickle
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from eqzoo.checkpoints.pickled import Placeholder, read_pickled
from eqzoo.checkpoints.read import read_file


def contents():
    """Everything that a checkpoint may hold, with memory that is shared and not contiguous."""
    base = torch.arange(24.0).reshape(4, 6)
    weight = torch.nn.Linear(2, 3).weight
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64)
    return dict(
        state_dict=collections.OrderedDict(whole=base, view=base[1:3, ::2], turned=base.T, again=base),
        kinds={str(kind): torch.ones(3).to(kind) for kind in (*kinds, torch.float8_e4m3fn)},
        parameter=weight,
        empty=torch.empty(0, 3),
        scalar=torch.tensor(2.5),
        wide=torch.ones(1, 1).expand(3, 5),
        negative=torch.tensor([1 + 2j]).conj().imag[0],
        plain=[1, -(2**70), 1.5, None, True, 'text', (1, (2, 'x')), b'bytes', {3, 4}, {'a': [{}]}, frozenset((5,))],
        size=tuple(base.shape),
        kind=torch.float16,
    )


def assert_equal(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())
        assert torch.equal(
            ours.double() if ours.itemsize == 1 else ours, theirs.double() if ours.itemsize == 1 else theirs
        )
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_equal(ours[key], value)
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for left, right in zip(ours, theirs, strict=True):
            assert_equal(left, right)
    else:
        assert ours == theirs


def own_memory():
    """Return the memory of this process that is no mapped file, in MiB."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('RssAnon')) / 1024


def test_what_is_not_used_of_a_file_takes_no_memory(tmp_path):
    file = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=dict(a=torch.arange(4.0)), optimizer=dict(m=torch.ones(1 << 25))), file)
    before = own_memory()
    content = read_pickled(file)
    assert own_memory() - before < 32, 'of 128 MiB'
    assert content['optimizer']['m'].sum() == 1 << 25


def test_changes_of_what_was_read_stay_private(tmp_path):
    file = tmp_path / 'iter_1.pth'
    torch.save(dict(a=torch.arange(4.0)), file)
    content, again = read_pickled(file), read_pickled(file)
    content['a'] += 1
    assert torch.equal(again['a'], torch.arange(4.0))
    assert torch.equal(read_pickled(file)['a'], torch.arange(4.0))


def test_a_zip_whose_members_begin_anywhere_is_read_too(tmp_path):
    file, repacked = tmp_path / 'iter_1.pth', tmp_path / 'repacked.pth'
    torch.save(dict(a=torch.arange(4.0, dtype=torch.float64), b=torch.arange(3)), file)
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(repacked, 'w') as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    assert_equal(read_pickled(repacked), torch.load(file))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before torch 1.6'])
@pytest.mark.parametrize('protocol', [2, 4, 5])
@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_every_value_is_that_of_torch(tmp_path, zipped, protocol):
    content = contents()
    if protocol == 2:
        del content['plain'][7]  # bytes are a call of a codec there
    if not zipped:
        del content['negative'], content['kinds']['torch.float8_e4m3fn']
    path = tmp_path / 'a.pt'
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    ours, theirs = read_pickled(path), torch.load(path, weights_only=False)
    if protocol == 2:
        ours['plain'].pop(), theirs['plain'].pop()
    assert_equal(ours, theirs)
    state = ours['state_dict']
    assert state['whole'].untyped_storage().data_ptr() == state['turned'].untyped_storage().data_ptr()


class Calls:
    """Unpickling this calls a function with arguments."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class Springs:
    """A class that makes a file in each of the ways in which unpickling touches it."""

    where = None

    def __new__(cls, *arguments):
        cls.spring()
        return super().__new__(cls)

    def __setstate__(self, state):
        self.spring()

    def __setitem__(self, key, value):
        self.spring()

    def append(self, value):
        self.spring()

    extend = append

    @classmethod
    def spring(cls):
        if cls.where is not None:
            cls.where.touch()


def opcodes(trap):
    """Pickles by hand, each of which would make the file `trap` in its own way."""
    name = str(trap).encode()
    path = b'X' + struct.pack('<I', len(name)) + name
    nothing, where = b'}', b'c' + __name__.encode() + b'\nSprings\n'
    return {
        'GLOBAL REDUCE': b'cos\nmkdir\n' + path + b'\x85R.',
        'STACK_GLOBAL': b'\x80\x04\x8c\x02os\x8c\x05mkdir\x93' + path + b'\x85R.',
        'dotted': b'\x80\x04\x8c\x07pathlib\x8c\x0aPath.mkdir\x93cpathlib\nPosixPath\n' + path + b'\x85R\x85R.',
        'eval': b'c__builtin__\neval\nX'
        + struct.pack('<I', len(name) + 27)
        + b"__import__('os').mkdir('"
        + name
        + b"')\x20"
        + b'\x85R.',
        'INST': b'(' + path + b'ios\nmkdir\n.',
        'OBJ': b'(cos\nmkdir\n' + path + b'o.',
        'NEWOBJ': where + b')\x81.',
        'NEWOBJ_EX': where + b')}\x92.',
        'BUILD of a class': where + b')\x81}X\x01\x00\x00\x00a\x88sb.',
        'BUILD of a function': b'cos\nmkdir\n}X\x01\x00\x00\x00a\x88sb' + path + b'\x85R.',
        'SETITEM': where + b')\x81' + path + path + b's.',
        'APPEND': where + b')\x81' + path + b'a.',
        'ADDITEMS': where + b')\x81(' + path + b'\x90.',
        'getattr chain': b'c__builtin__\ngetattr\n(cos\npath\nX\x02\x00\x00\x00ostR(' + path + b'tR.',
        'EXT1': b'\x82\xf0' + path + b'\x85R.',
        'EXT4': b'\x84\xf0\x00\x00\x00' + path + b'\x85R.',
        'through a rebuilder': b'ctorch._tensor\n_rebuild_from_type_v2\n(cos\nmkdir\nN' + path + b'\x85NtR.',
        'a dict subclass': b'ccollections\ndefaultdict\n(cos\ngetcwd\ntR.',
        'a module of no name': b'cantigravity\nfly\n)R.',
        'nothing': nothing + b'.',
    }


@pytest.fixture
def trap(tmp_path, monkeypatch):
    path = tmp_path / 'sprung'
    monkeypatch.setattr(Springs, 'where', path)
    copyreg.add_extension('os', 'mkdir', 0xF0)
    # `copyreg` remembers what an extension was, past `find_class`
    copyreg._extension_cache[0xF0] = os.mkdir
    yield path
    copyreg._extension_cache.pop(0xF0, None)
    copyreg.remove_extension('os', 'mkdir', 0xF0)


def zip_of(path, data):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', data)
        archive.writestr('a/byteorder', 'little')


@pytest.mark.parametrize('kind', opcodes('x'))
def test_no_opcode_of_a_pickle_runs_anything(tmp_path, trap, kind):
    data = opcodes(trap)[kind]
    zip_of(tmp_path / 'a.pt', data)
    (tmp_path / 'b.pt').write_bytes(data)
    for path in (tmp_path / 'a.pt', tmp_path / 'b.pt'):
        with contextlib.suppress(ValueError):
            read_file(path)
    assert not trap.exists()
    assert 'antigravity' not in sys.modules
    if kind == 'a module of no name':
        return
    with contextlib.suppress(Exception):
        pickle.loads(data)
    if kind not in (
        'a dict subclass',
        'nothing',
        'getattr chain',
        'BUILD of a function',
        'through a rebuilder',
        'ADDITEMS',
    ):
        assert trap.exists()  # the trap works


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'before torch 1.6'])
def test_objects_around_weights_are_read_past(tmp_path, trap, zipped):
    """What Lightning's `save_hyperparameters` and training scripts leave in files, and traps beside them."""
    content = dict(
        state_dict={'encoder.weight': torch.ones(2)},
        hyper_parameters=dict(
            optimizer=torch.optim.AdamW,
            lr=np.float32(1e-4),
            path=PurePosixPath('/data'),
            table=np.arange(3),
            counts=collections.defaultdict(int, a=1),
            lock_free=collections.Counter('aab'),
        ),
        trap=[Calls(os.mkdir, str(trap)), Calls(eval, f'__import__("os").mkdir({str(trap)!r})')],
        shell=Calls(os.system, f'touch {trap}'),
        process=Calls(subprocess.Popen, ['touch', str(trap)]),
        thread=Calls(threading.Timer, 0, Calls(os.mkdir, str(trap))),
        springs=Calls(Springs, state={'a': 1}),
    )
    torch.save(content, tmp_path / 'a.ckpt', _use_new_zipfile_serialization=zipped)
    read, _ = read_file(tmp_path / 'a.ckpt')
    assert torch.equal(read['state_dict']['encoder.weight'], torch.ones(2))
    assert read['hyper_parameters']['optimizer'].name == 'torch.optim.adamw.AdamW'
    assert read['hyper_parameters']['counts'] == read['hyper_parameters']['counts']
    assert dict(read['hyper_parameters']['counts']) == {'a': 1}
    assert isinstance(read['shell'], Placeholder)
    assert read['shell'] != read['process']
    assert not trap.exists()


def damaged(path, data):
    zip_of(path, data)
    with pytest.raises(ValueError, match='cannot be read') as error:
        read_file(path)
    return str(error.value)


def tensor_pickle(size, stride, numel=1, offset=0):
    """The pickle of a tensor over the storage '0' of one float."""
    file = io.BytesIO()
    pickler = pickle._Pickler(file, 2)
    pickler.persistent_id = lambda value: value[1] if isinstance(value, tuple) and value[:1] == ('id',) else None
    pickler.dispatch = dict(pickler.dispatch)
    storage = ('id', ('storage', torch.FloatStorage, '0', 'cpu', numel))
    arguments = (storage, offset, size, stride, False, None)
    pickler.dump({'state_dict': {'w': Calls(torch._utils._rebuild_tensor_v2, *arguments)}})
    return file.getvalue()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (((1 << 20, 1 << 20), (0, 0)), 'far more memory than it has bytes'),
        (((2,), (1,)), 'damaged'),
        (((1,), (1,), 1, 1), 'damaged'),
        (((1,), (1,), 10**9), 'damaged'),
        (((-1,), (1,)), 'damaged'),
        (((1,), (-1,)), 'damaged'),
        (((1,) * 100, (1,) * 100), 'damaged'),
        ((('x',), (1,)), 'damaged'),
    ],
    ids=['expanded to 4 TB', 'outside', 'offset', 'storage', 'negative', 'backwards', 'axes', 'text'],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, arguments, message):
    path = tmp_path / 'a.pt'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', tensor_pickle(*arguments))
        archive.writestr('a/data/0', struct.pack('<f', 2.0))
    with pytest.raises(ValueError, match=message):
        read_file(path)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', tensor_pickle((3,), (0,)))
        archive.writestr('a/data/0', struct.pack('<f', 2.0))
    assert read_file(path)[0]['state_dict']['w'].tolist() == [2.0, 2.0, 2.0]


def test_files_that_claim_more_than_they_have_are_refused_at_once(tmp_path):
    path = tmp_path / 'a.pt'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/data.pkl', b'}.')
        archive.writestr('a/data/0', bytes(1 << 24))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(ValueError, match='is a packed zip, which torch does not write'):
        read_file(path)
    assert 'damaged' in damaged(path, b'\x96' + struct.pack('<Q', 1 << 62) + b'.')  # a bytearray
    assert 'damaged' in damaged(path, b'\x8d' + struct.pack('<Q', 1 << 62) + b'.')  # a text
    nested = b'N' + b''.join(b'q' + bytes([n]) + b'h' + bytes([n]) + b'\x86' for n in range(200))
    zip_of(path, b'}(' + nested + b'Nu.')  # a key of 2^200 tuples, whose hash would never be ready
    assert len(read_file(path)[0]) == 1
    zip_of(path, b']q\x00h\x00a.')  # a list inside itself
    assert read_file(path)[0] == {}


def test_other_files_are_named(tmp_path):
    for content, message in (
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'pointer of Git LFS'),
        (b'<!DOCTYPE html><html>', 'is a web page'),
        (b'GGUF\x03', 'GGUF'),
        (pickle.dumps({'a': 1}), 'not one that torch.save wrote'),
        (b'', 'damaged'),
    ):
        (tmp_path / 'a.safetensors').write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_file(tmp_path / 'a.safetensors')
    np.savez(tmp_path / 'a.npz', np.ones(2))
    with pytest.raises(ValueError, match='is a zip, but not one of tensors'):
        read_file(tmp_path / 'a.npz')
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ValueError, match='is no regular file'):
        read_file(tmp_path / 'pipe')
