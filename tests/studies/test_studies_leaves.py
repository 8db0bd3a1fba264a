"""Configs of studies: each trains, and both sizes differ only in data and lengths."""

from pathlib import Path

import pytest
import torch

from eqzoo.commands.train import train
from eqzoo.config import load_config
from eqzoo.engine import latest_checkpoint, read_checkpoint
from eqzoo.engine.preflight import missing

NAMES = sorted(path.stem for path in Path('configs/studies/shapes').glob('*.py'))


def test_both_sizes_have_the_same_configs():
    assert sorted(path.stem for path in Path('configs/studies/cifar10').glob('*.py')) == NAMES


@pytest.mark.parametrize('size', ['shapes', 'cifar10'])
@pytest.mark.parametrize('name', NAMES)
def test_each_config_trains_in_smoke(name, size, tmp_path):
    train(f'configs/studies/{size}/{name}.py', overrides=[f'work_dir={tmp_path}'], smoke=True)
    checkpoint = read_checkpoint(latest_checkpoint(tmp_path))
    assert checkpoint['meta']['iter'] == 4
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())


@pytest.mark.parametrize('name', NAMES)
def test_the_large_size_has_the_same_network_and_lacks_only_its_images(name, tmp_path, monkeypatch):
    shapes, cifar10 = (load_config(f'configs/studies/{size}/{name}.py') for size in ('shapes', 'cifar10'))
    assert shapes.model == cifar10.model
    assert shapes.train_cfg.max_iters < cifar10.train_cfg.max_iters
    monkeypatch.chdir(tmp_path)  # a folder without data/, which the checkout may have
    lacks = {requirement.what for _, requirement in missing(cifar10)}
    assert lacks
    assert all(each == 'latent store' or 'images' in each for each in lacks), lacks
