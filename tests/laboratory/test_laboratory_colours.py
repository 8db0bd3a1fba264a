"""Comparable colours: one basis in one space, Procrustes between spaces."""

import pytest
import torch
import torch.nn.functional as F

from eqzoo.laboratory import align_basis, share_bases
from eqzoo.laboratory.colours import correlation, is_one_space
from eqzoo.pictures import fit_basis

DEVIATIONS = torch.tensor([5.0, 3.0, 2.0, 0.1])


@pytest.fixture
def latents():
    return torch.randn(2, 4, 8, 8) * DEVIATIONS[:, None, None] + 1.5


def moved(latents, matrix, offset=0.0):
    """Return latents (N, C, h, w) with `matrix` (C', C) applied to each cell."""
    return torch.einsum('dc,nchw->ndhw', matrix, latents) + offset


def orthonormal(rows, columns):
    return torch.linalg.qr(torch.randn(rows, columns)).Q


def colours(bases, latents):
    return {name: bases[name].basis.colours(latents[name]) for name in latents}


def test_in_one_space_the_same_latent_has_the_same_colour(latents):
    tuned = latents + 0.5 * torch.randn_like(latents)
    tuned[0, :, 0, 0] = latents[0, :, 0, 0]
    bases = share_bases({'plain': latents, 'eq': tuned})
    assert bases['plain'] is bases['eq']
    assert bases['eq'].group == ('plain', 'eq')
    assert (bases['eq'].reference, bases['eq'].agreement) == (None, None)
    # fitted on both: neither alone has this mean and this range
    together = fit_basis(latents, tuned)
    assert torch.equal(bases['eq'].basis.mean, together.mean)
    torch.testing.assert_close(together.mean, (latents.mean((0, 2, 3)) + tuned.mean((0, 2, 3))) / 2)
    assert not torch.equal(together.high, fit_basis(latents).high)
    shown = colours(bases, {'plain': latents, 'eq': tuned})
    assert torch.equal(shown['plain'][0, :, 0, 0], shown['eq'][0, :, 0, 0])
    assert not torch.allclose(shown['plain'][0], shown['eq'][0], atol=0.05)


@pytest.mark.parametrize('channels', [4, 9])
def test_a_space_that_is_only_rotated_has_the_same_colours(latents, channels):
    other = moved(latents, orthonormal(channels, 4) * 0.3, offset=-7.0)
    found = {'first': latents, 'other': other}
    bases = share_bases(found)
    assert bases['other'].group == ('other',)
    assert bases['other'].reference == 'first'
    assert bases['other'].agreement == pytest.approx(1, abs=1e-5)
    shown = colours(bases, found)
    torch.testing.assert_close(shown['other'], shown['first'], atol=1e-3, rtol=0)
    # without alignment the sign or the order of components may differ; this mirror image does
    mirrored = {'first': latents, 'other': -other}
    torch.testing.assert_close(colours(share_bases(mirrored), mirrored)['other'], shown['first'], atol=1e-3, rtol=0)
    own = [fit_basis(each).colours(each) for each in (other, -other)]
    assert not torch.allclose(own[0], own[1], atol=0.1)


def test_a_finer_grid_is_aligned_at_the_same_places(latents):
    fine = F.interpolate(moved(latents, orthonormal(6, 4)), scale_factor=2.0)
    bases = share_bases({'first': latents, 'fine': fine})
    assert bases['fine'].agreement == pytest.approx(1, abs=1e-3)
    shown = bases['fine'].basis.colours(fine)
    assert shown.shape == (2, 3, 16, 16)
    expected = F.interpolate(bases['first'].basis.colours(latents), scale_factor=2.0)
    # but for the percentiles, which lie otherwise among four times as many cells
    assert (shown - expected).abs().mean() < 0.03
    # what is in single cells and not in the mean of 2 x 2 does not count
    fine = fine + F.interpolate(torch.randn(2, 6, 8, 8), scale_factor=2.0) * torch.tensor([1.0, -1.0]).repeat(8)
    assert share_bases({'first': latents, 'fine': fine})['fine'].agreement == pytest.approx(1, abs=0.01)


def test_unrelated_latents_agree_little_and_do_not_share_a_basis(latents):
    stranger = torch.randn_like(latents) * DEVIATIONS[:, None, None]
    bases = share_bases({'first': latents, 'stranger': stranger})
    assert bases['stranger'].group == ('stranger',)
    assert bases['stranger'].agreement < 0.3


def test_a_second_pair_shares_its_own_rotated_basis(latents):
    pair = moved(latents, orthonormal(5, 4))
    found = {'a': latents, 'b': pair, 'a2': latents * 1.1, 'b2': pair * 1.1}
    bases = share_bases(found)
    assert list(bases) == list(found)
    assert bases['a'] is bases['a2']
    assert bases['b'] is bases['b2']
    assert (bases['b2'].group, bases['b2'].reference) == (('b', 'b2'), 'a')


def test_few_or_constant_channels_have_finite_colours(latents):
    found = {'first': latents, 'one': latents[:, :1], 'constant': torch.ones(2, 3, 8, 8)}
    bases = share_bases(found)
    shown = colours(bases, found)
    assert all(each.isfinite().all() and each.shape == (2, 3, 8, 8) for each in shown.values())
    # the one channel is the first component of the first, and has its colour
    assert abs(correlation(shown['one'][:, :1], shown['first'][:, :1])) > 0.9
    assert bases['constant'].agreement == 0
    flipped = {'constant': torch.ones(2, 3, 8, 8), 'second': latents}
    assert all(each.isfinite().all() for each in colours(share_bases(flipped), flipped).values())


def test_one_space_is_decided_by_correlation():
    latents, noise = torch.randn(2, 4, 4, 32, 32) * DEVIATIONS[:, None, None]
    assert correlation(latents, latents + 9) == pytest.approx(1)  # the channels' means do not count
    assert correlation(latents, latents + noise) == pytest.approx(0.5**0.5, abs=0.02)
    assert is_one_space(latents, latents + noise)
    assert not is_one_space(latents, latents + 4 * noise)
    assert not is_one_space(latents, -latents)
    assert not is_one_space(latents, latents[:, :3])
    assert not is_one_space(latents, latents[..., :4])


def test_procrustes_finds_the_rotation():
    own = torch.randn(500, 3, dtype=torch.float64)
    own = torch.linalg.qr(own - own.mean(dim=0)).Q * 500**0.5  # variance 1, uncorrelated
    rotation = orthonormal(3, 3).double()
    found, agreement = align_basis(own, own @ rotation)
    torch.testing.assert_close(found, rotation)
    assert agreement == pytest.approx(1)
    # of many rotations none comes nearer to a target that cannot be reached
    target = own @ rotation + torch.randn_like(own)
    found, _ = align_basis(own, target)
    distance = (own @ found - target).square().sum()
    assert all(distance < (own @ orthonormal(3, 3).double() - target).square().sum() for _ in range(50))
