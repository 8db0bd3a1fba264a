"""The memory of a step: fake tensors against real ones, the rules of a GPU's autocast, states of optimizers."""

import re

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from mmengine.config import Config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from eqzoo.commands.train import train
from eqzoo.engine.memory import LiveTensors, autocast_of_gpu, optimizer_bytes, step_memory
from eqzoo.engine.runner import build_optimizers
from eqzoo.registry import OPTIMIZERS, build, component_of

WIDE = dict(type=nn.Conv2d, in_channels=3, out_channels=64, kernel_size=3)  # a discriminator without batch statistics
ADAM = dict(optimizer=dict(type='Adam', lr=1e-4, fused=True))


def autoencoder_config(**changes):
    model = dict(
        type='AutoencoderTraining',
        autoencoder=dict(type='KLAutoencoder', block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8),
        objective=dict(type='ImplicitEquivariance', transform=dict(type='Rotate')),
        reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1')),
        penalties=[dict(type='KLDivergence')],
        adversarial_loss=dict(type='AdversarialLoss', discriminator=dict(type='PatchGAN', num_layers=1, width=8)),
    )
    for key, value in changes.items():
        place = model
        *path, last = key.split('__')
        for name in path:
            place = place[name]
        place[last] = value
    return Config(dict(model=model, optim_wrapper=dict(autoencoder=ADAM, discriminator=ADAM)))


def generator_config(**changes):
    network = dict(type='DiffusionTransformer', size=(2, 32, 2), latent_size=8, num_classes=10, **changes)
    generator = dict(type='DiT', network=network, process=dict(type='GaussianDiffusion'))
    model = dict(
        type='GeneratorTraining',
        generator=generator,
        autoencoder=dict(type='KLAutoencoder', block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4),
    )
    hooks = dict(ema=dict(type='EMAHook', decay=0.9))
    return Config(dict(model=model, optim_wrapper=dict(generator=ADAM), custom_hooks=hooks))


CONFIGS = {
    'KL': autoencoder_config(),
    'checkpointing': autoencoder_config(checkpointing=True),
    'losses whole': autoencoder_config(adversarial_loss__discriminator=WIDE),
    'losses apart': autoencoder_config(adversarial_loss__discriminator=WIDE, adversarial_loss__micro_batch_size=1),
    'bf16': autoencoder_config(precision='bf16'),
    'stabilised': autoencoder_config(
        adversarial_loss__penalties=[dict(type='R1', every=4), dict(type='LeCam')],
        adversarial_loss__augmentation=dict(type='DiffAug'),
    ),
    'DiT': generator_config(),
    'DiT, checkpointing': generator_config(checkpointing=True),
}


def memory(config, batch_size=2, **options):
    return step_memory(build(config.model), config, (32, 32), batch_size, **options)


@pytest.mark.parametrize('name', CONFIGS)
def test_fake_tensors_are_as_many_bytes_as_real_ones(name):
    config = CONFIGS[name]
    fake, real = (memory(config, is_real=is_real) for is_real in (False, True))
    assert fake == real
    assert fake.peak == sum(fake.parts.values())


def test_nothing_of_the_model_changes():
    config = CONFIGS['KL']
    torch.manual_seed(0)
    model = build(config.model)
    before, state = torch.get_rng_state(), {key: value.clone() for key, value in model.state_dict().items()}
    step_memory(model, config, (32, 32))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert type(model).update is model.update.__func__


def test_weights_states_and_average_are_counted():
    config = CONFIGS['DiT']
    model = build(config.model)
    numbers = sum(each.numel() for each in model.generator.parameters() if each.requires_grad)
    of_buffers = sum(each.nbytes for each in model.generator.state_dict().values()) - 4 * sum(
        each.numel() for each in model.generator.parameters()
    )
    parts = step_memory(model, config).parts
    fixed = sum(4 * each.numel() for each in model.generator.parameters() if not each.requires_grad) + of_buffers
    assert parts['weights'] == parts['average'] == 4 * numbers + fixed
    assert 8 * numbers <= parts['optimizer'] < 8.1 * numbers  # two moments, and the number of steps of each tensor
    frozen = model._outside[0].state_dict().values()
    assert parts['frozen networks'] >= sum(each.nbytes for each in frozen)


def test_micro_batches_are_counted_closely():
    """Of an earlier micro-batch fake tensors keep an activation a little longer."""
    config = autoencoder_config(micro_batch_size=1)
    fake, real = (memory(config, is_real=is_real) for is_real in (False, True))
    assert real.peak <= fake.peak <= 1.03 * real.peak
    assert fake.peak < 0.8 * memory(CONFIGS['KL']).peak


@pytest.mark.parametrize(
    ('name', 'saving'), [('KL', 'checkpointing'), ('losses whole', 'losses apart'), ('DiT', 'DiT, checkpointing')]
)
def test_options_save_memory(name, saving):
    without, with_it = (memory(CONFIGS[each], 4).peak for each in (name, saving))
    assert with_it < without


