"""Losses of DiT, SiT and REPA: random numbers from each sample's stream, dropped labels, and alignment."""

import pytest
import torch
from formula_networks import LATENTS, fill, wave
from torch import nn
from torch.nn import functional as F

from eqzoo.generators import REPA, AlignedTransformer, DiffusionTransformer, DiT, GaussianDiffusion, Interpolant, SiT
from eqzoo.randomness import SampleStreams

LABELS = torch.tensor([0, 3, 9, 5, 7])
NUMBERS = torch.arange(5)


def network(learn_sigma=True):
    return fill(DiffusionTransformer((2, 32, 2), 2, **LATENTS, learn_sigma=learn_sigma))


def batch(places=slice(None)):
    return dict(latents=wave(5, 4, 8, 8, step=0.9)[places], labels=LABELS[places])


class Recorder(nn.Module):
    """A network that predicts zero and records its inputs."""

    num_classes, latent_shape, out_channels = 10, (4, 8, 8), 4

    def forward(self, x, times, labels):
        self.x, self.times, self.labels = x, times, labels
        return torch.zeros_like(x)


def streams(places=slice(None), seed=0):
    return SampleStreams(seed, NUMBERS[places])


def drawn():
    """Return the numbers drawn for a loss with uniform times: time, noise, label."""
    source = streams()
    return source.uniform(), source.normal(batch()['latents']), source.uniform()


@pytest.mark.parametrize('learn_sigma', [True, False])
def test_dits_loss_uses_its_streams_in_order(learn_sigma):
    net, process, x = network(learn_sigma), GaussianDiffusion(), batch()['latents']
    uniform, noise, share = drawn()
    times = (1000 * uniform).long()
    labels = torch.where(share < 0.4, 10, LABELS)
    assert 0 < (labels == 10).sum() < 5
    noisy = process.noised(x, noise, times)
    with torch.no_grad():
        expected = process.losses(net(noisy, times, labels), x, noise, noisy, times)
        found = DiT(net, process, p_unconditional=0.4).loss(batch(), streams())
    assert list(found) == (['loss', 'mse', 'vb'] if learn_sigma else ['loss'])
    for name, value in found.items():
        assert value.shape == ()
        torch.testing.assert_close(value, expected[name].mean())


@pytest.mark.parametrize('network_time', ['data_to_noise', 'noise_to_data'])
def test_sits_loss_uses_its_streams_in_order(network_time):
    net, x = network(), batch()['latents']
    process = Interpolant(network_time=network_time)
    times, noise, share = drawn()
    labels = torch.where(share < 0.4, 10, LABELS)
    t = times.view(-1, 1, 1, 1)
    sign, seen = (1, times) if network_time == 'data_to_noise' else (-1, 1 - times)
    with torch.no_grad():
        error = net((1 - t) * x + t * noise, seen, labels)[:, :4] - sign * (noise - x)
        found = SiT(net, process, p_unconditional=0.4).loss(batch(), streams())
    assert list(found) == ['loss']
    torch.testing.assert_close(found['loss'], error.square().mean())


def test_lognormal_times_come_from_normal_numbers():
    recorder = Recorder()
    SiT(recorder, Interpolant(time_sampling='lognormal')).loss(batch(), streams())
    torch.testing.assert_close(recorder.times, streams().normal(torch.zeros(5)).sigmoid())


@pytest.mark.parametrize('weight', [0.0, 0.5, 2.0])
def test_the_direction_loss_is_added_with_its_weight(weight):
    net, x = network(learn_sigma=False), batch()['latents']
    generator = SiT(net, Interpolant(time_sampling='lognormal', direction_weight=weight), p_unconditional=0)
    source = streams()
    times, noise = source.normal(torch.zeros(5)).sigmoid(), source.normal(x)
    t = times.view(-1, 1, 1, 1)
    with torch.no_grad():
        found = generator.loss(batch(), streams())
        output, velocity = net((1 - t) * x + t * noise, times, LABELS), noise - x
    mse, direction = F.mse_loss(output, velocity), 1 - F.cosine_similarity(output, velocity, dim=1).mean()
    torch.testing.assert_close(found['loss'], mse + weight * direction)
    assert list(found) == (['loss', 'mse', 'direction'] if weight else ['loss'])
    if weight:
        torch.testing.assert_close(found['mse'], mse)
        torch.testing.assert_close(found['direction'], direction)


