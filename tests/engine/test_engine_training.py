"""One training step: what it updates, with what, and that batches may be cut anywhere."""

import copy

import pytest
import torch
from torch import nn

from eqzoo.data import Shapes, collate
from eqzoo.engine.runner import build_optimizers
from eqzoo.randomness import SampleNoise, SampleStreams, StepRandomness, Stream, seeded
from eqzoo.registry import build

AUTOENCODER = dict(type='KLAutoencoder', block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4)
EQUIVARIANT = dict(
    type='ImplicitEquivariance',
    transform=dict(type='Compose', transforms=[dict(type='IsotropicScale', minimum=0.5), dict(type='Rotate')]),
    p_equivariance=1.0,
)
ADVERSARIAL = dict(type='AdversarialLoss', discriminator=dict(type='PatchGAN', num_layers=1, width=4))


class Frozen(nn.Module):
    """A discriminator without batch statistics, so that micro-batches can be exact."""

    def __init__(self):
        super().__init__()
        self.network = nn.Conv2d(3, 1, 4, 2)

    def forward(self, images):
        return self.network(images)


@pytest.fixture
def batch():
    data = Shapes(num_images=8, size=32)
    return collate([data[index] for index in range(8)])


def make(*, optimizer='SGD', lr=1e-5, **changes):
    from mmengine.config import Config

    config = Config(
        dict(
            model={
                'type': 'AutoencoderTraining',
                'autoencoder': AUTOENCODER,
                'objective': EQUIVARIANT,
                'reconstruction_loss': dict(type='ReconstructionLoss', pixel=dict(type='L1')),
                'penalties': [dict(type='KLDivergence')],
                **changes,
            },
            optim_wrapper=dict(autoencoder=dict(optimizer=dict(type=optimizer, lr=lr))),
        )
    )
    if 'adversarial_loss' in changes:
        config.optim_wrapper.discriminator = dict(optimizer=dict(type=optimizer, lr=lr))
    torch.manual_seed(0)
    model = build(config.model)
    return model.train(), build_optimizers(model, config)


