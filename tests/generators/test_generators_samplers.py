"""Samplers and guidance: a sample is the same in every batch, guidance by its formula, and refused arguments."""

import inspect

import numpy as np
import pytest
import torch
from formula_networks import LATENTS, fill, wave
from gaussian_data import LABELS, draw, generator, streams, transformer
from torch import nn

from eqzoo.generators import (
    DDIM,
    DDPM,
    ODE,
    SDE,
    AutoGuidance,
    ClassifierFree,
    DiffusionTransformer,
    DiT,
    DPMSolver,
    GaussianDiffusion,
    Interpolant,
    ShiftedODE,
    SiT,
)
from eqzoo.generators.guidance import Guidance

X = wave(4, 4, 8, 8, step=0.9)
TIMES = torch.tensor([0.1, 0.4, 0.6, 0.9])
CLASSES = torch.tensor([0, 3, 9, 10])
NOTHING = torch.full((4,), 10)


class Counting(nn.Module):
    """A network that counts its calls and the samples in them."""

    def __init__(self, network):
        super().__init__()
        self.network, self.sizes = network, []
        self.latent_shape, self.num_classes = network.latent_shape, network.num_classes

    def forward(self, x, times, labels):
        self.sizes.append(len(x))
        return self.network(x, times, labels)


def network(depth=2, **arguments):
    return fill(DiffusionTransformer((depth, 32, 2), 2, **{**LATENTS, **arguments}))


def ask(guidance, net, noise_time=TIMES):
    with torch.no_grad():
        return guidance(net, X, TIMES, CLASSES, noise_time)


def plain(net, labels=CLASSES):
    with torch.no_grad():
        return net(X, TIMES, labels)


CLOSE = dict(rtol=1e-5, atol=1e-6)  # batches of other sizes are summed in another order


def test_guidance_moves_away_from_the_unconditional_prediction():
    net = network()
    conditional, unconditional = plain(net), plain(net, NOTHING)
    assert (conditional - unconditional)[:3].abs().amax(dim=(1, 2, 3)).min() > 1e-3
    guided = ask(ClassifierFree(4.0), net)
    expected = unconditional[:, :4] + 4 * (conditional - unconditional)[:, :4]
    torch.testing.assert_close(guided[:, :4], expected, **CLOSE)
    torch.testing.assert_close(guided[:, 4:], conditional[:, 4:], **CLOSE)  # the learned variance
    torch.testing.assert_close(guided[3], conditional[3], **CLOSE)  # which is of no class already


def test_published_guidance_is_of_three_channels():
    net = network()
    three, four = (ask(ClassifierFree(4.0, channels=channels), net) for channels in (3, 4))
    torch.testing.assert_close(three[:, :3], four[:, :3], rtol=0, atol=0)
    torch.testing.assert_close(three[:, 3:], plain(net)[:, 3:], **CLOSE)
    assert (four[:3, 3] - three[:3, 3]).abs().max() > 1e-3
    assert torch.equal(ask(ClassifierFree(4.0), net), four)


def test_guidance_applies_and_costs_only_within_its_interval():
    net = Counting(network())
    guided = ask(ClassifierFree(4.0, interval=(0.4, 0.6)), net, torch.tensor([0.39, 0.4, 0.6, 0.61]))
    everywhere, conditional = ask(ClassifierFree(4.0), net), plain(net)
    torch.testing.assert_close(guided[[0, 3]], conditional[[0, 3]], **CLOSE)
    torch.testing.assert_close(guided[[1, 2]], everywhere[[1, 2]], **CLOSE)
    assert (guided[[1, 2]] - conditional[[1, 2]]).flatten(1).abs().amax(dim=1).min() > 1e-3
    assert net.sizes == [6, 8, 4]


