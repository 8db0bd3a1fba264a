"""Loaders: order, resume, sharding, and batches without unreadable images."""

from itertools import islice

import pytest
import torch

from eqzoo.data import RunSampler, Shapes, ShardSampler, build_eval_loader, build_train_loader, collate


def take(sampler, count):
    return list(islice(sampler, count))


def test_every_epoch_is_another_permutation():
    drawn = take(RunSampler(10, seed=0), 30)
    assert [draw for _, draw in drawn] == list(range(30))
    epochs = [[index for index, _ in drawn[start : start + 10]] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert take(RunSampler(10, seed=0), 30) == drawn
    assert take(RunSampler(10, seed=1), 30) != drawn


def test_without_shuffling_the_order_is_that_of_the_names():
    assert [index for index, _ in take(RunSampler(3, shuffle=False), 7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize('start', [0, 6, 7, 10, 25])
@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_resume_continues_without_replay(start, world_size):
    for rank in range(world_size):
        options = dict(seed=4, rank=rank, world_size=world_size)
        whole = [pair for pair in take(RunSampler(7, **options), 40) if pair[1] >= start]
        resumed = RunSampler(7, **options)
        resumed.start_draw = start
        assert take(resumed, 10) == whole[:10]
        assert take(RunSampler(7, start_draw=start, **options), 10) == whole[:10]


@pytest.mark.parametrize('world_size', [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_ranks(world_size):
    dataset = Shapes(10, 16, flip=True)
    alone = islice(build_train_loader(dataset, batch_size=8, num_workers=0, seed=3), 4)
    ranks = zip(
        *(
            build_train_loader(dataset, batch_size=8, num_workers=0, seed=3, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ),
        strict=False,
    )
    for step, (batch, parts) in enumerate(zip(alone, ranks, strict=False)):
        assert batch['draws'].tolist() == list(range(8 * step, 8 * step + 8))
        for key in ('images', 'labels', 'indices', 'draws'):
            joined = torch.stack([part[key] for part in parts], 1).flatten(0, 1)
            torch.testing.assert_close(joined, batch[key], rtol=0, atol=0)


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_workers_and_resume_change_nothing_and_leave_the_global_generator_alone():
    dataset = Shapes(10, 16, flip=True)
    here = list(islice(build_train_loader(dataset, batch_size=4, num_workers=0, seed=3), 5))
    loader = build_train_loader(dataset, batch_size=4, num_workers=2, seed=3)
    loader.sampler.start_draw = 8
    state = torch.get_rng_state()
    for batch, expected in zip(islice(loader, 3), here[2:], strict=True):
        assert torch.equal(batch['draws'], expected['draws'])
        assert torch.equal(batch['images'], expected['images'])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('world_size', [1, 2, 3, 8])
def test_evaluation_gives_each_index_once(world_size):
    shards = [list(ShardSampler(7, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(pair for shard in shards for pair in shard) == [(index, index) for index in range(7)]
    assert [len(ShardSampler(7, rank=rank, world_size=world_size)) for rank in range(world_size)] == [
        len(shard) for shard in shards
    ]


def test_eval_loader_is_in_order_and_ends():
    batches = list(build_eval_loader(Shapes(7, 16), batch_size=4, num_workers=0))
    assert [batch['indices'].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6]]
    second = list(build_eval_loader(Shapes(7, 16), batch_size=4, num_workers=0, rank=1, world_size=2))
    assert [batch['indices'].tolist() for batch in second] == [[1, 3], [5]]


def test_train_loader_takes_seed_and_shuffle():
    orders = [
        next(iter(build_train_loader(Shapes(9, 16), batch_size=9, num_workers=0, **options)))['indices'].tolist()
        for options in (dict(seed=0), dict(seed=1), dict(seed=0, shuffle=False))
    ]
    assert orders[0] != orders[1]
    assert orders[2] == list(range(9))
    assert orders[0] == [index for index, _ in take(RunSampler(9, seed=0), 9)]


@pytest.mark.parametrize('batch_size', [0, 3])
def test_batch_must_be_shared_evenly(batch_size):
    message = f'whole multiple of their number 2, got {batch_size}'
    with pytest.raises(ValueError, match=message):
        build_train_loader(Shapes(7, 16), batch_size=batch_size, num_workers=0, seed=0, world_size=2)
    with pytest.raises(ValueError, match=message):
        build_eval_loader(Shapes(7, 16), batch_size=batch_size, num_workers=0, world_size=2)


@pytest.mark.parametrize('sampler', [RunSampler, ShardSampler])
def test_samplers_refuse_arguments_out_of_range(sampler):
    with pytest.raises(ValueError, match=f'{sampler.__name__}.size must be at least 1, got 0'):
        sampler(0)
    with pytest.raises(ValueError, match='got rank 2 of 2'):
        sampler(5, rank=2, world_size=2)


def test_run_sampler_refuses_negative_numbers():
    with pytest.raises(ValueError, match='must not be negative, got -1 and 0'):
        RunSampler(5, seed=-1)


def test_collate_values():
    items = [
        dict(
            image=torch.full((3, 2, 2), value, dtype=torch.uint8), label=value + 1, index=value + 2, draw=2**40 + value
        )
        for value in range(3)
    ]
    batch = collate([items[0], dict(unreadable='b.jpg', reason='empty', index=9, draw=9), items[2]])
    assert batch['images'].dtype == torch.uint8
    assert batch['images'][:, 0, 0, 0].tolist() == [0, 2]
    assert {batch[key].dtype for key in ('labels', 'indices', 'draws')} == {torch.int64}
    assert (batch['labels'].tolist(), batch['indices'].tolist()) == ([1, 3], [2, 4])
    assert batch['draws'].tolist() == [2**40, 2**40 + 2]
    assert (batch['unreadable'], batch['reasons'], batch['enlarged']) == (['b.jpg'], {'b.jpg': 'empty'}, [])


def test_a_batch_without_readable_images_is_an_error():
    items = [dict(unreadable=name, index=0, draw=0) for name in ('a.jpg', 'b.jpg')]
    with pytest.raises(
        ValueError, match=r'No image of this batch of 2 can be read: a.jpg, b.jpg; remove these files, or raise'
    ):
        collate(items)
    items = [dict(unreadable=f'{number}.jpg', reason='empty', index=0, draw=0) for number in range(10)]
    with pytest.raises(ValueError, match=r'batch of 10 can be read: 0.jpg \(empty\), .*7.jpg \(empty\) and 2 more;'):
        collate(items)
