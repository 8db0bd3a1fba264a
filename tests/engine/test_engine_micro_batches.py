"""Micro-batches of several processes of which some cannot read all their images: as many, and the same numbers."""

import os
import socket
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from torch.nn import functional as F

from eqzoo.data import Shapes, collate
from eqzoo.engine import CodebookHook, training
from eqzoo.engine.runner import build_optimizers
from eqzoo.images import to_float
from eqzoo.randomness import StepRandomness
from eqzoo.registry import build

SMALL = dict(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4)
KL = dict(type='KLAutoencoder', **SMALL)
VQ = dict(type='VQAutoencoder', latent_channels=2, num_codes=8, attention_levels=(), **SMALL)
NETWORK = dict(
    type='AlignedTransformer',
    size=(1, 8, 2),
    latent_channels=4,
    latent_size=16,
    num_classes=8,
    feature_dims=(8,),
    tap=1,
    projector_width=8,
)


class Tokens:
    """A fixed projection of the pixels of each of 8 x 8 tokens."""

    num_features = 8

    def __init__(self):
        self.weight = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(3))

    def __call__(self, images):
        return F.conv2d(to_float(images), self.weight, stride=4).flatten(2).transpose(1, 2)


PARTS = {
    'adaptive': dict(
        autoencoder=KL,
        # an image is seen by itself: no statistics of batches
        adversarial_loss=dict(
            type='AdversarialLoss',
            discriminator=dict(type=torch.nn.Conv2d, in_channels=3, out_channels=1, kernel_size=4),
        ),
    ),
    'averaged codes': dict(autoencoder={**VQ, 'quantizer': dict(type='EMACodebook', num_codes=8, channels=2)}),
    'joint': dict(
        type='JointTraining',
        autoencoder=KL,
        generator=dict(
            type='REPA',
            network=NETWORK,
            process=dict(type='Interpolant'),
            encoder=dict(type=Tokens),
        ),
    ),
}
SGD = dict(optimizer=dict(type='SGD', lr=1e-3))


def batch_of(readable, unreadable=()):
    data = Shapes(num_images=8, size=32)
    return collate([*(data[number] for number in readable), *(dict(unreadable=name) for name in unreadable)])


def made(name, **options):
    model = dict(
        type='AutoencoderTraining',
        objective=dict(type='Plain'),
        reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
    )
    torch.manual_seed(0)
    model = build({**model, **PARTS[name], **options}).train()
    config = Config(dict(optim_wrapper=dict.fromkeys(model.parameter_groups(), SGD)))
    return model, build_optimizers(model, config)


@pytest.mark.parametrize(
    ('size', 'readable', 'unreadable', 'lengths'),
    [
        (3, 7, 0, [3, 3, 1]),
        (3, 6, 1, [3, 2, 1]),  # two are enough for six
        (2, 3, 4, [0, 1, 1, 1]),
        (1, 1, 3, [0, 0, 0, 1]),
        (None, 2, 3, [2]),
    ],
)
def test_the_number_of_micro_batches_is_that_of_all_images(monkeypatch, size, readable, unreadable, lengths):
    model, _ = made('adaptive', micro_batch_size=size)
    batch = dict(draws=torch.arange(readable), unreadable=['a.png'] * unreadable)
    monkeypatch.setattr(training, 'rank_and_world_size', lambda: (0, 2))
    parts = model.micro_batches(batch)
    assert [round(each.share * readable) for each in parts] == lengths
    assert [each.is_last for each in parts] == [False] * (len(parts) - 1) + [True]
    places = [place for part, share, _ in parts if share for place in range(part.start, part.stop)]
    assert places == list(range(readable))


def test_one_process_cuts_the_images_that_it_has(monkeypatch):
    model, _ = made('adaptive', micro_batch_size=3)
    parts = model.micro_batches(dict(draws=torch.arange(3), unreadable=['a.png'] * 3))
    assert parts == [(slice(0, 3), 1.0, True)]


@pytest.mark.parametrize('name', PARTS)
def test_repetitions_change_no_number(name, monkeypatch, assert_same):
    """Two of four images are unreadable: the step is that of the other two, weights, averages and log."""
    results = []
    for processes in (1, 2):
        monkeypatch.setattr(training, 'rank_and_world_size', lambda processes=processes: (0, processes))
        model, optimizers = made(name, micro_batch_size=1)
        log = model.train_step(batch_of([2, 5], ['a.png', 'b.png']), optimizers, StepRandomness(0, 1))
        results.append((model.state_dict(), log))
    assert_same(*results)


def test_a_codebooks_hook_does_not_hear_repetitions(monkeypatch):
    monkeypatch.setattr(training, 'rank_and_world_size', lambda: (0, 2))
    model, optimizers = made('averaged codes', micro_batch_size=1)
    hook, batch = CodebookHook(revive_after=1), batch_of([2, 5], ['a.png', 'b.png'])
    runner = SimpleNamespace(model=model, optim_wrapper=optimizers, seed=0, iter=0)
    hook.before_run(runner)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    model.train_step(batch, optimizers, StepRandomness(0, 0))
    assert [len(each) for each in hook._features] == [16 * 16] * 2
    assert hook._features_of_all(batch['draws']).shape == (2 * 16 * 16, 2)


def work(rank, port, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    dist.init_process_group('gloo', rank=rank, world_size=2, timeout=timedelta(seconds=60))
    model, optimizers = made('adaptive', micro_batch_size=1)
    batch = batch_of([0, 2]) if rank == 0 else batch_of([3], ['a.png'])
    log = model.train_step(batch, optimizers, StepRandomness(0, 0))
    torch.save((model.state_dict(), log), f'{folder}/{rank}.pt')
    dist.barrier()
    os._exit(0)  # gloo's threads: torch 2.6 may hang in destroy_process_group, 2.15 abort without it


def test_two_processes_with_one_unreadable_image_take_the_same_step(tmp_path, assert_same):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, tmp_path), nprocs=2)
    (first, log), (second, other) = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert_same(first, second)
    assert log['loss'] != other['loss']
    before = made('adaptive')[0].state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in first.items())
