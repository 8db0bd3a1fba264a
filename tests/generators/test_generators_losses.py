"""Losses of generators: what comes from which number of a sample's stream, and labels left out."""

import pytest
import torch
from deterministic import LATENTS, fill, wave
from torch import nn

from eqzoo.generators import DiffusionTransformer, DiT, GaussianDiffusion, Interpolant, SiT
from eqzoo.randomness import SampleStreams

LABELS = torch.tensor([0, 3, 9, 5, 7])
NUMBERS = torch.arange(5)


def network(learn_sigma=True):
    return fill(DiffusionTransformer((2, 32, 2), 2, **LATENTS, learn_sigma=learn_sigma))


def batch(places=slice(None)):
    return dict(latents=wave(5, 4, 8, 8, step=0.9)[places], labels=LABELS[places])


class Recorder(nn.Module):
    """A network that predicts zero and keeps what it was given."""

    num_classes, latent_shape, out_channels = 10, (4, 8, 8), 4

    def forward(self, x, times, labels):
        self.x, self.times, self.labels = x, times, labels
        return torch.zeros_like(x)


def streams(places=slice(None), seed=0):
    return SampleStreams(seed, NUMBERS[places])


def drawn():
    """Return the numbers that samples draw for uniform times: time, noise, label."""
    source = streams()
    return source.uniform(), source.normal(batch()['latents']), source.uniform()


@pytest.mark.parametrize('learn_sigma', [True, False])
def test_dit_is_trained_on_its_streams(learn_sigma):
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
def test_sit_is_trained_on_its_streams(network_time):
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


@pytest.mark.parametrize(
    'generator',
    [
        DiT(network(), GaussianDiffusion()),
        SiT(network(), Interpolant('vp', 'noise', 'velocity')),
        SiT(network(), Interpolant(time_sampling='lognormal')),
    ],
    ids=['dit', 'sit', 'lognormal'],
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
def test_labels_are_left_out_as_often_as_asked(kind, process, probability):
    recorder, count = Recorder(), 2000
    given = dict(latents=torch.zeros(count, 4, 1, 1), labels=torch.full((count,), 3))
    kind(recorder, process, p_unconditional=probability).loss(given, SampleStreams(0, torch.arange(count)))
    left_out = recorder.labels == 10
    assert (recorder.labels[~left_out] == 3).all()
    assert float(left_out.float().mean()) == pytest.approx(probability, abs=0.02 if 0 < probability < 1 else 0)
    assert given['labels'].eq(3).all()


def test_labels_are_left_out_one_time_in_ten_by_default():
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
    with pytest.raises(ValueError, match='DiT.process: got Interpolant; accepted is GaussianDiffusion; see SiT'):
        DiT(Recorder(), Interpolant())
    with pytest.raises(ValueError, match='SiT.process: got GaussianDiffusion; accepted is Interpolant; see DiT'):
        SiT(Recorder(), GaussianDiffusion())


@pytest.mark.parametrize('probability', [-0.1, 1.1])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(ValueError, match=f'DiT.p_unconditional must be in .0, 1., got {probability}'):
        DiT(Recorder(), GaussianDiffusion(), p_unconditional=probability)
    with pytest.raises(ValueError, match=f'SiT.p_unconditional must be in .0, 1., got {probability}'):
        SiT(Recorder(), Interpolant(), p_unconditional=probability)
