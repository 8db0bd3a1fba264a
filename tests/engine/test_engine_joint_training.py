"""REPA-E's step: which loss reaches which weights, by autograd on an independent composition; statistics; refusals."""

import copy

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.nn import functional as F

from eqzoo.autoencoders import KLAutoencoder, VQAutoencoder
from eqzoo.config import load_config
from eqzoo.data import Shapes, build_train_loader
from eqzoo.data.latents import LatentStore
from eqzoo.data.latents.write import write_store
from eqzoo.engine import JointTraining, sharding
from eqzoo.engine.joint_training import follow, moments_of_batch
from eqzoo.engine.phases import phases_of
from eqzoo.engine.runner import build_optimizers
from eqzoo.images import to_float
from eqzoo.losses import L1, AdversarialLoss, ReconstructionLoss
from eqzoo.normalization import LatentNormalization
from eqzoo.randomness import StepRandomness
from eqzoo.registry import build
from eqzoo.regularizers import ImplicitEquivariance, KLDivergence, LatentNoise, Plain
from eqzoo.transforms import Rotate

CLASSES, WIDTH = 4, 6
STEP = StepRandomness(5, 9)
RATES = dict(autoencoder=0.01, generator=0.02, discriminator=0.03)


class Encoder:
    """Features of 4 x 4 tokens: a fixed projection of each one's pixels."""

    num_features = WIDTH

    def __init__(self):
        self.weight = torch.randn(WIDTH, 3, 4, 4, generator=torch.Generator().manual_seed(3))

    def __call__(self, images):
        return F.conv2d(to_float(images), self.weight, stride=4).flatten(2).transpose(1, 2)


def generator_of(encoder=None, kind='REPA', **network):
    base = dict(size=(3, 16, 2), patch_size=2, latent_channels=3, latent_size=8, num_classes=CLASSES)
    if kind == 'REPA':
        base |= dict(type='AlignedTransformer', feature_dims=(WIDTH,), tap=2, projector_width=8)
    else:
        base |= dict(type='DiffusionTransformer')
    torch.manual_seed(1)
    options = dict(encoder=encoder) if kind == 'REPA' else {}
    built = build(dict(type=kind, network={**base, **network}, process=dict(type='Interpolant'), **options))
    for parameter in built.parameters():  # zeros at the start keep gradients from the blocks
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return built


def autoencoder_of(**options):
    torch.manual_seed(0)
    return KLAutoencoder(3, (8, 8), layers_per_block=1, norm_num_groups=4, **{'scale': 0.5, 'shift': 0.1, **options})


def training(*, discriminator=True, objective=None, **options):
    torch.manual_seed(2)
    adversarial = AdversarialLoss(nn.Conv2d(3, 1, 4), weight=0.1, adaptive=False) if discriminator else None
    arguments = dict(
        reconstruction_loss=ReconstructionLoss(L1(), reduction='mean'),
        penalties=[KLDivergence(1e-3)],
        adversarial_loss=adversarial,
    )
    parts = autoencoder_of(), generator_of(Encoder()), objective or Plain()
    return JointTraining(*parts, **{**arguments, **options}).train()


def optimizers_of(model, **options):
    sgd = {name: dict(optimizer=dict(type='SGD', lr=RATES[name]), **options) for name in model.parameter_groups()}
    return build_optimizers(model, Config(dict(optim_wrapper=sgd)))


@pytest.fixture
def batch():
    return next(iter(build_train_loader(Shapes(12, 16, num_classes=CLASSES), batch_size=6, num_workers=0, seed=0)))


