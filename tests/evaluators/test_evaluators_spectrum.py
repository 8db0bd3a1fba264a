"""Spectrum of latents: noise of known slope, known codes, channels, batches, collapse; shares of high frequencies."""

import math

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from matplotlib.cbook import get_sample_data
from PIL import Image
from torch import nn

from eqzoo.dct import dct
from eqzoo.evaluators import AutoencoderView, LatentSpectrum
from eqzoo.evaluators.spectrum import energy_concentration, radial_spectrum


class Encoder(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.latents = function


def measure(function, images, batch=8):
    evaluator = LatentSpectrum()
    for part in images.split(batch):
        evaluator.process(AutoencoderView(Encoder(function), part))
    return evaluator.evaluate(len(images)), evaluator


def pool(x):
    return F.avg_pool2d(x, 8)


def patches(x):
    weight = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) / 14
    return F.conv2d(x, weight, stride=8)


@pytest.fixture(scope='module')
def photographs():
    """12 crops of 256 pixels from matplotlib's photograph of Grace Hopper."""
    with Image.open(get_sample_data('grace_hopper.jpg', asfileobj=False)) as image:
        pixels = torch.from_numpy(np.array(image.convert('RGB')))
    crops = [pixels[top : top + 256, left : left + 256] for top in (0, 115, 230, 344) for left in (0, 128, 256)]
    return torch.stack(crops).permute(0, 3, 1, 2) / 127.5 - 1


def test_codes_are_in_their_known_order(photographs):
    """On 192 ImageNet images: RGB -3.8 / .02, pooled -3.0 / .08, random patches -1.6 / .35, white 0 / .75."""
    rgb, pooled, code = (measure(f, photographs)[0] for f in (lambda x: x, pool, patches))
    white, _ = measure(lambda x: torch.randn(len(x), 4, 32, 32), photographs.repeat(8, 1, 1, 1))
    assert white['spectrum/slope'] == pytest.approx(0, abs=0.05)
    assert white['spectrum/high_share'] == pytest.approx(0.75, abs=0.01)
    assert rgb['spectrum/slope'] < -2.2
    assert pooled['spectrum/slope'] < -2.2
    assert code['spectrum/slope'] == pytest.approx(-1.9, abs=0.3)
    shares = [each['spectrum/high_share'] for each in (rgb, pooled, code, white)]
    assert max(shares[:2]) < 0.1 < shares[2] < 0.4 < shares[3]


def test_the_checkerboard_is_the_power_at_the_finest_frequency(photographs):
    white, _ = measure(lambda x: torch.randn(len(x), 4, 8, 8), photographs.repeat(40, 1, 1, 1))
    assert white['spectrum/checkerboard'] == pytest.approx(1, abs=0.07)  # of 1,920 values: a deviation of 0.032
    code, _ = measure(patches, photographs)
    power = scipy.fft.dctn(patches(photographs).double().numpy(), axes=(2, 3), norm='ortho')[:, :, -1, -1] ** 2
    wanted = (power.mean(axis=0) / patches(photographs).double().numpy().var(axis=(0, 2, 3))).mean()
    assert code['spectrum/checkerboard'] == pytest.approx(wanted, rel=1e-6)
    board = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8))
    alternating, _ = measure(lambda x: board.expand(len(x), 1, 8, 8), photographs)
    wanted = scipy.fft.dctn(board.numpy(), norm='ortho')[-1, -1] ** 2
    assert alternating['spectrum/checkerboard'] == pytest.approx(wanted, rel=1e-6)
    assert wanted > 0.6 * 64  # most of the power is in one of 64 cells


def spectrum_alone(found):
    return {name: value for name, value in found.items() if name.startswith('spectrum/')}


def test_channels_have_equal_weight(photographs):
    plain, _ = measure(patches, photographs)
    factors = torch.tensor([1e-3, 1.0, 50.0, 2.0, 0.1, 7.0])[:, None, None]
    other, _ = measure(lambda x: patches(x) * factors + factors.flip(0), photographs)
    assert spectrum_alone(other) == pytest.approx(spectrum_alone(plain), rel=1e-4)


@pytest.mark.parametrize('size', [(8, 8), (4, 6), (16, 16)])
def test_white_noise_has_the_share_of_its_frequencies(size):
    """Where u + v is above a quarter, or a half, of its maximum."""
    for ratio in (0.25, 0.5):
        border = ratio * (size[0] + size[1] - 2)
        beyond = sum(u + v > border for u in range(size[0]) for v in range(size[1]))
        assert energy_concentration(torch.full(size, 3.0), ratio) == beyond / (size[0] * size[1])
    assert energy_concentration(torch.ones(8, 8), 0.5) == 28 / 64  # 7 is not above 7


