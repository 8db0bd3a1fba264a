"""torch.compile: the same step, faster where a compiler is to be had."""

import copy

import pytest
import torch

from eqzoo.config import load_config
from eqzoo.engine import build_runner, shrink
from eqzoo.engine.training import compile_blocks
from eqzoo.registry import build, find_component

SHAPES = {
    'KLAutoencoder': dict(block_out_channels=(8, 8, 8)),
    'TinyAutoencoder': dict(num_blocks=(1, 1, 1)),
    'VQAutoencoder': dict(block_out_channels=(8, 8, 8), attention_levels=()),
}


def test_a_training_compiles_its_blocks_and_nothing_else(tmp_path, monkeypatch):
    """Through mmengine's Runner, which on `compile` compiles the whole step as well; that crashed every autoencoder."""
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda function, **options: compiled.append((function, options)) or function)
    config = shrink(load_config('configs/demo/rot_scale.py', [f'work_dir={tmp_path}', 'visualizer=none']))
    config.custom_hooks, config.val_dataloader = {}, None
    config.train_cfg.max_iters = 1
    config.default_hooks.checkpoint.save_best = None
    config.compile = dict(backend='eager')
    runner = build_runner(config)
    runner.train()
    network = runner.model.autoencoder
    blocks = [network.encoder, network.decoder.mid_block, *network.decoder.up_blocks]
    assert [function.__self__ for function, _ in compiled] == blocks
    assert all(options == dict(backend='eager', dynamic=False) for _, options in compiled)


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
