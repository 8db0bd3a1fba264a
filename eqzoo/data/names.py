"""Many names in little memory."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

_AT_ONCE = 100_000  # names that are joined at once, while a list is packed


class Names(Sequence[str]):
    """An immutable list of strings, as one array of bytes and one of where each ends.

    A list of ten million paths takes a gigabyte, and as much again in each process that a loader
    forks, since counting references copies every page; this takes their bytes and eight more
    each, and forks share them.

    Args:
        names: The strings.

    Example:
        >>> names = Names(['cat/1.png', 'dog/2.png'])
        >>> names[1], len(names), list(names[:1])
        ('dog/2.png', 2, ['cat/1.png'])
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        iterator = iter(names)
        while piece := [name.encode(errors='surrogateescape') for name in islice(iterator, _AT_ONCE)]:
            parts.append(np.frombuffer(b''.join(piece), np.uint8))
            lengths.append(np.fromiter(map(len, piece), np.int64, len(piece)))
        self._bytes = np.concatenate(parts) if parts else np.empty(0, np.uint8)
        self._ends = np.concatenate(lengths).cumsum() if lengths else np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int | slice) -> 'str | Names':
        if isinstance(index, slice):
            return Names(self[place] for place in range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f'no name {index} of {len(self)}')
        start = self._ends[place - 1] if place else 0
        return self._bytes[start : self._ends[place]].tobytes().decode(errors='surrogateescape')

    def __iter__(self) -> Iterator[str]:
        whole, start = self._bytes.tobytes(), 0
        for end in self._ends.tolist():
            yield whole[start:end].decode(errors='surrogateescape')
            start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        shown = ', '.join(map(repr, islice(self, 3)))
        return f'Names({len(self)}: {shown}{", …" if len(self) > 3 else ""})'
