"""What samplers draw with exact networks, and what is known of it."""

import pytest
import torch
from deterministic import LATENTS, fill
from exact import MEAN, STD, generator

from eqzoo.generators import DiffusionTransformer, Interpolant, SiT
from eqzoo.randomness import SampleStreams

COUNT = 16  # samples of 256 values: mean and deviation are known to 0.011 and 0.008
LABELS = torch.arange(COUNT) % 4
FORMS = ('sigma', 'linear', 'sbdm', 'constant', 'decreasing', 'increasing-decreasing')


def streams(numbers=range(COUNT)):
    return SampleStreams(0, torch.tensor(list(numbers)))


def first_noise():
    return streams().normal(torch.zeros(COUNT, 1, 16, 16))


def draw(sampler, process, extra=None):
    return sampler(generator(process, extra), LABELS, streams())


def assert_gaussian(samples, tolerance=0.03):
    assert samples.dtype == torch.float32
    assert float(samples.mean()) == pytest.approx(MEAN, abs=tolerance)
    assert float(samples.std()) == pytest.approx(STD, abs=tolerance)


def transformer(kind=SiT, process=None, **arguments):
    network = fill(DiffusionTransformer((1, 32, 2), 4, **{**LATENTS, **arguments}))
    return kind(network, process or Interpolant()).eval()
