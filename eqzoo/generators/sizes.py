"""The published sizes of generators' transformers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Size(NamedTuple):
    """A transformer's size: blocks, channels of a token, attention heads."""

    depth: int
    width: int
    heads: int


SIZES = {'S': Size(12, 384, 6), 'B': Size(12, 768, 12), 'L': Size(24, 1024, 16), 'XL': Size(28, 1152, 16)}
"""DiT's (arXiv 2212.09748, table 1), which SiT and REPA share."""

MASKGIT_SIZES = {'base': Size(24, 768, 16), 'big': Size(32, 1024, 16), 'huge': Size(48, 1024, 16)}
"""Those of Besnier and Chen's release (arXiv 2310.14400)."""


def size_of(size: str | Sequence[int], known: Mapping[str, Size] = SIZES) -> Size:
    """Return a size by its published name in `known`, or (depth, width, heads) checked.

    Raises:
        ValueError: If the name is unknown, or the width cannot be cut into heads and sines.

    Example:
        >>> size_of('B')
        Size(depth=12, width=768, heads=12)
    """
    if isinstance(size, str):
        if size not in known:
            raise ValueError(f'size: got {size!r}; accepted are {", ".join(known)}, or (depth, width, heads).')
        return known[size]
    if len(size) != 3 or min(size) < 1 or size[1] % size[2] or size[1] % 4:
        raise ValueError(
            f'size: got {tuple(size)}; accepted is (depth, width, heads) with a width that heads and 4 divide, '
            f'or one of {", ".join(known)}.'
        )
    return Size(*size)


def name_of(depth: int, width: int, known: Mapping[str, Size] = SIZES) -> str:
    """Return the published name of a size, or its numbers."""
    names = {(each.depth, each.width): name for name, each in known.items()}
    return names.get((depth, width), f'({depth} blocks of {width})')