@pytest.mark.parametrize('name', ['KL', 'checkpointing', 'DiT'])
def test_the_peak_is_a_line_over_the_batch(name):
    peaks = {size: memory(CONFIGS[name], size).peak for size in (8, 16, 32)}
    assert peaks[32] - peaks[16] == pytest.approx(2 * (peaks[16] - peaks[8]), rel=5e-3)


def test_activations_of_a_residual_block_follow_the_formula():
    """Kept are both norms' inputs and outputs and both convolutions' inputs: 3 maps of either width (docs/training.md)."""
    block, x = ResnetBlock2D(in_channels=16, out_channels=32, temb_channels=None, groups=8), torch.zeros(1, 16, 8, 8)
    x.requires_grad_()
    with LiveTensors() as live:
        before = torch.zeros_like(x)
        out = block(x, None)
        kept = live.now - before.nbytes - out.nbytes
    statistics = 2 * 2 * 8 * 4  # mean and deviation of 8 groups, of both norms
    assert kept == 4 * 8 * 8 * (2 * 16 + 3 * 32) + statistics  # x itself was there before


class Mixed(nn.Module):
    """What the losses and networks of a training call of the functions that autocast treats."""

    def __init__(self, device):
        super().__init__()
        with torch.device(device):
            self.first, self.block = (
                nn.Conv2d(3, 16, 3),
                ResnetBlock2D(in_channels=16, out_channels=16, temb_channels=None, groups=4),
            )
            self.norm, self.linear = nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x):
        maps = self.block(self.first(x), None)
        length = (maps**2).sum(dim=1, keepdim=True).sqrt()
        tokens = F.gelu(self.linear(self.norm((maps / length).flatten(2).mT)))
        attention = (tokens @ tokens.mT).softmax(dim=2) @ tokens
        return F.cosine_similarity(attention, tokens, dim=2).mean() + F.mse_loss(attention, tokens).exp()


def saved_by(device):
    """Return dtype and shape of everything that a forward pass keeps, in its order."""
    saved = []

    def note(tensor):
        saved.append((tensor.dtype, tuple(tensor.shape)))
        return tensor

    with FakeTensorMode(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network, x = Mixed(device), torch.zeros(2, 3, 16, 16, device=device)
        torch.set_autocast_dtype(device, torch.bfloat16)
        torch.set_autocast_enabled(device, True)
        try:
            if device == 'cpu':
                with autocast_of_gpu():
                    network(x)
            else:
                network(x)
        finally:
            torch.set_autocast_enabled(device, False)
            torch.clear_autocast_cache()
    return saved


def test_autocast_keeps_what_torchs_own_rules_for_gpus_keep():
    wanted = saved_by('cuda')  # fake tensors have a forward pass on devices that are not there
    assert {torch.bfloat16, torch.float32} <= {dtype for dtype, _ in wanted}
    assert sorted(map(str, saved_by('cpu'))) == sorted(map(str, wanted))


@pytest.mark.parametrize(
    'optimizer',
    [
        dict(type='Adam', lr=1e-3, fused=True),
        dict(type='AdamW', lr=1e-3, amsgrad=True),
        dict(type='SGD', lr=1e-3, momentum=0.9),
        dict(type='SGD', lr=1e-3),
        dict(type='MuonAdamW', lr=1e-3),
    ],
    ids=lambda each: f'{each["type"]}{len(each)}',
)
def test_states_are_those_of_the_optimizer(optimizer):
    config = autoencoder_config(adversarial_loss=None)
    config.optim_wrapper = dict(autoencoder=dict(optimizer=optimizer))
    model = build(config.model)
    wrapper = build_optimizers(model, config)['autoencoder']
    for each in model.autoencoder.parameters():
        each.grad = torch.ones_like(each)
    wrapper.step()
    states = [value for state in wrapper.optimizer.state.values() for value in state.values()]
    wanted = sum(each.nbytes for each in states if isinstance(each, torch.Tensor))
    assert optimizer_bytes(model.parameter_groups(), config) == wanted


def test_states_of_8_bits():
    pytest.importorskip('bitsandbytes')
    assert component_of(OPTIMIZERS, 'AdamW8bit').__name__ == 'AdamW8bit'
    config = dict(optim_wrapper=dict(one=dict(optimizer=dict(type='AdamW8bit', lr=1e-3))))
    large, small = nn.Parameter(torch.zeros(64, 128)), nn.Parameter(torch.zeros(100))
    assert optimizer_bytes(dict(one=[large, small]), config) == 2 * (8192 + 4 * 32) + 8 * 100


def test_a_dry_run_says_what_is_needed(capsys, tmp_path):
    words = [f'work_dir={tmp_path}/run', 'model.micro_batch_size=2']
    train('configs/demo/rot_scale.py', overrides=words, smoke=True, dry_run=True)
    out = capsys.readouterr().out
    assert re.search(r'^memory +0\.\d+ GiB at the peak of a step with 2 samples at once \(', out, re.MULTILINE)
