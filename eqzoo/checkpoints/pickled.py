"""Torch files without their code: tensors, dicts and plain values are read, every other object becomes inert.

A pickle is a program for a stack machine that can call anything importable. Here that machine calls nothing but the few
functions below, which rebuild tensors and containers; anything else that a file names (a class of Lightning, an
optimizer, a numpy scalar, a path, `os.system`) becomes a `Placeholder`, which is neither imported nor called. Reading
is bounded by the size of the file.
"""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import torch
from torch import Tensor

from eqzoo.files import zip_damage
from eqzoo.zips import data_offset

# Of files before torch 1.6: a sequence of pickles, the first two of which are these, then the storages' bytes.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

# Tensors may share memory (tied weights, expanded buffers), but not so that a small file becomes a large network.
_SHARING, _SLACK = 4, 1 << 26

_MAX_AXES = 64

# At which torch begins storages, in files as in memory; other programs that write its files may not.
_ALIGNMENT = 64

_DTYPES = {str(each): each for each in vars(torch).values() if isinstance(each, torch.dtype)}
_STORAGES = {
    'BFloat16Storage': torch.bfloat16,
    'BoolStorage': torch.bool,
    'ByteStorage': torch.uint8,
    'CharStorage': torch.int8,
    'ComplexDoubleStorage': torch.complex128,
    'ComplexFloatStorage': torch.complex64,
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'IntStorage': torch.int32,
    'LongStorage': torch.int64,
    'ShortStorage': torch.int16,
    'UntypedStorage': torch.uint8,
}
_STORAGE_MODULES = ('torch', 'torch.cuda', 'torch.storage')


class Placeholder(dict):
    """A stand-in for an object of a class that is not read; it keeps the items set on it, and is equal to itself only.

    Args:
        name: The dotted name in the file. Nothing was imported by that name.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __repr__(self) -> str:
        return f'<an object of {self.name}, not read>'


def read_pickled(path: Path) -> Any:
    """Return the content of a file that `torch.save` wrote, on the CPU; no code in it runs.

    Tensors that share memory do so here too; parameters come back as plain tensors. What is not used of a file, such as
    an optimizer's state beside the weights, takes no memory: zips are mapped, and changes of tensors stay private.

    Args:
        path: A zip of torch 1.6 or later, or a file before it. (The tar files before torch 0.2 are not read.)

    Raises:
        UnreadableFileError: If it is no such file, is damaged, or would need far more memory than its size.
        Exception: Of many kinds, if its pickle is damaged.
    """
    with path.open('rb') as file:
        size = os.fstat(file.fileno()).st_size
        is_zip = file.read(4) == b'PK\x03\x04'
        file.seek(0)
        return _read_zip(path, file, size) if is_zip else _read_legacy(_Bounded(file, size), size)


class UnreadableFileError(ValueError):
    """A file that is whole, as far as it was read, but is not read here; the text is the reason."""


class _Storage(NamedTuple):
    """The memory of tensors: bytes, the type of their elements, and the elements that may be used."""

    memory: torch.UntypedStorage
    dtype: torch.dtype
    start: int
    numel: int


class _Global:
    """A name in a pickle that is known here.

    Args:
        call: Called where the pickle calls the name, with the unpickler and the arguments.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class _StorageType(NamedTuple):
    dtype: torch.dtype


