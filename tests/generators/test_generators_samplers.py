"""What all samplers share: sample n is itself in every batch, guidance, and what is refused."""

import inspect

import numpy as np
import pytest
import torch
from drawing import LABELS, draw, streams, transformer
from exact import generator
from torch import nn

from eqzoo.generators import DDIM, DDPM, ODE, SDE, ClassifierFree, DiT, DPMSolver, GaussianDiffusion, Interpolant, SiT
from eqzoo.generators.guidance import Guidance

CASES = {
    'ddpm': (DDPM(5), DiT, GaussianDiffusion()),
    'ddim': (DDIM(5), DiT, GaussianDiffusion()),
    'ddim-eta': (DDIM(5, eta=0.5), DiT, GaussianDiffusion()),
    'dpm': (DPMSolver(5), DiT, GaussianDiffusion()),
    'euler': (ODE('euler', steps=5), SiT, Interpolant()),
    'heun': (ODE('heun', steps=3), SiT, Interpolant()),
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
    """A velocity that swings as often as the class says, so that some samples take more steps than others."""

    latent_shape, num_classes, out_channels = (1, 2, 2), 40, 1

    def forward(self, x, times, labels):
        angles = (labels * times).view(-1, 1, 1, 1)
        return labels.view(-1, 1, 1, 1) * angles.cos() + 0 * x


def test_samples_that_go_on_longer_keep_their_classes():
    swinging, labels = SiT(Swinging(), Interpolant()), torch.tensor([0, 30, 1, 17])
    noise = streams(range(4)).normal(torch.zeros(4, 1, 2, 2))
    samples = ODE(rtol=1e-5)(swinging, labels, streams(range(4)))
    expected = noise - labels.double().sin().view(-1, 1, 1, 1)
    torch.testing.assert_close(samples, expected.float(), rtol=0, atol=1e-3)


class Recording(Guidance):
    """Guidance that changes nothing and keeps the times that it is told."""

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


@pytest.mark.parametrize('kind', [DDPM, DDIM, DPMSolver, ODE, SDE])
def test_smoke_takes_hardly_any_steps(kind):
    arguments = kind.smoke(dict(steps=250))
    process = Interpolant() if kind in (ODE, SDE) else GaussianDiffusion()
    built = generator(process)
    kind(**arguments)(built, LABELS, streams())
    assert len(built.network.seen) <= (15 if kind is ODE else 2)


@pytest.mark.parametrize('sampler', [DDPM(), DDIM(), DPMSolver()])
def test_samplers_of_diffusion_refuse_interpolants(sampler):
    with pytest.raises(ValueError, match='samples from GaussianDiffusion; SiT has Interpolant; DDPM, DDIM and DPM'):
        sampler.check(transformer())


@pytest.mark.parametrize('sampler', [ODE(), SDE()])
def test_samplers_of_interpolants_refuse_diffusion(sampler):
    with pytest.raises(ValueError, match='samples from Interpolant; DiT has GaussianDiffusion'):
        sampler(transformer(DiT, GaussianDiffusion()), LABELS, streams())


@pytest.mark.parametrize('labels', [[0, 11], [-1, 3]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError, match=r'labels: got .*; accepted are 0 to 9, and 10 for no class'):
        ODE('euler')(transformer(), torch.tensor(labels), streams([0, 1]))


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: DDPM(1), 'DDPM.steps must be at least 2, got 1'),
        (lambda: DDIM(1), 'DDIM.steps must be at least 2, got 1'),
        (lambda: DPMSolver(0), 'DPMSolver.steps must be at least 1, got 0'),
        (lambda: DDIM(eta=1.5), r'DDIM.eta must be in \[0, 1\], got 1.5'),
        (lambda: ODE('rk4'), "ODE.method: got 'rk4'; accepted are 'euler', 'heun' and 'dopri5'"),
        (lambda: ODE('euler', steps=0), 'ODE.steps must be at least 1, got 0'),
        (lambda: ODE(rtol=0), 'ODE.rtol and ODE.atol must be positive, got 0 and 1e-06'),
        (lambda: ODE(atol=-1), 'ODE.rtol and ODE.atol must be positive, got 0.001 and -1'),
        (lambda: SDE(1), 'SDE.steps must be at least 2, got 1'),
        (lambda: SDE(diffusion='ddpm'), "SDE.diffusion: got 'ddpm'; accepted are 'sigma', 'linear', 'sbdm'"),
        (lambda: SDE(last_step='Mean'), "SDE.last_step: got 'Mean'; accepted are 'mean', 'tweedie', 'euler', None"),
        (lambda: SDE(last_step_size=0), r'SDE.last_step_size must be in \(0, 1\), got 0'),
        (lambda: SDE(diffusion_scale=-1), 'SDE.diffusion_scale must not be negative, got -1'),
    ],
)
def test_impossible_samplers_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
