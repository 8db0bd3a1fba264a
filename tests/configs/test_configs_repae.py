"""REPA-E's configs: the release's recipe, and parts that fit before anything is downloaded."""

from pathlib import Path

import pytest
import torch

from eqzoo.config import load_config
from eqzoo.engine.preflight import missing
from eqzoo.registry import build

LEAVES = sorted(str(path) for path in Path('configs/repae').glob('*.py'))
RECIPES = {'repae_xl2_sd': (2, 4, 8, '4.07'), 'repae_xl1_vavae': (1, 32, 16, '4.05')}  # patch, channels, factor, FID


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_are_those_of_the_release(name):
    config = load_config(f'configs/repae/{name}.py')
    model, network = config.model, config.model.generator.network
    patch, channels, factor, fid = RECIPES[name]
    assert f'FID {fid} without guidance' in Path(config.filename).read_text()
    shape = network.patch_size, network.latent_channels, network.latent_size
    assert shape == (patch, channels, 256 // factor)
    assert (network.size, network.tap, network.feature_dims) == ('XL', 8, (768,))
    assert (model.alignment_weight, model.generator.weight, model.momentum) == (1.5, 0.5, 0.1)
    assert (model.adversarial_loss.weight, model.adversarial_loss.adaptive) == (0.1, False)
    assert (model.reconstruction_loss.reduction, model.penalties[0].weight) == ('mean', 1e-6)
    assert (config.train_cfg.max_iters, config.train_dataloader.batch_size) == (400_000, 256)
    for wrapper in config.optim_wrapper.values():
        optimizer = wrapper.optimizer
        assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.weight_decay) == (
            'AdamW',
            1e-4,
            (0.9, 0.999),
            0.0,
        )
        assert wrapper.clip_grad == dict(max_norm=1.0)
    assert config.custom_hooks.ema == dict(type='EMAHook', decay=0.9999)
    assert config.sampling.sampler == dict(type='SDE', steps=250, guidance=None)


@pytest.mark.parametrize('leaf', LEAVES)
def test_a_configs_parts_exist_and_fit(leaf):
    config = load_config(leaf)
    missing(config)  # names and arguments
    model, side = config.model.to_dict(), config.train_dataloader.dataset.size
    model['autoencoder']['weights'] = model['generator']['network']['weights'] = None
    encoder = model['generator'].pop('encoder')
    with torch.device('meta'):
        generator, autoencoder = build(model['generator']), build(model['autoencoder'])
    assert generator.latent_shape == (autoencoder.latent_channels, *autoencoder.grid(side, side))
    assert generator.network.grid == (encoder['size'] // encoder['stride'] if 'stride' in encoder else 16)
    for sampler in (config.sampling.sampler, config.custom_hooks.samples.sampler):
        build(sampler).check(generator)
