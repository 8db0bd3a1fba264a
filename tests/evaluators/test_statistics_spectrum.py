"""Spectra: SciPy's cosine transform, noise of known slope, and what is left out."""

import numpy as np
import pytest
import scipy.fft
import torch

from eqzoo.evaluators.spectrum import dct, radial_spectrum


def noise(slope, side=64, count=64):
    """Sequences whose DCT has a power of frequency ** slope, and that DCT's squares."""
    places = torch.arange(side, dtype=torch.float64)
    distance = torch.hypot(places[:, None], places).clamp_min(1)
    normal = torch.randn(count, side, side, generator=torch.Generator().manual_seed(0)).double()
    return torch.from_numpy(scipy.fft.idctn((normal * distance ** (slope / 2)).numpy(), axes=(1, 2), norm='ortho'))


@pytest.mark.parametrize('size', [(8, 8), (5, 12), (64, 48)])
def test_the_transform_is_scipys(size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).double()
    np.testing.assert_allclose(dct(x), scipy.fft.dctn(x.numpy(), axes=(2, 3), norm='ortho'), rtol=0, atol=1e-13)


def test_the_transform_is_in_double_precision_whatever_it_is_given():
    x = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(
        dct(x), scipy.fft.dctn(x.double().numpy(), axes=(1, 2), norm='ortho'), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize('side', [8, 16, 32])
@pytest.mark.parametrize('slope', [0.0, -1.0, -2.0, -4.0])
def test_noise_has_the_slope_it_was_made_with(slope, side):
    found = radial_spectrum(dct(noise(slope, side, 1000)).square().mean(dim=0))
    assert found.slope == pytest.approx(slope, rel=0.02, abs=0.02)


def test_on_finer_grids_a_steep_slope_is_steeper():
    """The first of 16 bins then holds several frequencies, of which the lowest has most power."""
    found = radial_spectrum(dct(noise(-4.0, 64)).square().mean(dim=0))
    assert found.slope == pytest.approx(-4.34, abs=0.1)


def test_the_high_share_by_hand():
    power = torch.zeros(8, 8)
    power[0, 0] = 1e6  # frequency 0 does not count
    power[7, 7] = 1e6  # nor do corners
    power[1, 2] = 3
    power[4, 0] = 1  # 4 / 8 of Nyquist, the first that is high
    power[3, 0] = 2
    assert radial_spectrum(power).high_share == pytest.approx(1 / 6)


def test_sides_of_other_lengths_have_their_own_nyquist():
    power = torch.zeros(8, 16)
    power[0, 8] = 1
    power[0, 7] = 3
    found = radial_spectrum(power)
    assert found.high_share == pytest.approx(0.25)
    assert found.frequency[found.power > 0].max() < 0.57


def test_bins_average_and_empty_ones_are_left_out():
    found = radial_spectrum(torch.full((8, 8), 5.0))
    assert torch.allclose(found.power, torch.tensor(5.0).double())
    assert len(found.frequency) < 16  # none below 1 / 8
    assert found.frequency[0] == pytest.approx((1 / 8 * 1 / 8 * 2**0.5 / 8) ** (1 / 3))
    assert (found.frequency.diff() > 0).all()
    assert found.slope == pytest.approx(0, abs=1e-12)


def test_a_factor_changes_only_the_power():
    power = dct(noise(-2.0)).square().mean(dim=0)
    one, other = radial_spectrum(power), radial_spectrum(9 * power)
    assert other.slope == pytest.approx(one.slope)
    assert other.high_share == pytest.approx(one.high_share)
    assert torch.allclose(other.power, 9 * one.power)


def test_too_few_cells_are_refused():
    with pytest.raises(ValueError, match='spectrum: 3 x 8 cells; accepted are 4 or more a side; use larger images'):
        radial_spectrum(torch.ones(3, 8))