def test_energy_is_concentrated_as_scipys_transform_says(photographs):
    factors = torch.tensor([1.0, 3.0, 0.1, 2.0, 1.0, 1.0])[:, None, None]
    found, _ = measure(lambda x: patches(x) * factors + 0.5, photographs)
    latents = (patches(photographs) * factors + 0.5).double().numpy()
    energy = (scipy.fft.dctn(latents, axes=(2, 3), norm='ortho') ** 2).sum(axis=1)
    distance = np.add.outer(np.arange(32), np.arange(32))
    for ratio in (0.25, 0.5):
        high, whole = energy[:, distance > ratio * 62].sum(axis=1), energy.sum(axis=(1, 2))
        share = high.sum() / whole.sum()
        assert found[f'sec/{ratio}'] == pytest.approx(share, rel=1e-5)
        error = np.sqrt(np.sum((high - share * whole) ** 2) / (1 - 1 / 12)) / whole.sum()
        assert found[f'sec/{ratio}_std'] == pytest.approx(error, rel=1e-5)


def test_one_factor_for_all_channels_changes_no_concentration(photographs):
    one, other = (measure(lambda x, factor=factor: factor * patches(x), photographs)[0] for factor in (1.0, 7.0))
    assert other['sec/0.25'] == pytest.approx(one['sec/0.25'], rel=1e-6)
    assert other['sec/0.25_std'] == pytest.approx(one['sec/0.25_std'], rel=1e-6)


def test_the_standard_error_of_the_concentration_is_the_spread_of_repeated_samples():
    """Of smooth images, half of them with white noise."""

    def sample(seed):
        generator = torch.Generator().manual_seed(seed)
        smooth = F.interpolate(torch.randn(40, 2, 2, 2, generator=generator), 8, mode='bicubic')
        rough = torch.randn(40, 2, 8, 8, generator=generator)
        return smooth + (torch.rand(40, 1, 1, 1, generator=generator) < 0.5) * rough

    found = [measure(lambda x: x, sample(seed), 40)[0] for seed in range(40)]
    spread = np.std([each['sec/0.25'] for each in found], ddof=1)
    assert np.mean([each['sec/0.25_std'] for each in found]) == pytest.approx(spread, rel=0.25)


def test_batches_change_nothing(photographs):
    one, other = (measure(pool, photographs.double(), batch) for batch in (12, 5))
    assert other[0] == pytest.approx(one[0], rel=1e-9)
    assert other[1].curves[0]['series'][0]['y'] == pytest.approx(one[1].curves[0]['series'][0]['y'], rel=1e-9)


def test_the_curve_is_on_logarithmic_axes_with_a_mean_of_the_variance(photographs):
    _, evaluator = measure(lambda x: torch.randn(len(x), 4, 32, 32), photographs.repeat(8, 1, 1, 1))
    (curve,) = evaluator.curves
    assert curve['log'] is True
    (series,) = curve['series']
    assert len(series['x']) == 16
    assert series['y'] == pytest.approx([1] * 16, abs=0.1)  # orthonormal: white noise of variance 1 has power 1


def test_channels_that_do_not_vary_are_left_out(photographs):
    def with_constant(x):
        return torch.cat([patches(x), torch.full((len(x), 1, 32, 32), 0.1)], dim=1)

    found, plain = (measure(function, photographs)[0] for function in (with_constant, patches))
    assert spectrum_alone(found) == pytest.approx(spectrum_alone(plain), rel=1e-9)
    assert found['sec/0.25'] < plain['sec/0.25']  # its mean is power at frequency 0
    nothing, evaluator = measure(lambda x: torch.full((len(x), 2, 8, 8), 0.1), photographs)
    assert all(math.isnan(value) for name, value in nothing.items() if name.startswith('spectrum/'))
    assert nothing['sec/0.25'] == pytest.approx(0, abs=1e-12)  # all its power is at frequency 0
    nothing, _ = measure(lambda x: torch.zeros(len(x), 2, 8, 8), photographs)
    assert all(math.isnan(value) for value in nothing.values())
    assert evaluator.curves == []


def test_small_or_changing_latents_are_refused(photographs):
    with pytest.raises(ValueError, match='spectrum: 2 x 2 cells; expected at least 4'):
        measure(lambda x: F.avg_pool2d(x, 128), photographs)
    sizes = iter((8, 16))
    with pytest.raises(ValueError, match=r'LatentSpectrum: latents of \(16, 16\) after \(8, 8\) cells; use images of'):
        measure(lambda x: torch.randn(len(x), 2, *[next(sizes)] * 2), photographs)


def noise(slope, side=64, count=64):
    """Sequences whose DCT has a power of frequency ** slope, and that DCT's squares."""
    places = torch.arange(side, dtype=torch.float64)
    distance = torch.hypot(places[:, None], places).clamp_min(1)
    normal = torch.randn(count, side, side, generator=torch.Generator().manual_seed(0)).double()
    return torch.from_numpy(scipy.fft.idctn((normal * distance ** (slope / 2)).numpy(), axes=(1, 2), norm='ortho'))


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
    with pytest.raises(ValueError, match='spectrum: 3 x 8 cells; expected at least 4 a side; use larger images'):
        radial_spectrum(torch.ones(3, 8))