def test_guidance_that_changes_nothing_costs_nothing():
    net = Counting(network())
    assert torch.equal(ask(ClassifierFree(1.0), net), plain(net))
    assert torch.equal(ask(ClassifierFree(4.0, interval=(0.0, 0.05)), net), plain(net))
    assert net.sizes == [4, 4, 4, 4]
    worse = Counting(network(1))
    assert torch.equal(ask(AutoGuidance(1.0, worse), net), plain(net))
    assert worse.sizes == []


def test_a_scale_of_zero_is_the_prediction_for_no_class():
    net = network()
    torch.testing.assert_close(ask(ClassifierFree(0.0), net)[:, :4], plain(net, NOTHING)[:, :4], **CLOSE)


def test_autoguidance_moves_away_from_the_worse_network():
    net, worse = network(), Counting(network(1, learn_sigma=False))
    guided = ask(AutoGuidance(2.5, worse, interval=(0.3, 1.0)), net)
    conditional, bad = plain(net), plain(worse)
    torch.testing.assert_close(guided[1:, :4], (bad + 2.5 * (conditional[:, :4] - bad))[1:], **CLOSE)
    torch.testing.assert_close(guided[0], conditional[0])
    torch.testing.assert_close(guided[:, 4:], conditional[:, 4:])
    assert worse.sizes == [3, 4]


def test_autoguidance_leaves_the_worse_network_as_it_is():
    worse = network(1).train()
    AutoGuidance(2.0, worse)
    assert not worse.training
    assert not any(parameter.requires_grad for parameter in worse.parameters())


def test_worse_networks_of_other_latents_or_classes_are_refused():
    with pytest.raises(ValueError, match=r'latents \(4, 4, 4\) and 10 classes; expected .*\(4, 8, 8\)'):
        ask(AutoGuidance(2.0, network(1, latent_size=4)), network())
    with pytest.raises(ValueError, match=r'and 7 classes; expected .*\(4, 8, 8\) and 10'):
        ask(AutoGuidance(2.0, network(1, num_classes=7)), network())


@pytest.mark.parametrize(
    ('guidance', 'message'),
    [
        (ClassifierFree(2.0, channels=5), 'ClassifierFree.channels: got 5; expected 1 to 4'),
        (AutoGuidance(2.0, network(1, num_classes=7)), 'AutoGuidance.network: got .* and 7 classes'),
    ],
)
def test_guidance_of_another_network_is_refused_before_the_first_step(guidance, message):
    generator = DiT(network(), GaussianDiffusion())
    DDPM(4, guidance=ClassifierFree(2.0, channels=4)).check(generator)
    with pytest.raises(ValueError, match=message):
        DDPM(4, guidance=guidance).check(generator)


@pytest.mark.parametrize('interval', [(-0.1, 1), (0, 1.1), (0.5, 0.5), (0.7, 0.3)])
def test_impossible_intervals_are_refused(interval):
    with pytest.raises(ValueError, match=r'ClassifierFree.interval: got .*; expected 0 <= low < high <= 1'):
        ClassifierFree(2.0, interval=interval)
    with pytest.raises(ValueError, match=r'AutoGuidance.interval: got'):
        AutoGuidance(2.0, network(1), interval=interval)


def test_impossible_channels_are_refused():
    with pytest.raises(ValueError, match='ClassifierFree.channels must be at least 1 or None, got 0'):
        ClassifierFree(2.0, channels=0)
    with pytest.raises(ValueError, match='ClassifierFree.channels: got 5; expected 1 to 4'):
        ask(ClassifierFree(2.0, channels=5), network())


CASES = {
    'ddpm': (DDPM(5), DiT, GaussianDiffusion()),
    'ddim': (DDIM(5), DiT, GaussianDiffusion()),
    'ddim-eta': (DDIM(5, eta=0.5), DiT, GaussianDiffusion()),
    'dpm': (DPMSolver(5), DiT, GaussianDiffusion()),
    'euler': (ODE('euler', steps=5), SiT, Interpolant()),
    'heun': (ODE('heun', steps=3), SiT, Interpolant()),
    'shifted': (ShiftedODE('heun', steps=3), SiT, Interpolant()),
    'dopri5': (ODE(), SiT, Interpolant()),
    'sde': (SDE(5), SiT, Interpolant()),
    'guided': (SDE(5, guidance=ClassifierFree(3.0, interval=(0.2, 0.7))), SiT, Interpolant()),
}


