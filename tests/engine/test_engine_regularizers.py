"""Training with corruptions, penalties, several pairs, and an encoder of its own rate or none."""

import copy

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.nn import functional as F

from eqzoo.data import Shapes, collate
from eqzoo.engine.runner import build_optimizers
from eqzoo.randomness import SampleStreams, StepRandomness, Stream, seeded
from eqzoo.registry import REGULARIZERS, build

TINY = dict(type='TinyAutoencoder', latent_channels=4, num_blocks=(1, 1, 1), width=8)
KL = dict(type='KLAutoencoder', block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4)
VQ = dict(
    type='VQAutoencoder',
    latent_channels=4,
    num_codes=32,
    block_out_channels=(8, 8, 8),
    layers_per_block=1,
    attention_levels=(),
    norm_num_groups=4,
)


@pytest.fixture
def batch():
    data = Shapes(num_images=4, size=32)
    return collate([data[index] for index in range(4)])


def make(autoencoder=TINY, *, lr=1e-5, **changes):
    config = Config(
        dict(
            model={
                'type': 'AutoencoderTraining',
                'autoencoder': autoencoder,
                'objective': dict(type='Plain'),
                'reconstruction_loss': dict(type='ReconstructionLoss', pixel=dict(type='L1')),
                **changes,
            },
            optim_wrapper=dict(autoencoder=dict(optimizer=dict(type='SGD', lr=lr))),
        )
    )
    torch.manual_seed(0)
    model = build(config.model).train()
    return model, build_optimizers(model, config)


def float_images(batch):
    return batch['images'].float() / 127.5 - 1


def summed(reconstruction, target):
    return (reconstruction - target).abs().flatten(1).sum(1).mean()


def test_a_step_is_gradient_descent_on_the_sum_of_all_parts(batch):
    """The update equals autograd on the loss written out: corrupted latents, two penalties, a learned token."""
    model, optimizers = make(
        corruptions=[dict(type='LatentNoise', sigma=0.5), dict(type='LatentMask', shares=(0.5,), probabilities=None)],
        penalties=[
            dict(type='ExplicitEquivariance', transform=dict(type='Rotate'), weight=0.3),
            dict(type='LocalCorrelation', weight=2.0, threshold=1.0, adaptive=False),
        ],
    )
    reference = copy.deepcopy(model)
    log = model.train_step(batch, optimizers, StepRandomness(0, 3))

    images, autoencoder, (noise, mask) = float_images(batch), reference.autoencoder, reference.corruptions
    streams = SampleStreams(0, batch['draws'], Stream.CORRUPTION)
    z = autoencoder.encode(images).mean
    loss = summed(autoencoder.decode_latents(mask(noise(z, streams), streams)), images)
    turns = reference.penalties[0].transform.sample(seeded(0, Stream.STEP, 3), (8, 8))
    gap = z.rot90(turns, (2, 3)) - autoencoder.encode(images.rot90(turns, (2, 3))).mean
    loss = loss + 0.3 * gap.square().flatten(1).sum(1).mean()
    loss = loss + 2.0 * (1 - reference.penalties[1].correlation(z))
    loss.backward()
    torch.testing.assert_close(log['loss'], loss.detach(), rtol=1e-6, atol=0)
    for (name, own), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(own, other - 1e-5 * other.grad, rtol=1e-5, atol=1e-7, msg=name)
    assert reference.corruptions[1].token.grad.abs().sum() > 0


def test_all_pairs_count_with_their_weights(batch):
    model, _ = make(objective=dict(type='DownsampledReconstruction'))
    optimizers = make(objective=dict(type='DownsampledReconstruction'))[1]
    log = model.train_step(batch, optimizers, StepRandomness(0, 0))
    images, autoencoder = float_images(batch), make()[0].autoencoder
    with torch.no_grad():
        z = autoencoder.encode(images).mean
        parts = [summed(autoencoder.decode_latents(F.avg_pool2d(z, s)), F.avg_pool2d(images, s)) for s in (1, 2, 4)]
    torch.testing.assert_close(log['loss'], parts[0] + 0.125 * parts[1] + 0.125 * parts[2], rtol=1e-5, atol=0)
    assert log['pixel/4x_smaller'].item() == pytest.approx(parts[2].item() / (3 * 8 * 8), rel=1e-5)


