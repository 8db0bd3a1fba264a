"""What a dataset is asked with: an index, or an index and the number of the sample in the run."""

Key = int | tuple[int, int]


def split_key(key: Key, size: int) -> tuple[int, int]:
    """Return (index, draw) of a dataset's key; a bare index is its own draw.

    Raises:
        IndexError: If the index is not in 0 to `size` - 1, which ends a plain loop over a dataset.
    """
    index, draw = key if isinstance(key, tuple) else (key, key)
    if not 0 <= index < size:
        raise IndexError(f'Index {index} is not in 0 to {size - 1}.')
    return int(index), int(draw)