@pytest.mark.parametrize('case', CASES)
def test_a_sample_is_the_same_in_every_batch(case):
    sampler, kind, process = CASES[case]
    generator, labels = transformer(kind, process), torch.tensor([0, 3, 10, 7, 2])
    whole = sampler(generator, labels, streams([4, 0, 9, 2, 7]))
    parts = [sampler(generator, labels[:2], streams([4, 0])), sampler(generator, labels[2:], streams([9, 2, 7]))]
    assert whole.shape == (5, 4, 8, 8)
    assert not whole.requires_grad
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))
    assert (whole[0] - whole[1]).abs().max() > 0.1
    other_class = sampler(generator, torch.tensor([1, 3, 10, 7, 2]), streams([4, 0, 9, 2, 7]))
    assert (other_class[0] - whole[0]).abs().max() > 1e-4
    torch.testing.assert_close(other_class[1:], whole[1:], rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


class Swinging(nn.Module):
    """A velocity that oscillates with the class as frequency, so that some samples take more steps than others."""

    latent_shape, num_classes, out_channels = (1, 2, 2), 40, 1

    def forward(self, x, times, labels):
        angles = (labels * times).view(-1, 1, 1, 1)
        return labels.view(-1, 1, 1, 1) * angles.cos() + 0 * x


def test_samples_with_more_steps_keep_their_labels():
    swinging, labels = SiT(Swinging(), Interpolant()), torch.tensor([0, 30, 1, 17])
    noise = streams(range(4)).normal(torch.zeros(4, 1, 2, 2))
    samples = ODE(rtol=1e-5)(swinging, labels, streams(range(4)))
    expected = noise - labels.double().sin().view(-1, 1, 1, 1)
    torch.testing.assert_close(samples, expected.float(), rtol=0, atol=1e-3)


class Recording(Guidance):
    """Guidance that changes nothing and records its times."""

    def __init__(self):
        super().__init__(2.0)
        self.times, self.noise_times = [], []

    def __call__(self, network, x, times, labels, noise_time):
        assert x.dtype == torch.float32
        assert times.shape == noise_time.shape == labels.shape
        self.times.append(float(times[0]))
        self.noise_times.append(float(noise_time[0]))
        return network(x, times, labels)


@pytest.mark.parametrize('kind', [DDPM, DDIM])
def test_diffusion_is_guided_by_the_share_of_its_steps(kind):
    guidance = Recording()
    samples = draw(kind(10, guidance=guidance), GaussianDiffusion())
    assert guidance.times == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert guidance.noise_times == pytest.approx(np.linspace(1, 0, 10).tolist(), abs=1e-6)
    assert torch.equal(samples, draw(kind(10), GaussianDiffusion()))


def test_dpm_solver_is_guided_by_the_share_of_its_steps():
    guidance = Recording()
    draw(DPMSolver(3, guidance=guidance), GaussianDiffusion())
    assert guidance.times == [999, 666, 333]
    assert guidance.noise_times == pytest.approx([1, 2 / 3, 1 / 3], abs=1e-6)


@pytest.mark.parametrize('kind', [ODE, SDE])
@pytest.mark.parametrize('network_time', ['data_to_noise', 'noise_to_data'])
def test_interpolants_are_guided_by_noise_whatever_the_network_counts(kind, network_time):
    guidance, process = Recording(), Interpolant(network_time=network_time)
    given = dict(method='heun') if kind is ODE else {}
    samples = draw(kind(**given, steps=5, guidance=guidance), process)
    seen = np.array(guidance.noise_times)
    assert seen[0] == 1
    assert (np.diff(seen) <= 0).all()
    expected = seen if network_time == 'data_to_noise' else 1 - seen
    np.testing.assert_allclose(guidance.times, expected, atol=1e-6)
    assert torch.equal(samples, draw(kind(**given, steps=5), process))


@pytest.mark.parametrize('case', CASES)
def test_guidance_changes_samples(case):
    sampler, kind, process = CASES[case]
    arguments = {
        name: getattr(sampler, name) for name in inspect.signature(type(sampler)).parameters if name != 'guidance'
    }
    generator, labels = transformer(kind, process), torch.tensor([0, 3])
    plain, guided = (
        type(sampler)(**arguments, guidance=guidance)(generator, labels, streams([0, 1]))
        for guidance in (None, ClassifierFree(3.0))
    )
    assert (plain - guided).abs().max() > 1e-3


@pytest.mark.parametrize('kind', [DDPM, DDIM, DPMSolver, ODE, SDE, ShiftedODE])
def test_smoke_takes_very_few_steps(kind):
    arguments = kind.smoke(dict(steps=250))
    process = Interpolant() if kind in (ODE, SDE, ShiftedODE) else GaussianDiffusion()
    built = generator(process)
    kind(**arguments)(built, LABELS, streams())
    assert len(built.network.seen) <= (15 if kind is ODE else 2)


@pytest.mark.parametrize('sampler', [DDPM(), DDIM(), DPMSolver()])
def test_samplers_of_diffusion_refuse_interpolants(sampler):
    with pytest.raises(ValueError, match='samples from GaussianDiffusion; SiT has Interpolant; DDPM, DDIM and DPM'):
        sampler.check(transformer())


@pytest.mark.parametrize('sampler', [ODE(), SDE(), ShiftedODE()])
def test_samplers_of_interpolants_refuse_diffusion(sampler):
    with pytest.raises(ValueError, match='samples from Interpolant; DiT has GaussianDiffusion'):
        sampler(transformer(DiT, GaussianDiffusion()), LABELS, streams())


@pytest.mark.parametrize('labels', [[0, 11], [-1, 3]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError, match=r'labels: got (11|-1); expected 0 to 9, or 10 '):
        ODE('euler')(transformer(), torch.tensor(labels), streams([0, 1]))


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: DDPM(1), 'DDPM.steps must be at least 2, got 1'),
        (lambda: DDIM(1), 'DDIM.steps must be at least 2, got 1'),
        (lambda: DPMSolver(0), 'DPMSolver.steps must be at least 1, got 0'),
        (lambda: DDIM(eta=1.5), r'DDIM.eta must be in \[0, 1\], got 1.5'),
        (lambda: ODE('rk4'), "ODE.method must be 'euler', 'heun' or 'dopri5', got 'rk4'"),
        (lambda: ODE('euler', steps=0), 'ODE.steps must be at least 1, got 0'),
        (lambda: ODE(rtol=0), 'ODE.rtol must be above 0, got 0'),
        (lambda: ODE(atol=-1), 'ODE.atol must be above 0, got -1'),
        (lambda: ShiftedODE('dopri5'), "ShiftedODE.method must be 'euler' or 'heun', got 'dopri5'"),
        (lambda: ShiftedODE(shift=0), 'ShiftedODE.shift must be above 0, got 0'),
        (lambda: SDE(1), 'SDE.steps must be at least 2, got 1'),
        (lambda: SDE(diffusion='ddpm'), "SDE.diffusion must be 'sigma', 'linear', 'sbdm', .*, got 'ddpm'"),
        (lambda: SDE(last_step='Mean'), "SDE.last_step must be 'mean', 'tweedie', 'euler' or None, got 'Mean'"),
        (lambda: SDE(last_step_size=0), r'SDE.last_step_size must be in \(0, 1\), got 0'),
        (lambda: SDE(diffusion_scale=-1), 'SDE.diffusion_scale must be at least 0, got -1'),
    ],
)
def test_impossible_samplers_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
