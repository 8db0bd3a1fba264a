"""Activation checkpointing of autoencoders: the same bits, a fraction of the memory, weights' names unchanged."""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder, VQAutoencoder
from eqzoo.data import Shapes, collate
from eqzoo.engine.runner import build_optimizers
from eqzoo.engine.training import compile_blocks, recompute_blocks
from eqzoo.randomness import StepRandomness
from eqzoo.registry import build

AUTOENCODERS = {
    'KL': dict(type='KLAutoencoder', block_out_channels=(16, 32), norm_num_groups=8, padding_mode='reflect'),
    'VQ': dict(
        type='VQAutoencoder', latent_channels=8, num_codes=16, block_out_channels=(16, 32), norm_num_groups=8,
        attention_levels=(1,),
    ),
    'tiny': dict(type='TinyAutoencoder', num_blocks=(1, 2, 2), width=16, pooled=True),
}  # fmt: skip


def make(autoencoder, *, checkpointing):
    from mmengine.config import Config

    sgd = dict(optimizer=dict(type='SGD', lr=1e-4))
    config = Config(
        dict(
            model=dict(
                type='AutoencoderTraining',
                autoencoder=autoencoder,
                objective=dict(type='Plain'),
                reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
                # with an adaptive weight, which differentiates the graph twice
                adversarial_loss=dict(
                    type='AdversarialLoss', discriminator=dict(type='PatchGAN', num_layers=1, width=4)
                ),
                checkpointing=checkpointing,
            ),
            optim_wrapper=dict(autoencoder=sgd, discriminator=sgd),
        )
    )
    torch.manual_seed(0)
    model = build(config.model).train()
    return model, build_optimizers(model, config)


@pytest.fixture
def batch():
    data = Shapes(num_images=2, size=32)
    return collate([data[index] for index in range(2)])


@pytest.mark.parametrize('kind', AUTOENCODERS)
def test_steps_have_the_same_bits(kind, batch, assert_same):
    states, logs = [], []
    for checkpointing in (False, True):
        model, optimizers = make(AUTOENCODERS[kind], checkpointing=checkpointing)
        logs.append([model.train_step(batch, optimizers, StepRandomness(0, step)) for step in range(2)][1])
        states.append(dict(model.state_dict()))
    assert_same(*logs)
    assert_same(*states)


def peak(network, size):
    """The most memory that weights, gradients and activations have in a step, counted by torch; nothing is computed."""
    tracker = MemTracker()
    tracker.track_external(network)
    images = torch.zeros(1, 3, size, size)
    with tracker:
        network.decode_latents(network.encode(images).mean).mean().backward()
    return tracker.get_tracker_snapshot('peak')[torch.device('cpu')]['Total']


def test_memory_is_a_fraction():
    """SD-VAE at 256 pixels: two sevenths, a fifth of it weights and their gradients."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        plain = KLAutoencoder(4)
        recomputed = KLAutoencoder(4)
        recompute_blocks(recomputed)
        ratio = peak(recomputed, 256) / peak(plain, 256)
    assert 0.1 < ratio < 0.45


def test_copies_recompute_their_own_weights(batch):
    network = KLAutoencoder(4, (16, 32), norm_num_groups=8)
    recompute_blocks(network)
    other = copy.deepcopy(network)
    images = torch.rand(1, 3, 16, 16)
    expected = network.decode(network.encode(images).mean)
    expected.sum().backward()
    assert all(each.grad is not None for each in network.parameters())
    assert all(each.grad is None for each in other.parameters())
    with torch.no_grad():
        for each in network.parameters():
            each.zero_()
    torch.testing.assert_close(other.decode(other.encode(images).mean), expected, rtol=0, atol=0)


@pytest.mark.filterwarnings('ignore')  # of torch's compiler
def test_compiled_blocks_recompute_too():
    torch._dynamo.reset()
    network = KLAutoencoder(4, (8, 8), norm_num_groups=4, layers_per_block=1)
    images = torch.rand(1, 3, 16, 16)
    network.decode(network.encode(images).mean).sum().backward()
    expected = [each.grad.clone() for each in network.parameters()]
    network.zero_grad()
    recompute_blocks(network)
    compile_blocks(network.blocks(), backend='eager')
    network.decode(network.encode(images).mean).sum().backward()
    for each, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(each.grad, gradient, rtol=1e-5, atol=1e-6)


def test_what_has_no_such_blocks_is_refused():
    with pytest.raises(ValueError, match='checkpointing: Conv2d has no block of the kinds ResnetBlock2D'):
        recompute_blocks(nn.Conv2d(1, 1, 1))
    for network in (VQAutoencoder(8, 16, (16, 32), norm_num_groups=8, attention_levels=()), TinyAutoencoder(width=8)):
        recompute_blocks(network)
