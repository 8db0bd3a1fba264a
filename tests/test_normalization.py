"""Latent normalisation: both ways to state it, its inverse, its place in checkpoints; and moments of latents."""

import copy
from types import SimpleNamespace

import pytest
import torch

from eqzoo.autoencoders import KLAutoencoder, VQAutoencoder
from eqzoo.normalization import (
    LatentMoments,
    LatentNormalization,
    LatentSums,
    measure_moments,
    normalization_difference,
)


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


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_rounds_latents_but_not_the_normalisation(z, dtype):
    """In bfloat16, 0.18215 would be 0.18262."""
    exact = LatentNormalization(3, scale=0.18215, shift=0.0609)
    half = LatentNormalization(3, scale=0.18215, shift=0.0609).to(dtype)
    assert torch.equal(half.scale, exact.scale)
    assert torch.equal(half.shift, exact.shift)
    rounded = z.to(dtype)
    assert torch.equal(half.normalize(rounded), exact.normalize(rounded.float()).to(dtype))
    assert torch.equal(half.denormalize(rounded), exact.denormalize(rounded.float()).to(dtype))
    assert torch.equal(half.normalize(z), exact.normalize(z))
    assert exact.normalize(rounded).dtype == half.float().normalize(rounded).dtype == torch.float32
    assert copy.deepcopy(exact).to(dtype).normalize(rounded).dtype == dtype
    assert half.double().scale.dtype == torch.float64
    assert torch.equal(
        half.normalize(z), (z - exact.shift[:, None, None].double()) * exact.scale[:, None, None].double()
    )


def test_moves_reach_the_buffers():
    moved = LatentNormalization(3, scale=2.0).to('meta', torch.bfloat16)
    assert (moved.scale.device.type, moved.scale.dtype) == ('meta', torch.float32)
    moved = moved.to_empty(device='cpu').cpu()
    moved.load_state_dict(LatentNormalization(3, scale=0.5).state_dict())
    normalized = moved.normalize(torch.ones(1, 3, 1, 1, dtype=torch.bfloat16))
    assert normalized.dtype == torch.bfloat16  # a move without a type keeps it
    assert normalized.flatten().tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scale=1.0, std=1.0), 'expected scale and shift, or mean and std'),
        (dict(shift=0.0, mean=1.0), 'expected scale and shift, or mean and std'),
        (dict(scale=(1.0, 2.0)), r'scale: got \(1.0, 2.0\); expected one finite number, or 3'),
        (dict(mean=(1.0,)), r'mean: got \(1.0,\)'),
        (dict(shift=float('nan')), 'shift: got nan'),
        (dict(scale=0.0), 'scale must be positive'),
        (dict(std=(1.0, -1.0, 1.0)), 'std must be positive'),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        LatentNormalization(3, **arguments)


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        (dict(), None),
        (dict(scale=[0.5 * (1 + 1e-5), 3.0]), None),
        (dict(shift=[1.0, 1e-7]), None),
        (dict(scale=[0.5 * (1 + 1e-3), 3.0]), 'scale'),
        (dict(shift=[1.0, 1e-3], scale=[1.0, 3.0]), 'shift'),
        (dict(scale=[0.5]), 'scale'),
    ],
)
def test_a_difference_beyond_rounding_is_named(change, name):
    stated = dict(shift=[1.0, 0.0], scale=[0.5, 3.0])
    assert normalization_difference(stated, {**stated, **change}) == name
    tensors = {key: torch.tensor(value) for key, value in {**stated, **change}.items()}
    assert normalization_difference(stated, tensors) == name


class Fixed:
    """Encodes an image of index i to the i-th of given latents."""

    latent_channels = 3
    last_layer = torch.zeros(())

    def __init__(self, means, std=None):
        self.means, self.std = means, std

    def encode(self, images):
        indices = images[:, 0, 0, 0].long()
        std = None if self.std is None else self.std[indices]
        return SimpleNamespace(mean=self.means[indices], std=std)


def latents(*shape):
    offsets = torch.tensor([1.0, -2.0, 30.0])[:, None, None]
    return (
        torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0, 0.5])[:, None, None]
        + offsets
    )


def batches(count, size):
    return torch.arange(count).float()[:, None, None, None].expand(count, 3, 1, 1).split(size)


