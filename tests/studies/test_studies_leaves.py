"""Configs of studies: each trains, and both sizes differ only in data and lengths."""

from pathlib import Path

import pytest
import torch

from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.engine import latest_checkpoint, read_checkpoint
from eqzoo.engine.preflight import missing


def names_of(size):
    return sorted(path.stem for path in Path(f'configs/studies/{size}').glob('*.py'))


NAMES = names_of('shapes')
TWINS = {'cifar10': 'shapes', 'tiny_imagenet': 'clothing'}
CASES = [
    # a twin has the same model, as another test holds, and in a smoke run the same images
    pytest.param(name, size, marks=[pytest.mark.slow] if size in TWINS else [])
    for size in ('shapes', 'clothing', *TWINS)
    for name in names_of(size)
]


def test_both_sizes_have_the_same_configs():
    assert {size: names_of(size) for size in TWINS} == {size: names_of(twin) for size, twin in TWINS.items()}


@pytest.mark.parametrize(('name', 'size'), CASES)
def test_each_config_trains_in_smoke(name, size, tmp_path):
    train(f'configs/studies/{size}/{name}.py', overrides=[f'work_dir={tmp_path}'], smoke=True)
    checkpoint = read_checkpoint(latest_checkpoint(tmp_path))
    assert checkpoint['meta']['iter'] == 4
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())


@pytest.mark.parametrize('name', names_of('clothing'))
def test_both_sets_of_photographs_have_the_same_networks(name):
    clothing, tiny_imagenet = (
        load_config(f'configs/studies/{size}/{name}.py') for size in ('clothing', 'tiny_imagenet')
    )
    if 'generator' in clothing.model:
        classes = [config.model.generator.network.pop('num_classes') for config in (clothing, tiny_imagenet)]
        assert classes == [20, 40]
    assert clothing.model == tiny_imagenet.model
    assert clothing.get('phases') == tiny_imagenet.get('phases')
    assert clothing.train_cfg == tiny_imagenet.train_cfg


@pytest.mark.parametrize('name', NAMES)
def test_the_large_size_has_the_same_network_and_lacks_only_its_images(name, tmp_path, monkeypatch):
    shapes, cifar10 = (load_config(f'configs/studies/{size}/{name}.py') for size in ('shapes', 'cifar10'))
    assert shapes.model == cifar10.model
    assert shapes.train_cfg.max_iters < cifar10.train_cfg.max_iters
    monkeypatch.chdir(tmp_path)  # a folder without data/, which the checkout may have
    lacks = {requirement.what for _, requirement in missing(cifar10)}
    assert lacks
    assert all(each == 'latent store' or 'images' in each for each in lacks), lacks