@pytest.mark.parametrize(
    'generator',
    [
        DiT(network(), GaussianDiffusion()),
        SiT(network(), Interpolant('vp', 'noise', 'velocity')),
        SiT(network(), Interpolant(time_sampling='lognormal')),
        SiT(network(), Interpolant(time_shift=3.0, direction_weight=1.0)),
    ],
    ids=['dit', 'sit', 'lognormal', 'direction'],
)
@torch.no_grad()
def test_losses_do_not_depend_on_how_a_batch_is_cut(generator):
    whole = generator.loss(batch(), streams())
    parts = [generator.loss(batch(cut), streams(cut)) for cut in (slice(2), slice(2, 5))]
    for name, value in whole.items():
        torch.testing.assert_close((2 * parts[0][name] + 3 * parts[1][name]) / 5, value, rtol=1e-5, atol=0)
    assert generator.loss(batch(), streams(seed=1))['loss'] != whole['loss']


@pytest.mark.parametrize(('kind', 'process'), [(DiT, GaussianDiffusion()), (SiT, Interpolant())])
@pytest.mark.parametrize('probability', [0, 0.1, 0.5, 1])
def test_labels_are_dropped_with_the_given_probability(kind, process, probability):
    recorder, count = Recorder(), 2000
    given = dict(latents=torch.zeros(count, 4, 1, 1), labels=torch.full((count,), 3))
    kind(recorder, process, p_unconditional=probability).loss(given, SampleStreams(0, torch.arange(count)))
    left_out = recorder.labels == 10
    assert (recorder.labels[~left_out] == 3).all()
    assert float(left_out.float().mean()) == pytest.approx(probability, abs=0.02 if 0 < probability < 1 else 0)
    assert given['labels'].eq(3).all()


def test_labels_are_dropped_with_probability_a_tenth_by_default():
    assert DiT(Recorder(), GaussianDiffusion()).p_unconditional == 0.1
    assert SiT(Recorder(), Interpolant()).p_unconditional == 0.1


def test_a_generator_has_its_networks_shape():
    generator = SiT(network(), Interpolant())
    assert generator.num_classes == 10
    assert generator.latent_shape == (4, 8, 8)
    assert generator.learns == 'latents'


def test_gradients_reach_every_weight_but_the_positions():
    generator = DiT(network(), GaussianDiffusion())
    generator.loss(batch(), streams())['loss'].backward()
    still = [name for name, weight in generator.network.named_parameters() if weight.grad is None]
    assert still == ['pos_embed']
    assert all(weight.grad.any() for weight in generator.parameters() if weight.grad is not None)


def test_a_process_of_the_other_kind_is_refused():
    with pytest.raises(ValueError, match='DiT.process: got Interpolant; expected GaussianDiffusion; .*SiT'):
        DiT(Recorder(), Interpolant())
    with pytest.raises(ValueError, match='SiT.process: got GaussianDiffusion; expected Interpolant; .*DiT'):
        SiT(Recorder(), GaussianDiffusion())


@pytest.mark.parametrize('probability', [-0.1, 1.1])
def test_probabilities_outside_0_and_1_are_refused(probability):
    with pytest.raises(ValueError, match=f'DiT.p_unconditional must be in .0, 1., got {probability}'):
        DiT(Recorder(), GaussianDiffusion(), p_unconditional=probability)
    with pytest.raises(ValueError, match=f'SiT.p_unconditional must be in .0, 1., got {probability}'):
        SiT(Recorder(), Interpolant(), p_unconditional=probability)


SHAPE = dict(size=(2, 32, 2), latent_channels=4, latent_size=4, num_classes=5)


class Encoder:
    """Encodes an image as four random tokens of six values, seeded by its sum."""

    num_features = 6

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(images)
        generator = torch.Generator().manual_seed(int(images.sum()) % 1000)
        return torch.randn(len(images), 4, 6, generator=generator)


def aligned(**options):
    torch.manual_seed(0)
    made = AlignedTransformer(**SHAPE, **{'feature_dims': (6,), 'tap': 1, 'projector_width': 16, **options})
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


