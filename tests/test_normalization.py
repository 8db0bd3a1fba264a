"""Latent normalisation: both ways to state it, its inverse, its place in the checkpoint."""

import pytest
import torch

from eqzoo.normalization import LatentNormalization


@pytest.fixture
def z():
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def test_scale_and_shift_follow_diffusers_formula(z):
    normalization = LatentNormalization(3, scale=1.5305, shift=0.0609)
    assert torch.equal(normalization.normalize(z), (z - 0.0609) * 1.5305)
    assert torch.equal(normalization.denormalize(z), z / 1.5305 + 0.0609)


def test_mean_and_std_standardise_each_channel(z):
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    normalization = LatentNormalization(3, mean=mean.tolist(), std=std.tolist())
    result = normalization.normalize(z)
    torch.testing.assert_close(result.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(result.std((0, 2, 3)), torch.ones(3))
    torch.testing.assert_close(normalization.mean, mean)
    torch.testing.assert_close(normalization.std, std)


@pytest.mark.parametrize(
    'arguments',
    [dict(scale=0.18215), dict(scale=(0.5, 3.0, 7.0), shift=(-4.0, 0.0, 2.0)), dict(mean=(1.0, 2.0, 3.0), std=10.0)],
)
def test_denormalize_inverts_normalize(z, arguments):
    normalization = LatentNormalization(3, **arguments)
    # Three roundings of values up to about 10, each relative 6e-8.
    torch.testing.assert_close(normalization.denormalize(normalization.normalize(z)), z, atol=4e-6, rtol=0)
    assert not torch.allclose(normalization.normalize(z), z)


def test_default_passes_raw_latents_on(z):
    assert torch.equal(LatentNormalization(3).normalize(z), z)


def test_travels_in_the_state_dict_with_one_shape(z):
    scalar = LatentNormalization(3, scale=0.5)
    per_channel = LatentNormalization(3, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    assert {key: tuple(value.shape) for key, value in scalar.state_dict().items()} == {'shift': (3,), 'scale': (3,)}
    scalar.load_state_dict(per_channel.state_dict())
    assert torch.equal(scalar.normalize(z), per_channel.normalize(z))
    assert not list(scalar.parameters())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scale=1.0, std=1.0), 'two ways to say the same'),
        (dict(shift=0.0, mean=1.0), 'two ways to say the same'),
        (dict(scale=(1.0, 2.0)), r'scale: got \(1.0, 2.0\); accepted is one finite number, or 3'),
        (dict(mean=(1.0,)), r'mean: got \(1.0,\)'),
        (dict(shift=float('nan')), 'shift: got nan'),
        (dict(scale=0.0), 'scale must be positive'),
        (dict(std=(1.0, -1.0, 1.0)), 'std must be positive'),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        LatentNormalization(3, **arguments)