def composed(model, batch):
    """Return the three losses of a step as the paper has them, and the batch's latents, with torch's own batch norm."""
    autoencoder, network, discriminator = (
        model.autoencoder,
        model.generator.network,
        model.adversarial_loss.discriminator,
    )
    images, labels, draws = to_float(batch['images']), batch['labels'], batch['draws']
    posterior = autoencoder.encode(images)
    latents = posterior.mean + posterior.std * STEP.noise(draws)(posterior.mean)
    reconstruction = autoencoder.decode(latents)
    norm = nn.BatchNorm2d(3, eps=1e-4, momentum=0.1, affine=False)
    norm.running_mean.copy_(autoencoder.normalization.mean)
    norm.running_var.copy_(autoencoder.normalization.std**2)
    streams = STEP.streams(draws)
    times, noise, dropped = streams.uniform(), streams.normal(latents), streams.uniform() < 0.1
    at = times[:, None, None, None]
    features = F.normalize(Encoder()(batch['images']), dim=2)

    def align(z, classes):
        output, (projected,) = network.forward_with_features((1 - at) * z + at * noise, times, classes)
        return output, -(F.normalize(projected, dim=2) * features).sum(2).mean()

    running = (latents - norm.running_mean[:, None, None]) / norm.running_var[:, None, None].sqrt()
    alignment = align(running, labels)[1]
    variance = posterior.std**2
    kl = 0.5 * (posterior.mean**2 + variance - 1 - variance.log()).sum((1, 2, 3)).mean()
    of_autoencoder = (
        (reconstruction - images).abs().mean()
        + 1e-3 * kl
        - 0.1 * discriminator(reconstruction).mean()
        + 1.5 * alignment
    )
    fake, real = discriminator(reconstruction.detach()), discriminator(images)
    of_discriminator = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
    whitened = norm.train()(latents.detach())
    output, own_alignment = align(whitened, labels.masked_fill(dropped, CLASSES))
    denoising = (output - (noise - whitened)).square().mean()
    losses = dict(autoencoder=of_autoencoder, discriminator=of_discriminator, generator=denoising + 0.5 * own_alignment)
    return losses, dict(alignment=alignment, denoising=denoising, own_alignment=own_alignment), norm


def test_each_loss_moves_its_own_weights_and_no_others(batch):
    """SGD's step is the gradient: of each group, that of its loss alone, as autograd finds it."""
    model = training()
    before = copy.deepcopy(model)
    losses, parts, norm = composed(before, batch)
    groups = before.parameter_groups()
    assert set(groups) == {'autoencoder', 'discriminator', 'generator'}
    gradients = {
        name: torch.autograd.grad(losses[name], groups[name], retain_graph=True, allow_unused=True) for name in groups
    }
    log = model.train_step(batch, optimizers_of(model), STEP)
    for name, found in gradients.items():
        after = model.parameter_groups()[name]
        moved = 0
        for old, gradient, new in zip(groups[name], found, after, strict=True):
            step = torch.zeros_like(old) if gradient is None else RATES[name] * gradient
            torch.testing.assert_close(new.detach(), (old - step).detach(), rtol=1e-4, atol=1e-6)
            moved += int(step.abs().max() > 1e-5)
        assert moved >= len(after) / 2, name
    assert all(parameter.grad is None for parameter in model.parameters())
    expected = dict(
        loss=losses['autoencoder'],
        discriminator_loss=losses['discriminator'],
        generator_loss=losses['generator'],
        alignment=1.5 * parts['alignment'],
        generator_denoising=parts['denoising'],
        generator_alignment=parts['own_alignment'],
    )
    for name, value in expected.items():
        torch.testing.assert_close(log[name], value.detach(), msg=lambda text, name=name: f'{name}: {text}')
    torch.testing.assert_close(model.autoencoder.normalization.mean, norm.running_mean)
    torch.testing.assert_close(model.autoencoder.normalization.std**2, norm.running_var)


def test_the_encoder_learns_by_alignment_and_the_decoder_does_not(batch):
    """With a weight of 0 the autoencoder's step is that without a generator; the weight changes the encoder alone."""
    states = {}
    for weight in (0.0, 50.0):
        model = training(discriminator=False, alignment_weight=weight)
        model.train_step(batch, optimizers_of(model), STEP)
        states[weight] = model.autoencoder.state_dict()
    differs = {name for name, value in states[0.0].items() if not torch.equal(value, states[50.0][name])}
    assert {name.split('.')[0] for name in differs} == {'encoder', 'quant_conv'}
    assert 'encoder.conv_in.weight' in differs


