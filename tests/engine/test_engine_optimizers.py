"""Muon with AdamW against torch's optimizers, the split of parameters, 8-bit Adam, and exact resume with each."""

import importlib.util
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import CosineAnnealingLR
from torch import nn

from eqzoo import schema
from eqzoo.config import load_config
from eqzoo.engine import MuonAdamW, build_runner, read_checkpoint, shrink
from eqzoo.engine.optimizers import equalize_singular_values, learning_rate
from eqzoo.engine.runner import build_optimizers
from eqzoo.registry import build
from eqzoo.schema import check_foreign

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, 'Muon'), reason='torch.optim.Muon came with torch 2.9')


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def steps(optimizer, parameters, count=4):
    for step in range(count):
        for number, each in enumerate(parameters):
            each.grad = randn(*each.shape, seed=100 * step + number)
        optimizer.step()
    return [each.detach().clone() for each in parameters]


@needs_muon
@pytest.mark.parametrize('shape', [(32, 48), (48, 32), (24, 16, 3, 3)])
def test_a_matrix_moves_as_with_torchs_muon_and_a_kernel_as_its_matrix(shape):
    ours = nn.Parameter(randn(*shape))
    matrix = nn.Parameter(ours.detach().flatten(1).clone())
    options = dict(lr=0.01, weight_decay=0.1)
    theirs = torch.optim.Muon([matrix], momentum=0.9, adjust_lr_fn='match_rms_adamw', **options)
    optimizer = MuonAdamW([ours], momentum=0.9, **options)
    for step in range(4):
        ours.grad = randn(*shape, seed=step)
        matrix.grad = ours.grad.flatten(1).clone()
        optimizer.step()
        theirs.step()
    assert torch.equal(ours.flatten(1), matrix)


def test_the_rest_moves_as_with_torchs_adamw():
    parameters = [nn.Parameter(randn(*shape)) for shape in ((7,), (16, 3, 3, 3), (8, 32, 1, 1), (16, 1, 7, 7))]
    copies = [nn.Parameter(each.detach().clone()) for each in parameters]
    options = dict(lr=0.01, betas=(0.5, 0.9), eps=1e-6, weight_decay=0.1)
    ours = steps(MuonAdamW(parameters, **options), parameters)
    theirs = steps(torch.optim.AdamW(copies, **options), copies)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_singular_values_become_nearly_equal_and_vectors_stay():
    matrix = (randn(40, 24) @ torch.diag(torch.logspace(0, -1, 24)) @ randn(24, 24, seed=1)).double()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    out = equalize_singular_values(matrix, 10).double()
    values = torch.linalg.svdvals(out)
    assert values.max() < 1.3
    assert values.min() > 0.6
    # what is left in the singular vectors' own axes is diagonal
    axes = u.T @ out @ v.T
    assert (axes - torch.diag(axes.diag())).abs().max() < 0.05


def test_weights_of_an_autoencoder_are_split_by_what_they_are():
    config = Config(
        dict(
            model=dict(
                type='AutoencoderTraining',
                autoencoder=dict(
                    type='VQAutoencoder',
                    latent_channels=16,
                    num_codes=64,
                    block_out_channels=(16, 32),
                    layers_per_block=1,
                    attention_levels=(),
                    norm_num_groups=4,
                ),
                objective=dict(type='Plain'),
                reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
                encoder_rate=0.5,
            ),
            optim_wrapper=dict(autoencoder=dict(optimizer=dict(type='MuonAdamW', lr=1e-3))),
        )
    )
    model = build(config.model)
    optimizer = build_optimizers(model, config)['autoencoder'].optimizer
    name_of = {each: name for name, each in model.autoencoder.named_parameters()}
    by_muon = {name_of[each] for group in optimizer.param_groups if group['is_muon'] for each in group['params']}
    expected = {
        name
        for name, module in model.autoencoder.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name not in ('encoder.conv_in', 'decoder.conv_out')
    }
    assert by_muon == {f'{name}.weight' for name in expected}
    others = {name_of[each] for group in optimizer.param_groups if not group['is_muon'] for each in group['params']}
    assert by_muon | others == set(name_of.values())
    assert 'quantize.embedding.weight' in others
    rates = {(group['is_muon'], group['lr']) for group in optimizer.param_groups}
    assert rates == {(True, 1e-3), (True, 5e-4), (False, 1e-3), (False, 5e-4)}