@pytest.mark.parametrize('autoencoder', [TINY, KL, VQ])
@pytest.mark.parametrize(
    'changes',
    [
        dict(objective=dict(type='SpectralMask')),
        dict(objective=dict(type='DownsampledReconstruction')),
        dict(corruptions=[dict(type='LatentNoise', sigma=1.0, kind='interpolated')]),
        dict(corruptions=[dict(type='LatentMask')]),
        dict(penalties=[dict(type='SpectrumMatching'), dict(type='LocalCorrelation')]),
        dict(penalties=[dict(type='FeatureAlignment', encoder=dict(type='EfficientNetLite0Tokens', stride=4))]),
    ],
    ids=['DSM', 'SE', 'noise', 'mask', 'ESM + LCR', 'VF'],
)
def test_every_member_trains_every_kind_of_autoencoder(autoencoder, changes, batch):
    model, optimizers = make(autoencoder, **changes)
    model.check_data(Shapes(num_images=1, size=32))
    before = {name: value.clone() for name, value in model.autoencoder.named_parameters()}
    log = model.train_step(batch, optimizers, StepRandomness(0, 1))
    assert all(value.isfinite() for value in log.values())
    moved = [name for name, value in model.autoencoder.named_parameters() if not torch.equal(value, before[name])]
    assert {name.split('.')[0] for name in moved} >= {'encoder', 'decoder'}


def test_noise_is_the_same_in_micro_batches(batch):
    changes = dict(corruptions=[dict(type='LatentNoise', sigma=0.5), dict(type='LatentMask')])
    logs = []
    for size in (None, 1):
        model, optimizers = make(micro_batch_size=size, **changes)
        logs.append(model.train_step(batch, optimizers, StepRandomness(0, 1))['loss'])
    torch.testing.assert_close(*logs, rtol=1e-6, atol=0)


def test_learned_parts_are_trained_and_stored():
    model, _ = make(
        corruptions=[dict(type='LatentNoise', sigma=0.5), dict(type='LatentMask')],
        penalties=[
            dict(type='LocalCorrelation'),
            dict(type='FeatureAlignment', encoder=dict(type='EfficientNetLite0Tokens', stride=4)),
        ],
    )
    stored = {name for name in model.state_dict() if not name.startswith('autoencoder.')}
    assert stored == {'reconstruction_loss.log_variance', 'corruption_1.token', 'penalty_1.projection.weight'}
    trained = {id(p) for p in model.parameter_groups()['autoencoder']}
    assert {id(model.corruptions[1].token), id(model.penalties[1].projection.weight)} <= trained


@pytest.mark.parametrize('autoencoder', [TINY, KL, VQ])
def test_a_frozen_encoder_keeps_latents_to_the_bit(autoencoder, batch):
    model, optimizers = make(autoencoder, lr=1e-3, encoder_rate=0)
    images = float_images(batch)
    with torch.no_grad():
        before, decoded = model.autoencoder.encode(images).mean, model.autoencoder.decode(torch.ones(1, 4, 8, 8))
        codes = model.autoencoder.bottleneck(before).latents
    for step in range(3):
        model.train().train_step(batch, optimizers, StepRandomness(0, step))
    with torch.no_grad():
        assert torch.equal(model.autoencoder.encode(images).mean, before)
        assert torch.equal(model.autoencoder.bottleneck(before).latents, codes)
        assert not torch.equal(model.autoencoder.decode(torch.ones(1, 4, 8, 8)), decoded)
    names = {name.split('.')[0] for name, p in model.autoencoder.named_parameters() if p.requires_grad}
    assert names <= {'decoder', 'post_quant_conv'}


def test_a_frozen_encoder_stays_in_evaluation_mode():
    class WithBatchNorm(nn.Module):
        encoder_parts = ('encoder',)

        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    config = dict(type='ReconstructionLoss', pixel=dict(type='L1'))
    training = dict(type='AutoencoderTraining', autoencoder=WithBatchNorm(), objective=dict(type='Plain'))
    model = build({**training, 'reconstruction_loss': config, 'encoder_rate': 0}).train()
    assert (model.autoencoder.encoder.training, model.autoencoder.decoder.training) == (False, True)
    assert build({**training, 'reconstruction_loss': config}).train().autoencoder.encoder.training


