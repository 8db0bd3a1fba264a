"""Evaluators in two processes: the numbers of one, whoever saw the images, and errors instead of waiting."""

import datetime
import json
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from averages import Averages
from torch import nn

from eqzoo.data import Shapes
from eqzoo.engine.references import make_reference
from eqzoo.evaluators import (
    AutoencoderView,
    EffectiveRank,
    EquivarianceError,
    Evaluator,
    InterpolationFrechet,
    LatentSpectrum,
    LatentStatistics,
    NeighborConsistency,
    ReconstructionFrechet,
    ReconstructionMetric,
    ReconstructionSlicedWasserstein,
    SpatialStructure,
    VelocityVariance,
)
from eqzoo.evaluators.latent_frechet import LatentReferenceMoments
from eqzoo.evaluators.reference import read_reference


class Normalization(nn.Module):
    def denormalize(self, z):
        return z


class Pooling(nn.Module):
    """Cells are means; a decoded image repeats them."""

    normalization = Normalization()
    last_layer = torch.zeros(1)  # its device is the autoencoder's

    def latents(self, images):
        return F.avg_pool2d(images.double(), 4) * torch.tensor([1.0, 0.5, 2.0])[:, None, None]

    def decode(self, z):
        return F.interpolate(z, scale_factor=4)


class FirstPixels(Evaluator):
    """Keeps a pixel of each image; the last image is shown twice, as padded loaders do."""

    def update(self, view):
        self.keep('pixel', view.images[:, 0, 0, 0], view.numbers)
        self.keep('pixel', view.images[-1:, 0, 0, 0], view.numbers[-1:])

    def compute(self, sums):
        return {f'pixel {number}': value.item() for number, value in enumerate(self.kept['pixel'])}


IMAGES = torch.randn(7, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-1, 1)
LABELS = torch.tensor([0, 1, 0, 0, 1, 0, 1])
ORDER = torch.tensor([5, 2, 0, 6, 3, 1, 4])
# how many images each of the two processes sees
SHARES = {'uneven': (5, 2), 'first only': (7, 0), 'second only': (0, 7), 'none': (0, 0)}


def measure(numbers):
    evaluators = [
        ReconstructionMetric(),
        EquivarianceError(image_side=True),
        LatentStatistics(),
        LatentSpectrum(),
        InterpolationFrechet(Averages(), min_images=2, neighbors=3),
        InterpolationFrechet(Averages(), min_images=2, neighbors=1, position=0.7, reference=Shapes(9, 16)),
        EffectiveRank(),
        NeighborConsistency((2,)),
        SpatialStructure(),
        VelocityVariance(),
        FirstPixels(),
        LatentReferenceMoments((3, 4, 4)),
        ReconstructionFrechet(Averages(), min_images=2),
        ReconstructionSlicedWasserstein(),
    ]
    for evaluator in evaluators:
        evaluator.check(len(IMAGES))
    for batch in numbers.split(3) if len(numbers) else ():
        for evaluator in evaluators:
            evaluator.process(AutoencoderView(Pooling(), IMAGES[batch], batch, LABELS[batch]))
    metrics = {}
    for number, evaluator in enumerate(evaluators):
        metrics |= {f'{number} {name}': value for name, value in evaluator.evaluate(len(IMAGES)).items()}
    moments = next(each for each in evaluators if isinstance(each, LatentReferenceMoments))
    metrics |= {'latents': moments.num_images}
    for name, gaussian in moments.gaussians.items():
        metrics |= {f'{name} mean': gaussian.mean.norm().item(), f'{name} spread': gaussian.covariance.norm().item()}
    return {'metrics': metrics, 'cases': evaluators[1].card()['cases']}


def measure_reconstructions(file):
    """Measure the reconstructions of seven pictures into a file."""
    make_reference(Shapes(7, 16), Averages(), file, loading=(4, 0), autoencoder=Pooling())


def process(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=30),  # a process left waiting fails the test
    )
    results = {}
    for name, shares in SHARES.items():
        try:
            start = sum(shares[:rank])
            results[name] = measure(ORDER[start : start + shares[rank]])
        except ValueError as error:
            results[name] = str(error)
    measure_reconstructions(folder / 'reconstructions.npz')
    (folder / f'{rank}.json').write_text(json.dumps(results))
    dist.barrier()
    os._exit(0)  # gloo's threads: torch 2.6 may hang in destroy_process_group, 2.15 abort without it


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.spawn(process, (port, folder), nprocs=2)
    results = [json.loads((folder / f'{rank}.json').read_text()) for rank in range(2)]
    return [*results, folder / 'reconstructions.npz']


@pytest.mark.parametrize('shares', ['uneven', 'first only', 'second only'])
def test_two_processes_equal_one(two, shares):
    one = measure(ORDER)
    for results in two[:2]:
        assert results[shares]['metrics'] == pytest.approx(one['metrics'], rel=1e-12)
        assert results[shares]['cases'] == one['cases']
    assert two[0][shares] == two[1][shares]


def test_no_image_anywhere_is_an_error_in_both(two):
    for results in two[:2]:
        assert results['none'] == 'ReconstructionMetric saw none of the 7 images; is every one unreadable?'


def test_kept_rows_come_back_once_in_the_order_of_the_data_set(two):
    wanted = {f'pixel {number}': image[0, 0, 0].item() for number, image in enumerate(IMAGES)}
    given = {name.partition(' ')[2]: value for name, value in two[1]['uneven']['metrics'].items()}
    assert {name: value for name, value in given.items() if name.startswith('pixel')} == wanted


def test_reconstructions_of_two_processes_are_those_of_one(two, tmp_path):
    measure_reconstructions(tmp_path / 'one.npz')
    shared, one = (read_reference(path) for path in (two[2], tmp_path / 'one.npz'))
    assert shared.meta == one.meta
    assert shared.num_images == 7
    torch.testing.assert_close(shared.pooled.mean, one.pooled.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(shared.pooled.covariance, one.pooled.covariance, rtol=1e-9, atol=1e-9)