def run(folder, optimizer, *, resume=False):
    words = ['val_dataloader=none', 'default_hooks.checkpoint.save_best=none', 'visualizer=none', 'custom_hooks={}']
    config = shrink(load_config('configs/demo/plain.py', [f'work_dir={folder}', *words]))
    config.model.autoencoder.update(block_out_channels=(16, 32, 32))  # kernels that are large enough
    config.optim_wrapper.autoencoder.optimizer = optimizer
    build_runner(config, resume=resume).train()
    return read_checkpoint(folder / 'iter_4.pth')


@pytest.mark.parametrize('kind', ['MuonAdamW', 'AdamW8bit', 'Lion8bit'])
def test_a_resumed_run_has_the_same_bits(kind, tmp_path, assert_same):
    if kind.endswith('8bit'):
        pytest.importorskip('bitsandbytes')
    optimizer = dict(type=kind, lr=1e-3, weight_decay=0.01)
    whole = run(tmp_path, optimizer)
    (tmp_path / 'iter_4.pth').unlink()
    resumed = run(tmp_path, optimizer, resume=True)
    for part in ('state_dict', 'optimizer'):
        assert_same(resumed[part], whole[part], part)
    states = whole['optimizer']['autoencoder']['state'].values()
    if kind == 'MuonAdamW':
        assert {'momentum_buffer', 'exp_avg'} == {next(iter(each.keys() - {'step', 'exp_avg_sq'})) for each in states}
    else:
        assert torch.uint8 in set(dtypes(list(states)))


def dtypes(value):
    if isinstance(value, torch.Tensor):
        yield value.dtype
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from dtypes(each)


def test_rare_optimizers_are_imported_for_their_names_only():
    """By a fresh process: mmengine, which imports them with its own, does not find them until one is asked for."""
    pytest.importorskip('bitsandbytes')
    script = """
import sys
from eqzoo.registry import OPTIMIZERS, component_of
adam = component_of(OPTIMIZERS, 'AdamW').__module__
print(adam, 'bitsandbytes' in sys.modules)
rare = [component_of(OPTIMIZERS, name) for name in ('AdamW8bit', 'PagedAdamW', 'bnb_Adam', 'Lion')]
print(*[each.__module__.split('.')[0] for each in rare], component_of(OPTIMIZERS, 'AdamW').__module__ == adam)
"""
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=300, check=True)
    assert result.stdout.splitlines() == ['torch.optim.adamw False', ' '.join(['bitsandbytes'] * 4) + ' True']


def test_8bit_adam_is_adam_to_the_precision_of_its_states():
    bitsandbytes = pytest.importorskip('bitsandbytes')
    large = nn.Parameter(randn(64, 128))
    copy = nn.Parameter(large.detach().clone())
    start = large.detach().clone()
    (ours,) = steps(bitsandbytes.optim.AdamW8bit([large], lr=0.01, weight_decay=0.1), [large], 8)
    (theirs,) = steps(torch.optim.AdamW([copy], lr=0.01, weight_decay=0.1), [copy], 8)
    assert (ours - theirs).norm() < 0.05 * (theirs - start).norm()


