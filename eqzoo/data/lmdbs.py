"""LMDB data bases of images: each entry is one image file under its key, as in LSUN and StyleGAN2's PyTorch ports."""

import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from eqzoo.data.sources import OPENING, ImageSource, Names, check_size, is_hidden
from eqzoo.text import printable

_environments: dict[Path, tuple[int, Any]] = {}  # open, with the process that opened them

_FEWEST_BYTES = 32  # of an image; entries of fewer are counts, such as 'length'


class LmdbSource(ImageSource):
    """The images of an LMDB data base.

    An entry is the bytes of an image file; its key is its name, with '/' for folders, which are classes. Keys that
    begin with '__', and entries of a few bytes, such as 'length', are left out. The data base is opened on the first
    read of each process, as LMDB demands, without locks and for reading.

    Args:
        root: The folder with `data.mdb`, or the file itself.

    Raises:
        ValueError: If `lmdb` is not installed, or the data base is damaged.
    """

    kind = 'LMDB'

    def __init__(self, root: Path) -> None:
        self.root = Path(root).resolve()
        self.left_out: Counter[str] = Counter()
        if find_spec('lmdb') is None:
            raise ValueError(f"{root}: an LMDB data base needs lmdb; expected: pip install 'eqzoo[lmdb]'.")
        import lmdb

        sizes: dict[str, int] = {}
        try:
            with _environment(self.root, is_new=True).begin(buffers=True) as transaction:
                for key, value in transaction.cursor():
                    name = bytes(key).decode(errors='surrogateescape')
                    if name.startswith('__') or len(value) < _FEWEST_BYTES:
                        self.left_out['of no image'] += 1
                    elif not any(map(is_hidden, name.split('/'))):
                        sizes[name] = len(value)
        except lmdb.Error as error:
            raise ValueError(f'{root}: no LMDB data base, or damaged ({printable(error)}); copy it again.') from None
        self._names = Names(sorted(sizes))
        self._sizes = np.array([sizes[name] for name in self._names], np.int64)

    def names(self) -> Names:
        """Return the keys of the images, sorted."""
        return self._names

    def read(self, name: str) -> bytes:
        """Return the bytes of one image; OSError if its entry is gone or too large."""
        import lmdb

        check_size(self.byte_size(name))
        try:
            with _environment(self.root).begin() as transaction:
                data = transaction.get(name.encode(errors='surrogateescape'))
        except lmdb.Error as error:
            raise OSError(f'LMDB: {error}') from None
        if data is None:
            raise OSError('its entry is gone')
        return data

    def byte_size(self, name: str) -> int:
        """Return the number of bytes of one image."""
        return int(self._sizes[self._names.place_of(name)])


def _environment(root: Path, *, is_new: bool = False) -> Any:
    """Return the open environment of this process: LMDB opens each once, and none must be used after a fork.

    Args:
        root: The data base.
        is_new: Whether to open it again: the files may have been replaced.
    """
    import lmdb

    with OPENING:
        process, environment = _environments.pop(root, (0, None))
        if environment is not None and (is_new or process != os.getpid()):
            environment.close()  # in a fork: of its own copies
            environment = None
        if environment is None:
            options = dict(readonly=True, lock=False, readahead=False, meminit=False, create=False)
            environment = lmdb.open(str(root), subdir=root.is_dir(), **options)
        _environments[root] = os.getpid(), environment
        return environment
