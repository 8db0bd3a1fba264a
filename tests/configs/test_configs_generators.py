"""Generators' configs: every row of EQ-VAE's tables, and parts that fit before anything is downloaded."""

import ast
from pathlib import Path

import pytest
import torch

from eqzoo.config import load_config
from eqzoo.engine.preflight import missing
from eqzoo.registry import build

FOLDERS = ('dit', 'sit', 'repa', 'maskgit')
LEAVES = sorted(str(path) for folder in FOLDERS for path in Path('configs', folder).glob('*.py'))
IMAGENET = [leaf for leaf in LEAVES if 'shapes' not in leaf]
CODES = [leaf for leaf in IMAGENET if 'maskgit' in leaf]
LATENTS = [leaf for leaf in IMAGENET if leaf not in CODES]
IMAGES = 1_281_167  # ImageNet's for training

# Size, patch, latents, millions of steps, FID to reach: Table 1, Table 2, Table 4 and Table 10.
ROWS = {
    'dit/dit_b2_sd': ('B', 2, 4, 32, 0.4, '43.8'),
    'dit/dit_b2_sd_eq': ('B', 2, 4, 32, 0.4, '34.1'),
    'dit/dit_b2_sdxl': ('B', 2, 4, 32, 0.4, '46.0'),
    'dit/dit_b2_sdxl_eq': ('B', 2, 4, 32, 0.4, '35.9'),
    'dit/dit_b2_sd3': ('B', 2, 16, 32, 0.4, '58.9'),
    'dit/dit_b2_sd3_eq': ('B', 2, 16, 32, 0.4, '54.0'),
    'dit/dit_b1_sd16': ('B', 1, 16, 16, 0.4, '64.1'),
    'dit/dit_b1_sd16_eq': ('B', 1, 16, 16, 0.4, '49.7'),
    'dit/dit_b2_sd_ft_ema': ('B', 2, 4, 32, 0.4, '43.5'),
    'dit/dit_xl2_sd_ft_ema': ('XL', 2, 4, 32, 0.4, '19.5'),
    'dit/dit_xl2_sd_eq': ('XL', 2, 4, 32, 0.4, '14.5'),
    'dit/dit_xl2_sd_eq_1500k': ('XL', 2, 4, 32, 1.5, '2.37'),
    'dit/dit_xl2_published': ('XL', 2, 4, 32, 7, '2.27'),
    'sit/sit_b2_sd_ft_ema': ('B', 2, 4, 32, 0.4, '33.0'),
    'sit/sit_b2_sd_eq': ('B', 2, 4, 32, 0.4, '31.2'),
    'sit/sit_xl2_sd_ft_ema': ('XL', 2, 4, 32, 0.4, '17.2'),
    'sit/sit_xl2_sd_eq': ('XL', 2, 4, 32, 0.4, '16.1'),
    'sit/sit_xl2_published': ('XL', 2, 4, 32, 7, '2.06'),
    'sit/sit_s2_published': ('S', 2, 4, 32, 7, None),
    'repa/repa_xl2_sd_ft_ema': ('XL', 2, 4, 32, 0.4, '7.9'),
    'repa/repa_xl2_sd_eq': ('XL', 2, 4, 32, 0.4, '7.5'),
    'repa/repa_xl2_sd_eq_1m': ('XL', 2, 4, 32, 1, '1.70'),
    'repa/repa_xl2_published': ('XL', 2, 4, 32, 4, '1.42'),
}
# Codes a side, batch, epochs, FID to reach: Tables 1, 3 and 11, and arXiv 2310.14400.
CODE_ROWS = {
    'maskgit/maskgit_base_vqgan': (16, 256, 300, 'FID 6.80, IS 214.0'),
    'maskgit/maskgit_base_vqgan_130ep': (16, 256, 130, None),
    'maskgit/maskgit_base_vqgan_eq': (16, 256, 300, 'FID 5.91, IS 228.8'),
    'maskgit/maskgit_base_vqgan_eq_130ep': (16, 256, 130, 'FID 6.80, IS 188.1'),
    'maskgit/maskgit_base_vqgan_512': (32, 128, 75, 'FID 7.26, IS 223.1'),
    'maskgit/maskgit_base_vqgan_eq_512': (32, 128, 75, None),
    'maskgit/maskgit_base_published': (16, 256, 300, 'FID 6.80, IS 214.0'),
    'maskgit/maskgit_base_512_published': (32, 128, 75, 'FID 7.26, IS 223.1'),
}


def name_of(leaf):
    return str(Path(leaf).relative_to('configs').with_suffix(''))


def test_there_is_a_config_for_each_row_and_no_other():
    assert sorted(map(name_of, IMAGENET)) == sorted([*ROWS, *CODE_ROWS])


@pytest.mark.parametrize('leaf', LATENTS)
def test_a_config_is_the_row_that_its_name_says(leaf):
    config = load_config(leaf)
    size, patch, channels, side, millions, fid = ROWS[name_of(leaf)]
    network = config.model.generator.network
    assert (network.size, network.patch_size, network.latent_channels, network.latent_size) == (
        size,
        patch,
        channels,
        side,
    )
    assert config.train_cfg.max_iters == millions * 1e6
    said = ast.get_docstring(ast.parse(Path(leaf).read_text()))
    if fid is not None:
        assert f'FID {fid}' in said
    guidance = config.sampling.sampler.guidance
    assert (guidance is None) == ('without guidance.' in said)