def test_a_missing_package_is_one_message(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(schema, 'find_spec', lambda name: None if name == 'bitsandbytes' else real(name))
    for name in ('AdamW8bit', 'PagedAdamW', 'bnb_Adam'):
        config = dict(optim_wrapper=dict(autoencoder=dict(optimizer=dict(type=name, lr=1e-3))))
        with pytest.raises(ValueError, match=rf"{name} is of bitsandbytes, .*pip install 'eqzoo\[8bit\]'"):
            check_foreign(config)


def test_optimizers_of_torch_are_found_by_name_and_unfit_ones_are_refused():
    classes = [each for each in vars(torch.optim).values() if isinstance(each, type)]
    names = {each.__name__ for each in classes if issubclass(each, torch.optim.Optimizer)}
    for name in names - schema._UNFIT.keys() - {'Optimizer'}:
        # transformers has one of this name, if it is installed
        known = 'TorchAdafactor' if name == 'Adafactor' else name
        check_foreign(dict(optim_wrapper=dict(autoencoder=dict(optimizer=dict(type=known, lr=1e-3)))))
    assert {'SGD', 'AdamW', 'Adafactor', 'RMSprop'} <= names
    for name, message in (('LBFGS', 'expected AdamW'), ('Muon', 'matrices alone.*expected MuonAdamW')):
        if hasattr(torch.optim, name):
            with pytest.raises(ValueError, match=message):
                check_foreign(dict(optim_wrapper=dict(autoencoder=dict(optimizer=dict(type=name, lr=1e-3)))))


class Halved(nn.Module):
    """Two weights, the first of which has half of the learning rate."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))

    def parameter_groups(self):
        return {'autoencoder': [self.first, self.second]}

    def rate_factors(self):
        return {self.first: 0.5}


def built(optimizer, **options):
    config = dict(optim_wrapper=dict(autoencoder=dict(optimizer=optimizer)), **options)
    return build_optimizers(Halved(), Config(config))['autoencoder'].optimizer


@pytest.mark.parametrize('kind', ['AdamW', torch.optim.AdamW])
def test_without_lr_the_rate_is_the_classs_default(kind):
    assert learning_rate(dict(type=kind)) == 1e-3
    assert {len(each['params'][0]): each['lr'] for each in built(dict(type=kind)).param_groups} == {2: 5e-4, 3: 1e-3}


def test_an_optimizer_without_a_rate_of_its_own_has_no_shares_of_it():
    class Free(torch.optim.SGD):
        def __init__(self, params, lr=None):
            super().__init__(params, lr=1.0)

    with pytest.raises(ValueError, match='Free.* has no learning rate .*encoder_rate.*; set its lr'):
        built(dict(type=Free))


@pytest.mark.parametrize('place', [lambda each: each, lambda each: [each], lambda each: dict(autoencoder=[each])])
@pytest.mark.parametrize('kind', ['CosineAnnealingLR', CosineAnnealingLR])
def test_a_floor_of_all_rates_is_refused_where_the_encoder_has_its_own(place, kind):
    message = 'CosineAnnealingLR.eta_min: 1e-05 would be the last .*encoder_rate.*expected eta_min_ratio'
    with pytest.raises(ValueError, match=message):
        built(dict(type='Adam', lr=1e-4), param_scheduler=place(dict(type=kind, eta_min=1e-5)))
    for floor in (dict(eta_min=0), dict(eta_min_ratio=0.1), {}):
        built(dict(type='Adam', lr=1e-4), param_scheduler=place(dict(type=kind, **floor)))
    # another optimizer's
    built(dict(type='Adam', lr=1e-4), param_scheduler=dict(discriminator=[dict(type=kind, eta_min=1e-5)]))


def test_schedules_count_steps_unless_they_say_otherwise(tmp_path):
    """Mmengine's default are epochs, of which a run has one: the learning rate would never change."""
    words = [
        'val_dataloader=none',
        'visualizer=none',
        'custom_hooks={}',
        'optim_wrapper.autoencoder.optimizer.lr=0.001',
    ]
    config = shrink(load_config('configs/demo/pretrain.py', [*words, f'work_dir={tmp_path}']))
    config.default_hooks.checkpoint.save_best = None
    config.param_scheduler = [dict(type='ExponentialLR', gamma=0.5)]
    build_runner(config).train()
    checkpoint = read_checkpoint(tmp_path / 'iter_4.pth')
    assert [each['by_epoch'] for each in checkpoint['param_schedulers']['autoencoder']] == [False]
    assert checkpoint['optimizer']['autoencoder']['param_groups'][0]['lr'] == pytest.approx(
        1e-3 / 2**3
    )  # the last step's


def test_arguments_out_of_range_and_shards_are_refused():
    with pytest.raises(ValueError, match=r'MuonAdamW.momentum must be in \[0, 1\), got 1'):
        MuonAdamW([nn.Parameter(randn(2))], momentum=1)
    shard = nn.Parameter(randn(20, 20))
    shard.full_tensor = lambda: shard
    with pytest.raises(ValueError, match='MuonAdamW needs whole matrices; set sharding=None'):
        MuonAdamW([shard])