@pytest.mark.parametrize('size', [1, 4, 11])
def test_moments_are_those_of_all_latents_together(size):
    means = latents(11, 3, 4, 5)
    moments = measure_moments(Fixed(means), batches(11, size))
    assert moments.num_images == 11
    torch.testing.assert_close(moments.mean.float(), means.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(moments.std.float(), means.std(dim=(0, 2, 3), correction=0))
    assert moments.overall_mean == pytest.approx(means.mean().item(), rel=1e-6)
    assert moments.overall_std == pytest.approx(means.std(correction=0).item(), rel=1e-6)


def test_the_posteriors_own_variance_counts():
    """As measured on many draws, which is what a generator sees."""
    means, std = latents(4, 3, 4, 4), torch.rand(4, 3, 4, 4) * 3
    moments = measure_moments(Fixed(means, std), batches(4, 2))
    noise = torch.randn(4000, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    draws = means + std * noise
    torch.testing.assert_close(moments.std.float(), draws.std(dim=(0, 1, 3, 4)), rtol=5e-3, atol=0)


@pytest.mark.parametrize('kind', ['scale', 'shift_scale', 'per_channel'])
def test_normalisation_brings_latents_to_unit_spread(kind):
    means = latents(8, 3, 4, 4)
    shift, scale = measure_moments(Fixed(means), batches(8, 3)).normalization(kind)
    normalization = LatentNormalization(3, shift=shift.tolist(), scale=scale.tolist())
    z = normalization.normalize(means)
    if kind == 'per_channel':
        torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(z.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    else:
        assert z.std(correction=0).item() == pytest.approx(1, abs=1e-5)
        assert len(set(scale.tolist())) == len(set(shift.tolist())) == 1
        assert z.mean().item() == pytest.approx(
            0 if kind == 'shift_scale' else (means.mean() / means.std()).item(), abs=1e-2
        )


@pytest.mark.parametrize('cls', [KLAutoencoder, VQAutoencoder])
def test_real_autoencoders_are_measured_in_raw_units(cls):
    autoencoder = cls(4, block_out_channels=(8, 8), attention_levels=(), norm_num_groups=4, scale=5.0).eval()
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    posterior = autoencoder.encode(images)
    moments = measure_moments(autoencoder, images.split(3))
    variance = posterior.mean.var(dim=(0, 2, 3), correction=0)
    if posterior.std is not None:
        variance = variance + posterior.std.square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(moments.variance.float(), variance)


def test_mistakes_are_told():
    with pytest.raises(ValueError, match='latent statistics: there is no image'):
        measure_moments(KLAutoencoder(4, (8, 8), norm_num_groups=4), [])
    flat = LatentMoments(torch.zeros(2).double(), torch.tensor([1.0, 0.0]).double(), 3)
    with pytest.raises(ValueError, match='the latents of a channel do not vary'):
        flat.normalization('per_channel')
    with pytest.raises(ValueError, match=r"must be scale, shift_scale or per_channel, got 'std'"):
        flat.normalization('std')


def test_sums_add_up_to_the_moments_of_all():
    generator = torch.Generator().manual_seed(0)
    mean, std = (torch.randn(6, 2, 3, 3, generator=generator) for _ in range(2))
    sums = LatentSums.of(mean[:2], std[:2]) + LatentSums.of(mean[2:], std[2:])
    moments = sums.moments(6)
    variance = mean.var((0, 2, 3), correction=0) + std.square().mean((0, 2, 3))
    assert moments.mean.tolist() == pytest.approx(mean.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert moments.std.tolist() == pytest.approx(variance.sqrt().tolist(), rel=1e-6)
    without = LatentSums.of(mean, None).moments(6)
    assert without.std.tolist() == pytest.approx(mean.std((0, 2, 3), correction=0).tolist(), rel=1e-6)


def test_moments_in_generator_units_are_those_of_normalised_latents():
    means = latents(8, 3, 4, 4)
    shift, scale = (1.0, -2.0, 5.0), (0.5, 2.0, 3.0)
    moments = measure_moments(Fixed(means), batches(8, 3)).normalized(shift, scale)
    z = LatentNormalization(3, shift=shift, scale=scale).normalize(means)
    torch.testing.assert_close(moments.mean.float(), z.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(moments.std.float(), z.std(dim=(0, 2, 3), correction=0))
    assert moments.overall_std == pytest.approx(z.std(correction=0).item(), rel=1e-5)