@pytest.mark.parametrize('leaf', CODES)
def test_a_config_of_codes_is_the_row_that_its_name_says(leaf):
    config = load_config(leaf)
    grid, batch, epochs, number = CODE_ROWS[name_of(leaf)]
    assert (config.model.generator.network.grid, config.train_dataloader.batch_size) == (grid, batch)
    assert config.cache_dataloader.dataset.size == 16 * grid
    assert config.train_cfg.max_iters * batch / IMAGES == pytest.approx(epochs, rel=2e-3)
    said = ast.get_docstring(ast.parse(Path(leaf).read_text()))
    assert number is None or number in said
    sampler = config.sampling.sampler
    published = {16: (8, 3.0, 4.5), 32: (15, 2.8, 7.0)}  # arXiv 2310.14400, and EQ-VAE's paper after it
    assert (sampler.steps, sampler.guidance, sampler.gumbel_temperature) == published[grid]


@pytest.mark.parametrize('leaf', CODES)
def test_all_of_codes_train_as_the_release_does(leaf):
    config = load_config(leaf)
    generator, optimizer = config.model.generator, config.optim_wrapper.generator.optimizer
    assert (generator.schedule, generator.label_smoothing, generator.loss_on) == ('arccos', 0.1, 'all')
    assert (generator.network.size, generator.network.num_codes, generator.network.dropout) == ('base', 1024, 0.1)
    assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.weight_decay) == ('AdamW', 1e-4, (0.9, 0.96), 1e-5)
    assert config.optim_wrapper.generator.clip_grad == dict(max_norm=1.0)
    assert [each.end for each in config.param_scheduler] == [2500]
    assert config.train_dataloader.dataset.flip
    assert [*config.custom_hooks] == ['samples']  # no moving average
    assert config.sampling.num_samples == 50_000


@pytest.mark.parametrize('leaf', LATENTS)
def test_all_train_as_the_papers_do(leaf):
    config = load_config(leaf)
    assert config.train_dataloader.batch_size == 256
    optimizer = config.optim_wrapper.generator.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.0)
    assert config.custom_hooks.ema == dict(type='EMAHook', decay=0.9999)
    assert config.sampling.num_samples == 50_000
    assert config.cache_dataloader.dataset.crop == 'center'
    is_repa = config.model.generator.type == 'REPA'
    assert config.train_dataloader.dataset.flip is not is_repa
    assert config.optim_wrapper.generator.get('clip_grad') == (dict(max_norm=1.0) if is_repa else None)
    if is_repa:
        assert config.train_dataloader.dataset.images == config.cache_dataloader.dataset


@pytest.mark.parametrize('leaf', LEAVES)
def test_a_configs_parts_exist_and_fit(leaf):
    """What lacks are files alone; on no memory, the network is as large as the autoencoder's latents."""
    config = load_config(leaf)
    missing(config)  # names and arguments
    model = config.model.to_dict()
    model['autoencoder']['weights'] = model['generator']['network']['weights'] = None
    encoder = model['generator'].pop('encoder', None)
    with torch.device('meta'):
        generator, autoencoder = build(model['generator']), build(model['autoencoder'])
    side = config.cache_dataloader.dataset.size
    grid = autoencoder.grid(side, side)
    codes = generator.learns == 'codes'
    assert generator.latent_shape == (grid if codes else (autoencoder.latent_channels, *grid))
    assert not codes or generator.num_codes == autoencoder.num_codes
    for sampler in (config.sampling.sampler, config.custom_hooks.samples.sampler):
        build(sampler).check(generator)
    if encoder is not None:
        assert (encoder['size'], generator.network.grid) == ('b', 16)


def test_latents_of_different_autoencoders_are_different_stores():
    stores = {}
    for leaf in LEAVES:
        config = load_config(leaf)
        root = config.train_dataloader.dataset.root
        stores.setdefault(root, set()).add(repr(config.model.autoencoder) + str(config.get('cache_encoder')))
    assert all(len(autoencoders) == 1 for autoencoders in stores.values())
    assert len(stores) == 17


def test_lengths_in_epochs_are_the_papers():
    for leaf, epochs in (('dit_b2_sd', 80), ('dit_xl2_sd_eq_1500k', 300), ('dit_xl2_published', 1400)):
        config = load_config(f'configs/dit/{leaf}.py')
        assert config.train_cfg.max_iters * 256 / IMAGES == pytest.approx(epochs, rel=2e-3)


def test_published_networks_count_time_as_they_were_trained():
    times = {
        name: load_config(f'configs/{name}_published.py').model.generator.process
        for name in ('sit/sit_s2', 'repa/repa_xl2')
    }
    assert times['sit/sit_s2'].network_time == 'noise_to_data'
    assert 'network_time' not in times['repa/repa_xl2']  # from data to noise, as here
