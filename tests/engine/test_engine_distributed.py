"""Two processes train and evaluate as one does with the same global batch."""

import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from eqzoo.data import Shapes, build_eval_loader, build_train_loader
from eqzoo.engine import StepRandomness
from eqzoo.engine.evaluation import merge_metrics, run_evaluators
from eqzoo.engine.runner import build_optimizers
from eqzoo.registry import build


def config():
    from mmengine.config import Config

    return Config(
        dict(
            model=dict(
                type='AutoencoderTraining',
                autoencoder=dict(
                    type='KLAutoencoder', block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4
                ),
                objective=dict(type='ImplicitEquivariance', transform=dict(type='Rotate')),
                reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
                kl_loss=dict(type='KLDivergence'),
                # no batch statistics, which stay per process
                adversarial_loss=dict(
                    type='AdversarialLoss',
                    discriminator=dict(type=torch.nn.Conv2d, in_channels=3, out_channels=1, kernel_size=4),
                ),
            ),
            optim_wrapper=dict(
                autoencoder=dict(optimizer=dict(type='SGD', lr=1e-5)),
                discriminator=dict(optimizer=dict(type='SGD', lr=1e-2)),
            ),
            evaluators=[
                dict(type='ReconstructionMetric'),
                dict(type='EquivarianceError'),
                dict(type='LatentStatistics'),
            ],
        )
    )


def work(rank, world_size):
    """Train three steps and evaluate seven images; return weights and metrics."""
    torch.manual_seed(0)
    model = build(config().model).train()
    optimizers = build_optimizers(model, config())
    loader = build_train_loader(
        Shapes(num_images=9, size=32), batch_size=4, num_workers=0, seed=0, rank=rank, world_size=world_size
    )
    for step, batch in zip(range(3), loader, strict=False):
        model.train_step(batch, optimizers, StepRandomness(0, step))
    evaluators = [build(each) for each in config().evaluators]
    model.eval()
    data = Shapes(num_images=7, size=32, seed=1)
    loader = build_eval_loader(data, batch_size=2, num_workers=0, rank=rank, world_size=world_size)
    metrics = run_evaluators(evaluators, map(model.val_step, loader), len(data))
    return model.state_dict(), merge_metrics(metrics)


def process(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    torch.save(work(rank, 2), f'{folder}/{rank}.pth')
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f'{rank}.pth') for rank in range(2)]


def test_both_processes_have_the_same_weights_and_metrics(two):
    (weights, metrics), (other_weights, other_metrics) = two
    assert metrics == other_metrics
    for name, value in weights.items():
        assert torch.equal(value, other_weights[name]), name


def test_two_processes_equal_one(two):
    weights, metrics = work(0, 1)
    for name, value in weights.items():
        torch.testing.assert_close(
            two[0][0][name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )
    assert two[0][1] == pytest.approx(metrics, rel=1e-4)