# The interpreter's own version of `pickle.Unpickler`: that in C looks at the cache of `copyreg`'s extensions before it
# asks `find_class`, and calls whatever it has on its stack.
class _Unpickler(pickle._Unpickler):
    """Run a pickle's program without calling, importing or setting anything but containers and tensors."""

    dispatch: ClassVar[dict[int, Callable]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: Any, storage_of: Callable[..., _Storage], budget: int) -> None:
        super().__init__(file, encoding='utf-8', errors='replace')
        self.storage_of, self.budget = storage_of, budget

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == 'storage' and isinstance(pid[1], _StorageType):
            return self.storage_of(pid[1].dtype, *pid[2:])
        if isinstance(pid, tuple) and pid[:1] == ('module',):  # before torch 1.6: a module and its source
            return pid[1]
        raise pickle.UnpicklingError('unknown persistent object')

    def find_class(self, module: str, name: str) -> Any:
        dotted = f'{module}.{name}'
        if dotted in _GLOBALS:
            return _GLOBALS[dotted]
        if dotted in _DTYPES:
            return _DTYPES[dotted]
        if module in _STORAGE_MODULES and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        return Placeholder(dotted)

    def get_extension(self, code: int) -> None:
        self.append(Placeholder(f'extension {code}'))

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what a known function makes of its arguments, and a placeholder for every other one."""
        if isinstance(function, _Global):
            return function.call(self, *arguments)
        return Placeholder(function.name if isinstance(function, Placeholder) else type(function).__name__)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def load_newobj(self) -> None:
        self.load_reduce()

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # the keyword arguments
        self.load_reduce()

    def load_obj(self) -> None:
        arguments = self.pop_mark()
        self.append(self.call(arguments[0], arguments[1:]))

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode('ascii') for _ in range(2))
        self.append(self.call(self.find_class(module, name), self.pop_mark()))

    def load_build(self) -> None:
        self.stack.pop()  # an object's own state: `_metadata` of a state dict

    def load_append(self) -> None:
        value = self.stack.pop()
        self.extend(self.stack[-1], [value])

    def load_appends(self) -> None:
        values = self.pop_mark()
        self.extend(self.stack[-1], values)

    def extend(self, target: Any, values: list[Any]) -> None:
        if type(target) is list:
            target.extend(values)
        elif not isinstance(target, Placeholder):
            raise pickle.UnpicklingError('something is appended to no list')

    def load_additems(self) -> None:
        values = self.pop_mark()
        if type(self.stack[-1]) is set:
            self.stack[-1].update(map(_key, values))
        elif not isinstance(self.stack[-1], Placeholder):
            raise pickle.UnpicklingError('something is added to no set')

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.set_items(self.stack[-1], items)

    def set_items(self, target: Any, items: list[Any]) -> None:
        if type(target) not in (dict, OrderedDict, Placeholder):
            raise pickle.UnpicklingError('an item is set on no dict')
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(self.stack[-1], items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(map(_key, items)))

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack('<Q', self.read(8))
        self.append(self.read(size))

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> Tensor:
        """Return a tensor over a storage, within its bounds and within what the file may hold."""
        if not isinstance(storage, _Storage):
            raise pickle.UnpicklingError('a tensor without a storage')
        size, stride, dtype = tuple(size), tuple(stride), dtype if dtype is not None else storage.dtype
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or len(size) > _MAX_AXES or not all(type(n) is int and n >= 0 for n in numbers):
            raise pickle.UnpicklingError('a tensor of an impossible shape')
        numel, last = 1, 0
        for length, step in zip(size, stride, strict=True):
            numel, last = numel * length, last + (length - 1) * step
        first = storage.start + offset
        items = storage.numel * storage.dtype.itemsize // dtype.itemsize
        if numel and offset + last >= items:
            raise pickle.UnpicklingError('a tensor that ends outside its storage')
        self.budget -= numel * dtype.itemsize
        if self.budget < 0:
            raise UnreadableFileError('its tensors would take far more memory than it has bytes')
        return torch.empty(0, dtype=dtype).set_(storage.memory, first if numel else 0, size, stride)


for _name, _method in vars(_Unpickler).items():
    if _name.startswith('load_'):
        _Unpickler.dispatch[getattr(pickle, _name.removeprefix('load_').upper())[0]] = _method


def _key(key: Any) -> Any:
    """Return a key that is hashed at once: nested tuples can be made to take for ever, other objects have no hash."""
    parts = key if type(key) is tuple else (key,)
    is_plain = all(isinstance(each, str | bytes | int | float | torch.dtype | Placeholder | None) for each in parts)
    return key if is_plain else Placeholder(type(key).__name__)


def _ordered(_: _Unpickler, items: Any = ()) -> OrderedDict:
    return OrderedDict((_key(key), value) for key, value in items)


def _tensor_v2(unpickler: _Unpickler, *arguments: Any) -> Tensor:
    *placed, _, _ = arguments[:6]  # requires_grad and hooks
    return _with_bits(unpickler.tensor(*placed), *arguments[6:])


def _tensor_v3(unpickler: _Unpickler, *arguments: Any) -> Tensor:
    *placed, _, _, dtype = arguments[:7]
    return _with_bits(unpickler.tensor(*placed, dtype), *arguments[7:])


def _with_bits(tensor: Tensor, metadata: Any = None) -> Tensor:
    """Apply the two bits that torch stores beside a tensor, for lazily negated and conjugated ones."""
    bits = metadata if isinstance(metadata, Mapping) else {}
    tensor = tensor.neg() if bits.get('neg') is True else tensor
    return tensor.conj().resolve_conj() if bits.get('conj') is True else tensor


def _from_type(unpickler: _Unpickler, function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    return unpickler.call(function, arguments)  # a subclass of a tensor becomes a plain one


_GLOBALS = {
    'collections.OrderedDict': _Global(_ordered),
    'torch._utils._rebuild_tensor': _Global(_Unpickler.tensor),
    'torch._utils._rebuild_tensor_v2': _Global(_tensor_v2),
    'torch._utils._rebuild_tensor_v3': _Global(_tensor_v3),
    'torch._utils._rebuild_parameter': _Global(lambda _, data, *__: data),
    'torch._utils._rebuild_parameter_with_state': _Global(lambda _, data, *__: data),
    'torch._utils._rebuild_device_tensor_from_cpu_tensor': _Global(lambda _, data, *__: data),
    'torch._tensor._rebuild_from_type_v2': _Global(_from_type),
    'torch.Size': _Global(lambda _, sizes=(): tuple(sizes)),
    **{
        f'{module}.{name}': _Global(lambda _, items=(), kind=kind: kind(map(_key, items)))
        for module in ('builtins', '__builtin__')
        for name, kind in (('set', set), ('frozenset', frozenset))
    },
}


class _Bounded:
    """A binary file from which no more is read than there is, whatever length its content claims."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def read(self, count: int) -> bytes:
        data = self.file.read(max(0, min(count, self.left)))
        self.left -= len(data)
        return data

    def readline(self) -> bytes:
        line = self.file.readline()
        self.left -= len(line)
        return line


