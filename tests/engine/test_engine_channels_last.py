"""`model.channels_last`: the same training to rounding, with usual checkpoints."""

import pytest
import torch
from torch import nn

from eqzoo.config import load_config
from eqzoo.engine import build_runner, latest_checkpoint, shrink
from eqzoo.engine.autoencoder_training import put_channels_last
from eqzoo.engine.checkpoints import read_checkpoint


def trained(folder, *, steps, channels_last, resume=False):
    config = shrink(load_config('configs/demo/rot_scale.py', [f'work_dir={folder}', 'visualizer=none']))
    config.custom_hooks = dict(EMAHook=dict(type='EMAHook', decay=0.9))
    config.val_dataloader = None
    config.train_cfg.max_iters = steps
    config.default_hooks.checkpoint.update(interval=steps, save_best=None)
    config.model.channels_last = channels_last
    runner = build_runner(config, resume=resume)
    runner.train()
    return runner.model, read_checkpoint(latest_checkpoint(config.work_dir))


def tensors(value):
    if torch.is_tensor(value):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [found for each in values for found in tensors(each)]


def distance(left, right):
    """Return ‖left − right‖ / ‖right‖ of all weights."""
    left, right = (torch.cat([each.double().flatten() for each in tensors(state)]) for state in (left, right))
    return float((left - right).norm() / right.norm())


@pytest.fixture
def runs(tmp_path):
    return {last: trained(tmp_path / f'{last}', steps=4, channels_last=last) for last in (False, True)}


def test_it_trains_the_same_to_rounding(runs):
    (plain, usual), (model, saved) = runs[False], runs[True]
    weight = model.autoencoder.encoder.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert not plain.autoencoder.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    # Adam's first steps are as long for a gradient of rounding errors as for any other
    assert 0 < distance(saved['state_dict'], usual['state_dict']) < 1e-3  # other kernels have computed them


def test_checkpoints_have_the_usual_order(runs):
    for key in ('state_dict', 'ema_state_dict', 'optimizer'):
        assert all(each.is_contiguous() for each in tensors(runs[True][1][key])), key


def test_a_resumed_run_has_the_same_bits(runs, tmp_path, assert_same):
    """States of the fused optimizer are laid out as the weights are, which its kernel takes for granted."""
    trained(tmp_path / 'parts', steps=2, channels_last=True)
    _, saved = trained(tmp_path / 'parts', steps=4, channels_last=True, resume=True)
    for key in ('state_dict', 'ema_state_dict', 'optimizer'):
        assert_same(saved[key], runs[True][1][key], key)


def test_a_run_may_go_on_in_the_other_order(runs, tmp_path):
    trained(tmp_path / 'parts', steps=2, channels_last=False)
    _, saved = trained(tmp_path / 'parts', steps=4, channels_last=True, resume=True)
    assert distance(saved['state_dict'], runs[False][1]['state_dict']) < 1e-3


def test_kernels_of_three_dimensions_stay_as_they_are():
    network = nn.Sequential(nn.Conv3d(2, 2, 3), nn.Conv2d(2, 2, 3))
    before = [each.detach().clone() for each in network.parameters()]
    put_channels_last(network)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert network[0].weight.is_contiguous()
    assert network[1].weight.is_contiguous(memory_format=torch.channels_last)
