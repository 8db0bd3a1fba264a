"""Files of a latent store: row checksums, mapped shards; and the flips drawn for its rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from xxhash import xxh3_64_intdigest

from eqzoo.data.latents.format import (
    INDEX,
    Field,
    ShardRows,
    StoreIndex,
    StorePlan,
    open_shard,
    read_index,
    row_checksums,
    write_index,
    write_shard,
)
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


def test_reading_a_shard_takes_no_memory_of_the_process(tmp_path):
    """The pages of a mapped shard belong to the file: a shard of 64 MiB is read whole."""
    rows = 4096
    plan = StorePlan('0' * 64, {}, rows, rows, False, 'fp32', {'mean': Field('float32', (4, 32, 32))})
    labels = torch.arange(rows)
    write_shard(tmp_path / 'shard-00000.safetensors', plan, labels, [{'mean': torch.ones(rows, 4, 32, 32)}])
    before = anonymous_bytes()
    stored = ShardRows(open_shard(tmp_path, 0, plan), ['mean'], flipped=False)
    assert stored.damaged() == []
    assert stored.fields[0].nbytes == 64 << 20
    assert anonymous_bytes() - before < 8 << 20
    assert not stored.fields[0].flags.writeable


def anonymous_bytes():
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith('Anonymous:')) << 10


def test_flips_are_fair_and_functions_of_seed_and_draw():
    draws = np.arange(100_000)
    first, second = draw_flips(0, draws), draw_flips(1, draws)
    for flips in (first, second, first ^ second, first[1:] ^ first[:-1], first[::2] ^ first[1::2]):
        assert abs(flips.mean() - 0.5) < 4 * 0.5 / len(flips) ** 0.5
    assert (draw_flips(0, draws[::-1]) == first[::-1]).all()
    assert (draw_flips(0, draws + 2**40) != first).any()


def test_flips_are_those_of_earlier_runs():
    assert np.flatnonzero(draw_flips(3, np.arange(24))).tolist() == [0, 2, 8, 9, 13, 15, 23]


PLAN = StorePlan('0' * 64, {}, 5, 3, False, 'fp32', {'mean': Field('float32', (4, 2, 2))})
SHARDS = ['shard-00000.safetensors', 'shard-00001.safetensors']


def index(shards=SHARDS, plan=PLAN):
    return StoreIndex(plan, {}, ['0'], {}, None, dict.fromkeys(shards, 1), {})


def test_an_index_that_is_whole_is_read(tmp_path):
    write_index(tmp_path, index())
    assert read_index(tmp_path) == index()


@pytest.mark.parametrize(
    'shards',
    [
        ['../../etc/passwd', SHARDS[1]],
        ['/etc/passwd', SHARDS[1]],
        [f'../{SHARDS[0]}', SHARDS[1]],
        SHARDS[:1],
        [*SHARDS, 'shard-00002.safetensors'],
        SHARDS[::-1],
    ],
)
def test_shards_have_the_names_of_the_plan(shards, tmp_path):
    """Their own hash does not make names from outside right: whoever writes the file writes the hash."""
    write_index(tmp_path, index(shards))
    with pytest.raises(ValueError, match=f'{INDEX}: damaged or edited .*its shards are not the 2 of the plan'):
        read_index(tmp_path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(num_images=0), 'sizes must be whole numbers from 1'),
        (dict(shard_images=-3), 'sizes must be whole numbers from 1'),
        (dict(num_images=2**62), 'sizes must be whole numbers from 1'),
        (dict(num_images=2.5), 'sizes must be whole numbers from 1'),
        (dict(fields={'mean': Field('float32', (4, 'x'))}), 'sizes must be whole numbers from 1'),
        (dict(fields={'mean': Field('load', (4,))}), "unknown types of fields: 'load'"),
    ],
)
def test_sizes_and_types_of_a_plan_are_possible(change, message, tmp_path):
    write_index(tmp_path, index(plan=replace(PLAN, **change)))
    with pytest.raises(ValueError, match=f'{INDEX}: damaged or edited .*{message}'):
        read_index(tmp_path)
