"""Losses with their gradients, a few images at a time: the same values and gradients, in pieces of the given size."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from eqzoo.data import Shapes, collate
from eqzoo.engine import StepRandomness
from eqzoo.engine.runner import build_optimizers
from eqzoo.losses import L1, AdversarialLoss, DiffAug, PatchGAN, ReconstructionLoss
from eqzoo.losses.apart import with_gradients
from eqzoo.randomness import SampleStreams
from eqzoo.registry import build


@pytest.fixture
def images():
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Distance:
    """A perceptual loss that notes how many images it sees."""

    def __init__(self):
        self.network = nn.Conv2d(3, 4, 3).requires_grad_(False)
        self.seen = []

    def __call__(self, reconstruction, target):
        self.seen.append(len(reconstruction))
        return (self.network(reconstruction) - self.network(target)).square().mean(dim=(1, 2, 3))


def gradient_of(loss, images, *, factor=1.0):
    images = images.clone().requires_grad_()
    value = loss(images)
    (gradient,) = torch.autograd.grad(factor * value, images)
    return value.detach(), gradient


def assert_close(left, right):  # beside the largest, since batch norms subtract
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5 * float(other.abs().max()))


@pytest.mark.parametrize('size', [1, 2, 5, 8])
def test_values_and_gradients_are_those_of_the_whole(images, size):
    weights, scale = torch.rand(5), torch.rand(5, 1, 1, 1)

    def numbers(part_of_images, part):
        return (scale[part] * part_of_images.exp()).mean(dim=(1, 2, 3))

    whole = gradient_of(lambda x: (weights * numbers(x, slice(None))).sum(), images)
    pieces = gradient_of(lambda x: (weights * with_gradients(numbers, x, size)).sum(), images)
    assert_close(pieces, whole)


def test_nothing_but_the_gradient_is_kept(images):
    kept = []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with_gradients(lambda x, part: x.exp().sin().mean(dim=(1, 2, 3)), images.requires_grad_(), 5)
    assert kept[-1] == images.shape
    inside = kept[:-1]  # those of the function, whose graph is gone
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with_gradients(lambda x, part: x.exp().sin().mean(dim=(1, 2, 3)), images, 1)
    assert kept[-1] == images.shape
    assert len(kept) == 5 * len(inside) + 1


def test_without_gradients_only_values_are_computed(images):
    calls = []

    def numbers(piece, part):
        calls.append((part.start, torch.is_grad_enabled()))
        return piece.mean(dim=(1, 2, 3))

    torch.testing.assert_close(with_gradients(numbers, images, 2), images.mean(dim=(1, 2, 3)))
    with torch.no_grad():
        with_gradients(numbers, images.requires_grad_(), 3)
    assert calls == [(0, True), (2, True), (4, True), (0, False), (3, False)]


@pytest.mark.parametrize('size', [1, 2])
def test_the_reconstruction_loss_sees_few_images_at_a_time(images, size):
    distance, target = Distance(), images.flip(0)
    loss = ReconstructionLoss(L1(), distance)
    whole = gradient_of(lambda x: loss(x, target)[0], images, factor=0.3)
    loss.micro_batch_size, distance.seen = size, []
    assert_close(gradient_of(lambda x: loss(x, target)[0], images, factor=0.3), whole)
    assert distance.seen == [min(size, 5 - start) for start in range(0, 5, size)]


DISCRIMINATORS = {'PatchGAN': lambda: PatchGAN(num_layers=1, width=4), 'Conv2d': lambda: nn.Conv2d(3, 1, 4)}


@pytest.mark.parametrize('augments', [False, True])
@pytest.mark.parametrize('kind', DISCRIMINATORS)
def test_the_adversarial_loss_of_the_autoencoder(images, kind, augments):
    torch.manual_seed(0)
    loss = AdversarialLoss(
        DISCRIMINATORS[kind]().requires_grad_(False), adaptive=False, augmentation=DiffAug() if augments else None
    )

    def value(x):
        streams = SampleStreams(0, torch.arange(5)) if augments else None
        return loss.generator_loss(x, x.sum(), None, streams)[0]

    whole = gradient_of(value, images)
    loss.micro_batch_size = 2
    assert_close(gradient_of(value, images), whole)
    sizes = [part.stop - part.start for part in loss.micro_batches(5)]
    assert sizes == ([5] if kind == 'PatchGAN' else [2, 2, 1])  # PatchGAN's batch norms see the whole batch


def trained(kind, size, checkpointing=False):
    discriminator = dict(
        PatchGAN=dict(type='PatchGAN', num_layers=1, width=4),
        Conv2d=dict(type=nn.Conv2d, in_channels=3, out_channels=1, kernel_size=4),
    )[kind]
    sgd = dict(optimizer=dict(type='SGD', lr=1e-4))
    config = Config(
        dict(
            model=dict(
                type='AutoencoderTraining',
                autoencoder=dict(
                    type='KLAutoencoder', block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4
                ),
                objective=dict(type='Plain'),
                reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1'), micro_batch_size=size),
                adversarial_loss=dict(
                    type='AdversarialLoss',
                    discriminator=discriminator,
                    micro_batch_size=size,
                    augmentation=dict(type='DiffAug', policy=['translation']),
                    penalties=[dict(type='R1', weight=0.1), dict(type='LeCam', weight=0.1)],
                ),
                checkpointing=checkpointing,
            ),
            optim_wrapper=dict(autoencoder=sgd, discriminator=sgd),
        )
    )
    torch.manual_seed(0)
    model = build(config.model).train()
    model.reconstruction_loss.perceptual = Distance()
    optimizers, data = build_optimizers(model, config), Shapes(num_images=4, size=32)
    batch = collate([data[index] for index in range(4)])
    logs = [model.train_step(batch, optimizers, StepRandomness(0, step)) for step in range(3)]
    return {name: value.double() for name, value in model.state_dict().items()}, logs[-1]


@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('kind', DISCRIMINATORS)
def test_a_training_is_the_same_to_rounding(kind, checkpointing):
    weights, log = trained(kind, None)
    other, other_log = trained(kind, 1, checkpointing)
    for name, value in weights.items():
        torch.testing.assert_close(
            other[name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )
    assert {name: float(value) for name, value in other_log.items()} == pytest.approx(
        {name: float(value) for name, value in log.items()}, rel=1e-4, abs=1e-5
    )
