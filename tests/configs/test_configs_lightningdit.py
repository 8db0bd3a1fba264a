"""LightningDiT's configs: the settings of its own configs, parts that fit, and names that its weights have."""

import ast
from pathlib import Path

import pytest
import torch

from eqzoo.config import load_config
from eqzoo.engine.preflight import missing
from eqzoo.registry import build

LEAVES = sorted(str(path) for path in Path('configs/lightningdit').glob('*.py'))
# Size, batch, steps, learning rate, guidance and its first time in LightningDiT's count, FID to reach.
ROWS = {
    'lightningdit_xl1_vavae': ('XL', 1024, 80_000, 2e-4, 10.0, 0.10, 'FID 2.11'),
    'lightningdit_xl1_64ep_published': ('XL', 1024, 80_000, 2e-4, 10.0, 0.10, 'FID 2.11'),
    'lightningdit_xl1_800ep_published': ('XL', 1024, 1_000_000, 2e-4, 6.7, 0.125, 'FID 1.35'),
    'lightningdit_b1_vavae': ('B', 256, 100_000, 1e-4, 10.0, 0.10, 'No published number'),
}


def test_there_is_a_row_for_each_config():
    assert sorted(Path(leaf).stem for leaf in LEAVES) == sorted([*ROWS, 'lightningdit_tiny_shapes'])


@pytest.mark.parametrize('name', ROWS)
def test_settings_are_those_of_its_own_configs(name):
    path = f'configs/lightningdit/{name}.py'
    config = load_config(path)
    size, batch, steps, rate, scale, start, said = ROWS[name]
    optimizer, generator = config.optim_wrapper.generator.optimizer, config.model.generator
    assert (generator.network.size, config.train_dataloader.batch_size, config.train_cfg.max_iters) == (
        size,
        batch,
        steps,
    )
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (rate, (0.9, 0.95), 0.0)
    assert config.custom_hooks.ema.decay == 0.9999
    process = generator.process
    assert (process.network_time, process.time_sampling, process.direction_weight) == (
        'noise_to_data',
        'lognormal',
        1.0,
    )
    sampler = config.sampling.sampler
    assert (sampler.type, sampler.method, sampler.steps, sampler.shift) == ('ShiftedODE', 'euler', 249, 1 / 0.3)
    assert (sampler.guidance.scale, sampler.guidance.channels) == (scale, 3)
    assert sampler.guidance.interval == pytest.approx((0.0, 1 - start))
    assert said in ast.get_docstring(ast.parse(Path(path).read_text()))


@pytest.mark.parametrize('leaf', LEAVES)
def test_a_configs_parts_exist_and_fit(leaf):
    config = load_config(leaf)
    missing(config)  # names and arguments
    model = config.model.to_dict()
    model['autoencoder']['weights'] = model['generator']['network']['weights'] = None
    with torch.device('meta'):
        generator, autoencoder = build(model['generator']), build(model['autoencoder'])
    side = 64 if 'shapes' in leaf else config.cache_dataloader.dataset.size
    assert generator.latent_shape == (autoencoder.latent_channels, *autoencoder.grid(side, side))
    for sampler in (config.sampling.sampler, config.custom_hooks.samples.sampler):
        build(sampler).check(generator)
    if 'xl1' in leaf:
        assert sum(parameter.numel() for parameter in generator.parameters()) == 675_256_736
        assert len(generator.network.state_dict()) == 351
