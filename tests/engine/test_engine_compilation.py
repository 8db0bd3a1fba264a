"""torch.compile: the same step, faster where a compiler is to be had."""

import copy

import pytest
import torch

from eqzoo.engine.training import compile_blocks
from eqzoo.registry import build, find_component

SHAPES = {
    'KLAutoencoder': dict(block_out_channels=(8, 8, 8)),
    'TinyAutoencoder': dict(num_blocks=(1, 1, 1)),
    'VQAutoencoder': dict(block_out_channels=(8, 8, 8), attention_levels=()),
}


@pytest.mark.slow  # the compiler takes a minute each
@pytest.mark.filterwarnings('default')  # Dynamo looks at .grad of what is no leaf, and torch warns of it
@pytest.mark.parametrize('name', ['KLAutoencoder', 'TinyAutoencoder', 'VQAutoencoder'])
def test_a_compiled_autoencoder_gives_the_same_images_and_gradients(name):
    eager = build(dict(type=name, **find_component(name).smoke(dict(SHAPES[name]))))
    compiled = copy.deepcopy(eager)
    compile_blocks(compiled.blocks())
    for size in (32, 16, 24):  # as scales come and go
        images = torch.randn(2, 3, size, size)
        outputs = []
        for model in (eager, compiled):
            reconstruction = model.decode(model.encode(images).mean)
            loss = reconstruction.square().sum()
            # the adaptive weight looks at the last layer before the backward pass
            (last,) = torch.autograd.grad(loss, model.last_layer, retain_graph=True)
            loss.backward()
            outputs.append((reconstruction.detach(), last, next(model.parameters()).grad.clone()))
            model.zero_grad()
        for one, other in zip(*outputs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert compiled.state_dict().keys() == eager.state_dict().keys()
