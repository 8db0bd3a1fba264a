"""Latent moments: the plain formulas over all latents at once, and what normalisation they give."""

from types import SimpleNamespace

import pytest
import torch

from eqzoo.autoencoders import KLAutoencoder, VQAutoencoder
from eqzoo.normalization import LatentMoments, LatentNormalization, measure_moments


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