def weights(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(left, right, **tolerance):
    for name in left:
        torch.testing.assert_close(left[name], right[name], msg=lambda text, name=name: f'{name}: {text}', **tolerance)


def test_a_step_is_gradient_descent_on_the_logged_loss(batch):
    """Golden by construction: the update equals autograd on the loss written out."""
    model, optimizers = make()
    reference = copy.deepcopy(model)
    log = model.train_step(batch, optimizers, StepRandomness(0, 3))

    randomness = StepRandomness(0, 3)
    images = batch['images'].float() / 127.5 - 1
    draw = reference.objective.sample(randomness.shared(), (8, 8))
    posterior = reference.autoencoder.encode(images)
    noise = torch.stack([torch.randn(4, 8, 8, generator=seeded(0, 1, index)) for index in range(8)])
    transform = reference.objective.transform
    latents = transform(posterior.mean + posterior.std * noise, draw.params)
    error = (reference.autoencoder.decode(latents) - transform(images, draw.params)).abs()
    loss = error.flatten(1).sum(1).mean() + 1e-6 * posterior.kl().mean()
    loss.backward()
    torch.testing.assert_close(log['loss'], loss.detach(), rtol=1e-6, atol=0)
    for parameter in reference.autoencoder.parameters():
        parameter.data -= 1e-5 * parameter.grad
    assert_equal(weights(model.autoencoder), weights(reference.autoencoder), rtol=1e-6, atol=1e-7)


def test_one_forward_serves_both_optimizers(batch, monkeypatch):
    model, optimizers = make(adversarial_loss=ADVERSARIAL)
    seen = {'encode': 0, 'decode_latents': 0}
    for name in seen:
        original = getattr(model.autoencoder, name)

        def counted(x, original=original, name=name):
            seen[name] += 1
            return original(x)

        monkeypatch.setattr(model.autoencoder, name, counted)
    before = weights(model.adversarial_loss)
    model.train_step(batch, optimizers, StepRandomness(0, 0))
    assert seen == {'encode': 1, 'decode_latents': 1}
    assert any(not torch.equal(value, before[name]) for name, value in weights(model.adversarial_loss).items())


def test_the_discriminator_learns_from_the_same_transformed_images(batch, monkeypatch):
    model, optimizers = make(adversarial_loss=ADVERSARIAL)
    pairs = []
    original = model.adversarial_loss.discriminator_loss
    monkeypatch.setattr(
        model.adversarial_loss,
        'discriminator_loss',
        lambda r, t, *more: (pairs.append((r, t)), original(r, t, *more))[1],
    )
    model.train_step(batch, optimizers, StepRandomness(0, 1))
    draw = model.objective.sample(StepRandomness(0, 1).shared(), (8, 8))
    ((reconstruction, target),) = pairs
    wanted = model.objective.transform(batch['images'].float() / 127.5 - 1, draw.params)
    torch.testing.assert_close(target, wanted)
    assert reconstruction.shape == target.shape
    assert not reconstruction.requires_grad


def test_the_autoencoders_backward_leaves_nothing_in_the_discriminators_update(batch):
    """Its update with SGD is that of its own loss alone."""
    model, optimizers = make(adversarial_loss=dict(type='AdversarialLoss', discriminator=dict(type=Frozen)), lr=0.1)
    network = copy.deepcopy(model.adversarial_loss)
    captured = []
    original = model.adversarial_loss.discriminator_loss
    model.adversarial_loss.discriminator_loss = lambda r, t, *more: (captured.append((r, t)), original(r, t, *more))[1]
    model.train_step(batch, optimizers, StepRandomness(0, 1))
    network.discriminator_loss(*captured[0])[0].backward()
    for name, parameter in network.named_parameters():
        updated = dict(model.adversarial_loss.named_parameters())[name]
        torch.testing.assert_close(updated.data, parameter.data - 0.1 * parameter.grad)


def test_micro_batches_change_nothing(batch):
    whole, whole_optimizers = make()
    cut, cut_optimizers = make(micro_batch_size=3)  # 3 + 3 + 2
    log = whole.train_step(batch, whole_optimizers, StepRandomness(0, 1))
    log_cut = cut.train_step(batch, cut_optimizers, StepRandomness(0, 1))
    torch.testing.assert_close(log_cut['loss'], log['loss'])
    assert_equal(weights(cut.autoencoder), weights(whole.autoencoder), rtol=1e-5, atol=1e-6)


def test_the_discriminator_rests_before_its_start(batch):
    model, optimizers = make(adversarial_loss=dict(ADVERSARIAL, start_step=2))
    before = weights(model.adversarial_loss)
    log = model.train_step(batch, optimizers, StepRandomness(0, 1))
    assert_equal(weights(model.adversarial_loss), before, rtol=0, atol=0)
    assert 'adversarial' not in log
    log = model.train_step(batch, optimizers, StepRandomness(0, 2))
    assert {'adversarial', 'adaptive_weight', 'discriminator_loss', 'logits_real', 'logits_fake'} <= set(log)


def test_bf16_computes_in_half_precision_and_keeps_float_weights(batch):
    logs = {}
    for precision in ('fp32', 'bf16'):
        model, optimizers = make(precision=precision)
        logs[precision] = model.train_step(batch, optimizers, StepRandomness(0, 1))['loss']
        assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert logs['bf16'] != logs['fp32']
    torch.testing.assert_close(logs['bf16'], logs['fp32'], rtol=0.02, atol=0)  # bf16 has 8 bits: 0.4 % a rounding
    with pytest.raises(ValueError, match="precision must be 'fp32' or 'bf16', got 'fp16'"):
        make(precision='fp16')


def test_learned_log_variance_is_the_autoencoder_optimizers(batch):
    loss = dict(type='ReconstructionLoss', pixel=dict(type='L1'), learn_log_variance=True)
    model, optimizers = make(reconstruction_loss=loss, lr=1e-6)
    model.train_step(batch, optimizers, StepRandomness(0, 1))
    assert model.reconstruction_loss.log_variance != 0


def test_optimizers_are_named_as_the_models_groups():
    from mmengine.config import Config

    model, _ = make(adversarial_loss=ADVERSARIAL)
    with pytest.raises(
        ValueError, match=r"groups \['autoencoder', 'discriminator'\], the config has optimizers for \['autoencoder'\]"
    ):
        build_optimizers(model, Config(dict(optim_wrapper=dict(autoencoder=dict(optimizer=dict(type='SGD', lr=1))))))


def test_streams_have_numbers_of_their_own_that_never_change():
    assert {each.name: each.value for each in Stream} == dict(
        STEP=0, NOISE=1, SAMPLES=2, LABELS=3, CODEBOOK=4, CORRUPTION=5, AUGMENTATION=6
    )
    numbers = torch.rand(3, generator=seeded(5, 2, 7))
    assert torch.equal(torch.rand(3, generator=seeded(5, Stream.SAMPLES, 7)), numbers)
    assert torch.equal(SampleStreams(5, torch.tensor([7])).uniform(3)[0], numbers)


def test_noise_belongs_to_the_sample_not_to_the_batch():
    noise = SampleNoise(7, torch.tensor([3, 9]))(torch.zeros(2, 4, 5, 5))
    alone = SampleNoise(7, torch.tensor([9]))(torch.zeros(1, 4, 5, 5))
    assert torch.equal(noise[1:], alone)
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(SampleNoise(8, torch.tensor([9]))(torch.zeros(1, 4, 5, 5)), alone)
    assert noise.std().item() == pytest.approx(1, abs=0.2)


def test_shared_draws_depend_on_seed_and_step():
    first = [torch.rand(1, generator=StepRandomness(seed, step).shared()).item() for seed in (0, 1) for step in (0, 1)]
    assert len(set(first)) == 4
    assert first[0] == torch.rand(1, generator=StepRandomness(0, 0).shared()).item()