@pytest.fixture
def batch_of_images():
    generator = torch.Generator().manual_seed(1)
    return dict(
        latents=torch.randn(3, 4, 4, 4, generator=generator),
        labels=torch.tensor([0, 4, 2]),
        images=torch.randint(256, (3, 3, 8, 8), generator=generator, dtype=torch.uint8),
    )


def three_streams():
    return SampleStreams(0, torch.arange(3))


def test_the_loss_is_denoising_minus_the_weighted_cosine(batch_of_images):
    encoder = Encoder()
    model = REPA(aligned(), Interpolant(), encoder=encoder, weight=0.25, p_unconditional=0.0)
    found = model.loss(batch_of_images, three_streams())
    # the same noise and time as SiT's
    between = model.interpolate(batch_of_images, three_streams())
    output, (projected,) = model.network.forward_with_features(between.noisy, between.times, between.labels)
    denoising = (output - (between.noise - batch_of_images['latents'])).square().mean()
    features = encoder(batch_of_images['images'])
    cosine = (F.normalize(projected, dim=2) * F.normalize(features, dim=2)).sum(dim=2).mean()
    torch.testing.assert_close(found['denoising'], denoising)
    torch.testing.assert_close(found['alignment'], -cosine)
    torch.testing.assert_close(found['loss'], denoising - 0.25 * cosine)
    plain = SiT(model.network, Interpolant(), p_unconditional=0.0).loss(batch_of_images, three_streams())
    torch.testing.assert_close(plain['loss'], denoising)


def test_stored_features_are_preferred_to_the_encoder(batch_of_images):
    features = Encoder()(batch_of_images['images'])
    without = REPA(aligned(), Interpolant()).loss(dict(batch_of_images, features=features), three_streams())
    encoder = Encoder()
    with_both = REPA(aligned(), Interpolant(), encoder=encoder).loss(
        dict(batch_of_images, features=features), three_streams()
    )
    of_images = REPA(aligned(), Interpolant(), encoder=Encoder()).loss(batch_of_images, three_streams())
    assert not encoder.seen
    assert with_both == without
    torch.testing.assert_close(of_images['loss'], without['loss'])


def test_features_are_of_the_tapped_block(batch_of_images):
    taps = [
        REPA(aligned(tap=tap), Interpolant(), encoder=Encoder()).loss(batch_of_images, three_streams())['alignment']
        for tap in (1, 2)
    ]
    assert abs(taps[0] - taps[1]) > 1e-3


def test_the_encoder_is_no_part_of_the_model():
    encoder = torch.nn.Linear(2, 6)
    encoder.num_features = 6
    model = REPA(aligned(), Interpolant(), encoder=encoder)
    assert set(model.state_dict()) == {f'network.{name}' for name in model.network.state_dict()}
    assert model.encoder is encoder


def test_unfit_arguments_are_refused(batch_of_images):
    with pytest.raises(ValueError, match=r'features of \(5,\); expected one encoder, .* 6; set .*feature_dims=\(6,\)'):
        REPA(aligned(feature_dims=(5,)), Interpolant(), encoder=Encoder())
    with pytest.raises(ValueError, match=r'features of \(6, 7\); expected one encoder'):
        REPA(aligned(feature_dims=(6, 7)), Interpolant())
    with pytest.raises(ValueError, match='REPA.network: got DiffusionTransformer; expected AlignedTransformer'):
        REPA(DiffusionTransformer(**SHAPE), Interpolant())
    with pytest.raises(ValueError, match='REPA.weight must be at least 0, got -1'):
        REPA(aligned(), Interpolant(), weight=-1)
    with pytest.raises(ValueError, match='no features, and there is no encoder; .*cache_encoder'):
        REPA(aligned(), Interpolant()).loss(batch_of_images, three_streams())
    del batch_of_images['images']
    with pytest.raises(ValueError, match='no features, and there is no image for the encoder'):
        REPA(aligned(), Interpolant(), encoder=Encoder()).loss(batch_of_images, three_streams())
    with pytest.raises(ValueError, match='features of 9 tokens and width 6; expected 4 tokens and width 6'):
        REPA(aligned(), Interpolant()).loss(dict(batch_of_images, features=torch.randn(3, 9, 6)), three_streams())