def test_denoising_reaches_no_weight_of_the_autoencoder(batch):
    """A process with other targets changes the generator's step alone."""
    states = []
    for path in ('linear', 'gvp'):
        model = training(discriminator=False, alignment_weight=0.0)
        model.generator.process.path = path
        model.train_step(batch, optimizers_of(model), STEP)
        states.append(model.state_dict())
    differs = {name.split('.')[0] for name, value in states[0].items() if not torch.equal(value, states[1][name])}
    assert differs == {'generator'}


@pytest.mark.parametrize('size', [4, 1])
def test_a_batch_may_be_cut_anywhere(size, batch):
    """Statistics are those of the whole batch, and gradients add up."""
    states = []
    for micro_batch_size in (None, size):
        model = training(micro_batch_size=micro_batch_size)
        log = model.train_step(batch, optimizers_of(model), STEP)
        states.append((model.state_dict(), log))
    (whole, first), (cut, second) = states
    for name, value in whole.items():
        torch.testing.assert_close(
            cut[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )
    assert first.keys() == second.keys()
    for name in ('loss', 'generator_loss', 'alignment', 'discriminator_loss'):
        torch.testing.assert_close(second[name], first[name])


@pytest.mark.parametrize('params', [1, 2])
def test_the_generator_learns_the_images_own_latents_whatever_the_objective_compares(params, batch):
    """Rotated latents are for the decoder, smaller images for the reconstruction, corruptions for the decoder."""
    plain = training(discriminator=False)
    reference = copy.deepcopy(plain)
    expected = plain.train_step(batch, optimizers_of(plain), STEP)
    low = dict(p_equivariance=0.0, p_low_resolution=1.0)
    for options in (dict(p_equivariance=1.0), low):
        objective = ImplicitEquivariance(Rotate(turns=(params,)), **options)
        model = training(discriminator=False, objective=objective, corruptions=[LatentNoise(0.3)])
        log = model.train_step(batch, optimizers_of(model), STEP)
        for name in ('alignment', 'generator_loss'):
            torch.testing.assert_close(log[name], expected[name])
        assert log['pixel'] != expected['pixel']
        for name, value in plain.generator.state_dict().items():
            torch.testing.assert_close(model.generator.state_dict()[name], value)
        moved = reference.autoencoder.encoder.conv_in.weight - model.autoencoder.encoder.conv_in.weight
        assert moved.abs().max() > 0


def test_running_statistics_are_torchs():
    """Ten batches of two pieces, against `BatchNorm2d` on the whole."""
    normalization = LatentNormalization(3, mean=(0.0, 1.0, -2.0), std=(1.0, 3.0, 0.5))
    norm = nn.BatchNorm2d(3, momentum=0.3, affine=False)
    norm.running_mean.copy_(normalization.mean)
    norm.running_var.copy_(normalization.std**2)
    for number in range(10):
        z = torch.randn(5, 3, 4, 2) * torch.tensor([2.0, 0.1, 30.0])[:, None, None] + number
        mean, variance, count = moments_of_batch([z[:2], z[2:]])
        follow(normalization, mean, variance * count / (count - 1), 0.3)
        norm(z)
    assert int(count) == 40
    torch.testing.assert_close(normalization.mean, norm.running_mean)
    torch.testing.assert_close(normalization.std**2, norm.running_var)


@pytest.mark.parametrize('wrong', [float('nan'), float('inf')])
def test_moments_that_are_not_finite_leave_the_statistics_as_they_are(wrong):
    normalization = LatentNormalization(2, scale=0.5)
    follow(normalization, torch.tensor([wrong, 0.0]), torch.tensor([1.0, 1.0]), 0.1)
    follow(normalization, torch.zeros(2), torch.tensor([1.0, wrong]), 0.1)
    follow(normalization, torch.zeros(2), torch.zeros(2), 1.0)  # no spread
    assert normalization.shift.tolist() == [0.0, 0.0]
    assert normalization.scale.tolist() == [0.5, 0.5]


def test_a_step_that_is_not_finite_is_left_out_of_everything(batch):
    model = training(discriminator=False, on_nonfinite='skip')
    model.penalties[0].weight = float('nan')  # of the autoencoder's loss alone
    before = copy.deepcopy(model.state_dict())
    log = model.train_step(batch, optimizers_of(model), STEP)
    assert (float(log['skipped']), float(log['generator_skipped'])) == (1, 0)
    after = model.state_dict()
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert {name for name in after if name.startswith('autoencoder.') and 'normalization' not in name} <= same
    assert 'generator.network.blocks.0.mlp.fc1.weight' not in same


def test_bf16_agrees_with_fp32_to_its_precision(batch):
    logs = []
    for precision in ('fp32', 'bf16'):
        model = training(precision=precision)
        logs.append(model.train_step(batch, optimizers_of(model), STEP))
    for name in ('loss', 'generator_loss', 'alignment'):
        torch.testing.assert_close(logs[1][name].float(), logs[0][name], rtol=5e-2, atol=2e-2)


@pytest.mark.slow  # Dynamo takes many seconds
@pytest.mark.filterwarnings('default')  # it looks at .grad of what is no leaf, and torch warns of it
def test_compiled_blocks_take_the_same_step(batch):
    states = []
    for backend in (None, 'aot_eager'):
        model = training(discriminator=False)
        if backend:
            for block in model.blocks():
                block.compile(backend=backend, dynamic=False)
        model.train_step(batch, optimizers_of(model), STEP)
        states.append(model.state_dict())
    assert len(model.blocks()) == len(model.autoencoder.blocks()) + 3
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


def test_parts_that_cannot_be_trained_together_are_refused():
    options = dict(reconstruction_loss=ReconstructionLoss(L1()))
    with pytest.raises(ValueError, match="got SiT, which has no alignment loss .*; expected type='REPA'"):
        JointTraining(autoencoder_of(), generator_of(kind='SiT'), Plain(), **options)
    with pytest.raises(ValueError, match=r'REPA has no encoder.*; set model.generator.encoder'):
        JointTraining(autoencoder_of(), generator_of(), Plain(), **options)
    vq = VQAutoencoder(3, 8, (8, 8), attention_levels=(), layers_per_block=1, norm_num_groups=4)
    with pytest.raises(ValueError, match='VQAutoencoder has a codebook.*; expected .*KLAutoencoder'):
        JointTraining(vq, generator_of(Encoder()), Plain(), **options)
    with pytest.raises(ValueError, match='latents of 4 channels, KLAutoencoder has 3; set .*latent_channels=3'):
        JointTraining(autoencoder_of(), generator_of(Encoder(), latent_channels=4), Plain(), **options)
    with pytest.raises(ValueError, match=r'JointTraining.encoder_rate must be .*above 0, got 0'):
        training(encoder_rate=0)
    with pytest.raises(ValueError, match=r'JointTraining.momentum must be .*in \(0, 1\], got 0'):
        training(momentum=0)


def test_data_that_do_not_fit_are_refused(batch, tmp_path):
    model = training()
    write_store(autoencoder_of().eval(), Shapes(4, 16), tmp_path, batch_size=4)
    with pytest.raises(ValueError, match='LatentStore has latents of a fixed autoencoder.*; expected images'):
        model.check_data(LatentStore(tmp_path))
    model.check_data(Shapes(4, 16, num_classes=CLASSES))
    with pytest.raises(ValueError, match='images of 32 pixels have latents of 16 x 16 cells; .* 8 x 8; set .*=16'):
        model.check_data(Shapes(4, 32, num_classes=CLASSES))
    with pytest.raises(ValueError, match='has 5 classes, labels 0 to 4; the network has 4; set .*num_classes to 5'):
        model.check_data(Shapes(4, 16, num_classes=5))
    del batch['labels']
    with pytest.raises(ValueError, match='the images have no labels'):
        model.train_step(batch, optimizers_of(model), STEP)


def test_shards_and_phases_are_refused(monkeypatch):
    monkeypatch.setattr(sharding, 'rank_and_world_size', lambda: (0, 2))
    with pytest.raises(ValueError, match='JointTraining trains the autoencoder and the generator; only generators are'):
        sharding.shard(training(), torch.device('cpu'))
    config = load_config('configs/repae/repae_tiny_shapes.py')
    config.phases = dict(joint={}, generator={})
    with pytest.raises(ValueError, match='only training of autoencoders has phases'):
        phases_of(config)