def test_the_encoder_can_have_its_own_rate(batch):
    """SGD: its step is a tenth of what it is at the decoder's rate, and the decoder's is the same."""
    steps = {}
    for rate in (1.0, 0.1):
        model, optimizers = make(KL, lr=1e-4, encoder_rate=rate)
        before = {name: value.clone() for name, value in model.autoencoder.named_parameters()}
        model.train_step(batch, optimizers, StepRandomness(0, 0))
        steps[rate] = {name: value - before[name] for name, value in model.autoencoder.named_parameters()}
    for name, step in steps[1.0].items():
        factor = 0.1 if name.startswith(('encoder', 'quant_conv')) else 1.0
        torch.testing.assert_close(steps[0.1][name], factor * step, rtol=1e-3, atol=1e-7, msg=name)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(encoder_rate=-1), r'encoder_rate must be at least 0, got -1'),
        (
            dict(encoder_rate=0, penalties=[dict(type='LocalCorrelation')]),
            r'encoder_rate: 0 freezes the encoder, and with it the latents that LocalCorrelation would change',
        ),
        (dict(penalties=[dict(type='VarianceExpansion')]), r'VarianceExpansion: TinyAutoencoder has no posterior'),
        (
            dict(objective=dict(type='ImplicitEquivariance', transform=dict(type='Rotate'), act_on='codes')),
            r"act_on: got 'codes', but TinyAutoencoder has no codebook",
        ),
        (
            dict(
                objective=dict(type='ImplicitEquivariance', transform=dict(type='Rotate')),
                penalties=[
                    dict(
                        type='ExplicitEquivariance',
                        transform=dict(type='Compose', transforms=[dict(type='Rotate'), dict(type='IsotropicScale')]),
                    )
                ],
            ),
            r'ExplicitEquivariance.transform: its scales are drawn for whole images.*set model.objective.p_low_res',
        ),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_built(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ('changes', 'size', 'message'),
    [
        (dict(objective=dict(type='SpectralMask')), 48, r'latents of 12 x 12 cells cannot be cut into blocks of 8'),
        (dict(objective=dict(type='DownsampledReconstruction')), 24, r'4 does not divide latents of 6 x 6 cells'),
        (dict(penalties=[dict(type='LocalCorrelation')]), 20, r'2 does not divide latents of 5 x 5 cells'),
        (dict(corruptions=[dict(type='LatentMask', block=4)]), 16, r'not two or more whole blocks of 4 x 4'),
        (
            dict(penalties=[dict(type='FeatureAlignment', encoder=dict(type='EfficientNetLite0Tokens', stride=16))]),
            32,
            r'EfficientNetLite0Tokens gives 4 tokens for images of 32 x 32, and latents have 8 x 8 cells',
        ),
        (
            dict(objective=dict(type='ImplicitEquivariance', transform=dict(type='IsotropicScale', minimum=0.9))),
            16,
            r'latent grid of 4 x 4 has no scale k/4 in \[0.9, 1\)',
        ),
    ],
)
def test_latents_that_are_too_small_are_refused_before_the_first_step(changes, size, message):
    model, _ = make(**changes)
    with pytest.raises(ValueError, match=message):
        model.check_data(Shapes(num_images=1, size=size))


def test_two_penalties_of_a_class_both_count(batch):
    model, optimizers = make(penalties=[dict(type='LocalCorrelation', weight=w, adaptive=False) for w in (1, 2, 3)])
    log = model.train_step(batch, optimizers, StepRandomness(0, 0))
    terms = [log[f'local_correlation{ending}'] for ending in ('', '.2', '.3')]
    torch.testing.assert_close(torch.stack(terms), terms[0] * torch.tensor([1.0, 2, 3]))
    plain, optimizers = make()
    without = plain.train_step(batch, optimizers, StepRandomness(0, 0))['loss']
    assert terms[0] > 0
    torch.testing.assert_close(log['loss'], without + sum(terms))


def test_a_users_own_penalty_needs_only_to_be_called(batch):
    @REGULARIZERS.register_module()
    class LatentNorm:
        def __init__(self, weight):
            self.weight = weight

        def __call__(self, step, draw):
            return {'norm': self.weight * step.latents.square().mean()}

    try:
        model, optimizers = make(penalties=[dict(type='LatentNorm', weight=2.0)])
        with torch.no_grad():
            wanted = 2.0 * model.autoencoder.encode(float_images(batch)).mean.square().mean()
        assert model.train_step(batch, optimizers, StepRandomness(0, 0))['norm'] == wanted
    finally:
        del REGULARIZERS.module_dict['LatentNorm']


def test_an_objectives_own_weights_are_trained():
    @REGULARIZERS.register_module()
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(1))

        def sample(self, generator, grid):
            return None

        def forward(self, step, images, draw):
            raise NotImplementedError

    try:
        model, _ = make(objective=dict(type='Offset'))
        assert any(each is model.objective.offset for each in model.parameter_groups()['autoencoder'])
    finally:
        del REGULARIZERS.module_dict['Offset']


@pytest.mark.parametrize('name', ['LocalCorrelation', 'LatentMask'])
def test_the_smaller_images_of_an_objective_need_not_be_whole_windows(name, batch):
    """`check_data` sees whole images; of 8 x 8 cells, scales leave 2 to 7."""
    part = dict(type=name, **(dict(block=2) if name == 'LatentMask' else {}))
    objective = dict(type='ImplicitEquivariance', transform=dict(type='IsotropicScale'), p_low_resolution=0.5)
    changes = {'corruptions' if name == 'LatentMask' else 'penalties': [part]}
    model, optimizers = make(objective=objective, **changes)
    model.check_data(Shapes(num_images=1, size=32))
    for number in range(12):
        assert model.train_step(batch, optimizers, StepRandomness(0, number))['loss'].isfinite()
