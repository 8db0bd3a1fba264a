"""Activation checkpointing of autoencoders: the same bits, a fraction of the memory, weights' names unchanged."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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


class Live(TorchDispatchMode):
    """Count the bytes of all tensors that operations make, as long as they live."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            storage = each.untyped_storage() if isinstance(each, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())
        return out

    def free(self, key, size):
        self.known.discard(key)
        self.now -= size


def peak(network):
    with Live() as live:
        network.decode_latents(network.encode(torch.zeros(1, 3, 64, 64)).mean).mean().backward()
    return live.peak


def test_memory_is_a_fraction():
    """Of SD-VAE at 256 pixels 0.40 of 2.5 GiB, weights included (docs/training.md)."""
    plain, recomputed = (KLAutoencoder(4, (16, 32, 32), norm_num_groups=8) for _ in range(2))
    recompute_blocks(recomputed)
    assert 0.2 < peak(recomputed) / peak(plain) < 0.45


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