def _read_zip(path: Path, file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
    # torch packs nothing, so that members can be mapped into memory
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise UnreadableFileError('it is a packed zip, which torch does not write')
    if sum(info.file_size for info in members.values()) > size:
        raise UnreadableFileError('its directory claims more bytes than it has')
    roots = [name.removesuffix('data.pkl') for name in members if name == 'data.pkl' or name.endswith('/data.pkl')]
    if len(roots) != 1 or f'{roots[0]}constants.pkl' in members:
        raise UnreadableFileError('it is a zip, but not one of tensors')
    damage = zip_damage(path)
    if damage is not None:
        raise UnreadableFileError(f'it is damaged ({damage})')

    def content(name: str, into: memoryview) -> None:
        file.seek(data_offset(file.fileno(), members[name].header_offset))
        if file.readinto(into) != len(into):
            raise EOFError('the zip ends before this member does')

    def text(name: str) -> bytes:
        data = bytearray(members[name].file_size)
        content(name, memoryview(data))
        return bytes(data)

    root = roots[0]
    if f'{root}byteorder' in members and text(f'{root}byteorder') != b'little':
        raise UnreadableFileError('it was written by a machine of other byte order')
    storages: dict[str, torch.UntypedStorage] = {}
    mapped = _mapped(path, size)

    def memory_of(name: str) -> torch.UntypedStorage:
        start, nbytes = data_offset(file.fileno(), members[name].header_offset), members[name].file_size
        if mapped is not None and start % _ALIGNMENT == 0 and 0 < nbytes <= size - start:
            return mapped[start : start + nbytes]
        memory = torch.UntypedStorage(nbytes)
        content(name, _view(memory))
        return memory

    def storage_of(dtype: torch.dtype, key: Any, _: Any, numel: Any, *__: Any) -> _Storage:
        name = f'{root}data/{key}'
        nbytes = members[name].file_size
        if type(numel) is not int or numel < 0 or numel * dtype.itemsize > nbytes:
            raise pickle.UnpicklingError('a storage of another size than its bytes')
        if name not in storages:
            storages[name] = memory_of(name)
        return _Storage(storages[name], dtype, 0, numel)

    return _Unpickler(io.BytesIO(text(f'{root}data.pkl')), storage_of, _SHARING * size + _SLACK).load()


def _mapped(path: Path, size: int) -> torch.UntypedStorage | None:
    """Return a file mapped into memory, in which changes stay private; None on a file system that maps none."""
    try:
        return torch.UntypedStorage.from_file(str(path), False, size)
    except RuntimeError:
        return None


def _read_legacy(file: _Bounded, size: int) -> Any:
    storages: dict[Any, tuple[torch.UntypedStorage, int]] = {}
    left = size

    def storage_of(dtype: torch.dtype, key: Any, _: Any, numel: Any, view: Any = None, *__: Any) -> _Storage:
        nonlocal left
        if type(key) is not str or type(numel) is not int or numel < 0:
            raise pickle.UnpicklingError('a storage of an impossible size')
        if key not in storages:
            left -= numel * dtype.itemsize
            if left < 0:
                raise UnreadableFileError('its storages claim more bytes than it has')
            storages[key] = torch.UntypedStorage(numel * dtype.itemsize), dtype.itemsize
        whole = storages[key][0].nbytes() // dtype.itemsize
        if view is None:
            return _Storage(storages[key][0], dtype, 0, whole)
        _, start, length = view
        if not (type(start) is type(length) is int and start >= 0 and length >= 0 and start + length <= whole):
            raise pickle.UnpicklingError('a view outside its storage')
        return _Storage(storages[key][0], dtype, start, length)

    def load() -> Any:
        return _Unpickler(file, storage_of, _SHARING * size + _SLACK).load()

    if load() != _LEGACY_MAGIC or load() != _LEGACY_PROTOCOL:
        raise UnreadableFileError('it is a pickle, but not one that torch.save wrote')
    system = load()
    if not isinstance(system, dict) or system.get('little_endian') is not True:
        raise UnreadableFileError('it was written by a machine of other byte order')
    result, keys = load(), load()
    if sorted(keys) != sorted(storages):
        raise UnreadableFileError('its storages are not those of its tensors')
    for key in keys:
        memory, itemsize = storages[key]
        (numel,) = struct.unpack('<q', file.read(8))
        data = file.read(memory.nbytes())
        if numel * itemsize != len(data) or len(data) != memory.nbytes():
            raise EOFError('the file ends before its tensors do')
        _view(memory)[:] = data
    return result


def _view(memory: torch.UntypedStorage) -> memoryview:
    return memoryview(torch.empty(0, dtype=torch.uint8).set_(memory).numpy())
