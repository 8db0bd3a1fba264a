"""Row checksums notice changes; flips are fair, independent of batches and of each other."""

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from eqzoo.data.latents.format import row_checksums
from eqzoo.data.latents.store import draw_flips


@pytest.mark.parametrize('num_bytes', [8, 18, 64])
def test_a_change_anywhere_changes_the_checksum_of_that_row_only(num_bytes):
    rng = np.random.default_rng(0)
    labels = np.arange(3)
    fields = [rng.integers(0, 256, (3, num_bytes), dtype=np.uint8) for _ in range(2)]
    before = row_checksums(labels, fields)
    for field in fields:
        for place in range(num_bytes):
            for bit in range(8):
                field[1, place] ^= 1 << bit
                assert (row_checksums(labels, fields) != before).tolist() == [False, True, False]
                field[1, place] ^= 1 << bit
    for bit in range(64):
        changed = labels.copy()
        changed.view(np.uint64)[2] ^= np.uint64(1 << bit)
        assert (row_checksums(changed, fields) != before).tolist() == [False, False, True]
    assert (row_checksums(labels, fields[::-1]) != before).all()


def test_words_that_change_places_are_noticed():
    row = np.arange(32, dtype=np.uint8)[None]
    moved = np.concatenate([row[:, 8:16], row[:, :8], row[:, 16:]], 1)
    labels = np.zeros(1, np.int64)
    assert row_checksums(labels, [row]) != row_checksums(labels, [moved])


def test_the_checksum_is_that_of_the_format():
    """A store written today must be readable tomorrow."""
    rows = np.arange(32, dtype=np.uint8).reshape(2, 1, 16)
    assert row_checksums(np.array([7]), [rows[0]]).tolist() == [17152961952304254961]
    both = row_checksums(np.array([7]), [rows[0], rows[1]]).tolist()
    assert both == [xxh3_64_intdigest(bytes(range(16, 32)), seed=xxh3_64_intdigest(bytes(range(16)), seed=7))]


def test_rows_do_not_depend_on_their_batch():
    rows = np.random.default_rng(0).integers(0, 256, (5, 24), dtype=np.uint8)
    labels = np.arange(5)
    whole = row_checksums(labels, [rows])
    assert [int(row_checksums(labels[k : k + 1], [rows[k : k + 1]])[0]) for k in range(5)] == whole.tolist()


def test_flips_are_fair_and_functions_of_seed_and_draw():
    draws = np.arange(100_000)
    first, second = draw_flips(0, draws), draw_flips(1, draws)
    for flips in (first, second, first ^ second, first[1:] ^ first[:-1], first[::2] ^ first[1::2]):
        assert abs(flips.mean() - 0.5) < 4 * 0.5 / len(flips) ** 0.5
    assert (draw_flips(0, draws[::-1]) == first[::-1]).all()
    assert (draw_flips(0, draws + 2**40) != first).any()


def test_flips_are_those_of_earlier_runs():
    assert np.flatnonzero(draw_flips(3, np.arange(24))).tolist() == [0, 2, 8, 9, 13, 15, 23]
