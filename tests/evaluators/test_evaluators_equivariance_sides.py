"""The equivariance error's masks, intervals, curves and image side."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqzoo.evaluators import AutoencoderView, EquivarianceError, ReconstructionMetric
from eqzoo.evaluators.equivariance import error_terms, normalised_error, standard_error
from eqzoo.transforms import Choice, Flip, IsotropicScale, Rotate, Shift, Turn


class Normalization(nn.Module):
    """Generator units are half of the raw ones."""

    def denormalize(self, z):
        return 2 * z


class Pooling(nn.Module):
    """Cells are means; a decoded image repeats them, brighter by `brightness`."""

    normalization = Normalization()

    def __init__(self, brightness=0.0):
        super().__init__()
        self.brightness = brightness

    def latents(self, images):
        return F.avg_pool2d(images, 4) / 2

    def decode(self, z):
        return F.interpolate(z, scale_factor=4) + self.brightness


class Encoder(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.latents = function


def patches(images):
    weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return F.conv2d(images, weight.to(images.dtype), stride=4)


def smooth(count, side=64, seed=0, amount=8):
    noise = torch.randn(
        count, 3, side // amount, side // amount, generator=torch.Generator().manual_seed(seed)
    ).double()
    return F.interpolate(noise, size=side, mode='bicubic').clamp(-1, 1)


def measure(model, images, transforms, batch=8, **arguments):
    evaluator = EquivarianceError(transforms, **arguments)
    for part in images.split(batch):
        evaluator.process(AutoencoderView(model, part))
    return evaluator.evaluate(len(images)), evaluator


def framed(images):
    """Pooling that marks the borders of the image, as zero padding does: equivariant but there."""
    frame = torch.zeros(images.shape[2:], dtype=images.dtype)
    frame[[0, -1]] = frame[:, [0, -1]] = 3
    return F.avg_pool2d(images + frame, 4)


def test_the_mask_leaves_out_filled_in_cells():
    images = smooth(6)
    transforms = {'shift': Shift(eval_shifts=(1, 2))}
    # whole cells: no resampling, so pooling is perfect wherever nothing came in, and at the border thanks to mirroring
    for mask in (True, False):
        perfect, _ = measure(Encoder(lambda x: F.avg_pool2d(x, 4)), images.mul(127).round(), transforms, mask=mask)
        assert set(perfect.values()) == {0}
    kept, _ = measure(Encoder(patches), images, transforms)
    everything, _ = measure(Encoder(patches), images, transforms, mask=False)
    assert max(kept.values()) < 1e-25  # a patch code knows nothing of its place, but mirrored patches are others
    assert everything['eq_err_unmasked/shift'] > 0.01


def test_a_frame_at_the_border_is_an_error_the_mask_does_not_hide():
    """The frame moves with the latents but not with the image: that is the encoder's error, not the transform's."""
    found, _ = measure(Encoder(framed), smooth(6), {'shift': Shift(eval_shifts=(1,))})
    assert found['eq_err/shift'] > 0.1


def test_a_mask_by_hand():
    images = smooth(5)
    turn = Turn(eval_angles=(20,))
    found, _ = measure(Encoder(patches), images, {'turn': turn})
    mask = turn.mask((16, 16), 20.0).numpy()
    assert 0.3 < mask.mean() < 0.9
    a, b = turn(patches(images), 20.0).numpy()[..., mask], patches(turn(images, 20.0)).numpy()[..., mask]
    mean = b.mean(axis=(0, 2), keepdims=True)
    assert found['eq_err/turn'] == pytest.approx(((a - b) ** 2).sum() / ((b - mean) ** 2).sum(), rel=1e-9)
    ratios = ((a - b) ** 2).sum(axis=(1, 2)) / (b**2).sum(axis=(1, 2))
    assert found['eq_err_paper/turn'] == pytest.approx(ratios.mean(), rel=1e-9)


def test_without_a_mask_all_names_say_so():
    found, evaluator = measure(Pooling(), smooth(3), None, mask=False, image_side=True)
    assert all(name.split('/')[0].endswith('_unmasked') for name in found)
    assert evaluator.card()['border'] == 'everything counts'
    masked, _ = measure(Pooling(), smooth(3), None, image_side=True)
    assert list(masked.values()) == list(found.values())  # turns and scales fill nothing in


def test_a_mask_that_leaves_nothing_is_an_error():
    with pytest.raises(ValueError, match=r'EquivarianceError: turn 45: the mask leaves nothing of 1 x 1; use larger'):
        measure(Encoder(patches), smooth(2, side=4, amount=1), {'turn': Turn(eval_angles=(45,))})


def band_limited(images):
    """An encoder without aliasing: lowest frequencies of the mirrored image, on a grid a quarter as fine."""
    x = torch.cat([images, images.flip(2)], dim=2)
    x = torch.cat([x, x.flip(3)], dim=3)
    side = images.shape[2] // 4
    spectrum = torch.fft.fftshift(torch.fft.fft2(x), dim=(2, 3))
    middle = images.shape[2]
    kept = spectrum[..., middle - side + 1 : middle + side, middle - side + 1 : middle + side]
    frequencies = torch.arange(-side + 1, side, dtype=torch.float64)
    taper = torch.exp(-((3 * frequencies / side) ** 2))  # a filter that is soon 0 in space as well
    # from pixel centres to the centres of cells of 4 pixels
    places = (torch.arange(side, dtype=torch.float64) + 0.5) * 4 - 0.5
    basis = taper * torch.exp(2j * torch.pi * places[:, None] * frequencies / (2 * middle))
    return (basis @ kept @ basis.T).real / (2 * middle) ** 2


def test_between_cells_fourier_has_no_error_of_its_own():
    """The error of an encoder that is equivariant to any shift is 0, and by bilinear the resampler's."""
    bell = torch.exp(-torch.linspace(-4, 4, 64).double().square())  # nothing at the border, whose mirror is not shifted
    images = smooth(6, amount=4) * bell[:, None] * bell
    errors = {}
    for interpolation in ('fourier', 'bilinear'):
        shift = Shift(interpolation=interpolation, eval_shifts=(0.25, 0.5))
        errors[interpolation] = measure(Encoder(band_limited), images, {'shift': shift})[0]['eq_err/shift']
    assert errors['fourier'] < 1e-6
    assert errors['bilinear'] > 1e-3


TRANSFORMS = {'rotation': Rotate(), 'scale': IsotropicScale(eval_scales=(0.5, 0.25))}


def test_the_standard_error_is_the_jackknifes():
    """Leaving out one image at a time: another way to the same first order."""
    images = smooth(40) * torch.linspace(0.2, 1, 40)[:, None, None, None].double()
    found, _ = measure(Encoder(patches), images, TRANSFORMS, batch=7)
    for name in TRANSFORMS:
        without = [
            measure(Encoder(patches), torch.cat([images[:i], images[i + 1 :]]), {name: TRANSFORMS[name]}, batch=39)[0]
            for i in range(40)
        ]
        values = np.array([each[f'eq_err/{name}'] for each in without])
        jackknife = math.sqrt(39 / 40 * ((values - values.mean()) ** 2).sum())
        assert found[f'eq_err/{name}_std'] == pytest.approx(jackknife, rel=0.06)


def test_the_standard_error_is_that_of_new_images():
    """The deviation of 400 measurements, each of 50 images drawn anew."""
    generator = torch.Generator().manual_seed(0)
    values, errors = [], []
    for _ in range(400):
        scale = torch.rand(50, 1, 1, 1, generator=generator).double() + 0.5
        b = torch.randn(50, 2, 3, 3, generator=generator).double() * scale + 3
        a = b + torch.randn(50, 2, 3, 3, generator=generator).double() * (scale - 0.4)
        terms = error_terms(a, b)
        values.append(normalised_error(terms.sum(dim=0)))
        errors.append(standard_error([terms.sum(dim=0)], terms.T @ terms, 50))
    # 400 draws know a deviation to 3.5 %; the delta method is low at 50 images by a few more
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)
    truth = np.mean(values)
    inside = [abs(value - truth) < 1.96 * error for value, error in zip(values, errors, strict=True)]
    assert 0.90 < np.mean(inside) < 0.98


def test_batches_change_no_interval():
    images = smooth(12)
    one, other = (measure(Pooling(), images, None, batch=size, image_side=True) for size in (12, 5))
    assert other[0] == pytest.approx(one[0], rel=1e-9)
    for left, right in zip(one[1].curves, other[1].curves, strict=True):
        for ours, theirs in zip(left['series'], right['series'], strict=True):
            assert theirs['low'] == pytest.approx(ours['low'], rel=1e-9, abs=1e-12)


def test_one_image_has_no_interval():
    found, _ = measure(Encoder(patches), smooth(1), {'rotation': Rotate()})
    assert math.isfinite(found['eq_err/rotation'])
    assert math.isnan(found['eq_err/rotation_std'])


def test_curves_are_drawn_over_numeric_cases():
    transforms = {'scale': IsotropicScale(eval_scales=(0.5, 0.25)), 'flip': Flip(), 'mixed': Choice([Rotate(), Flip()])}
    found, evaluator = measure(Encoder(patches), smooth(9), transforms)
    (curve,) = evaluator.curves  # flips and mixtures have names, not numbers
    assert {key: curve[key] for key in ('title', 'x', 'log')} == {
        'title': 'Equivariance error: scale',
        'x': 'scale',
        'log': False,
    }
    (series,) = curve['series']
    assert series['x'] == [0.25, 0.5]  # in their order, whatever was given
    assert series['y'] == [found['eq_err/scale/0.25'], found['eq_err/scale/0.5']]
    assert all(low < y < high for low, y, high in zip(series['low'], series['y'], series['high'], strict=True))
    json.dumps(evaluator.curves)


def test_a_cases_interval_is_its_own():
    images = smooth(20)
    _, both = measure(Encoder(patches), images, {'scale': IsotropicScale(eval_scales=(0.5, 0.25))})
    for case, low in zip((0.25, 0.5), both.curves[0]['series'][0]['low'], strict=True):
        alone, _ = measure(Encoder(patches), images, {'scale': IsotropicScale(eval_scales=(case,))})
        wanted = alone['eq_err/scale'] - 1.959964 * alone['eq_err/scale_std']
        assert low == pytest.approx(wanted, rel=1e-6)


def test_the_image_side_compares_decodings_with_transformed_images():
    """Pooling is equivariant, so D(τ E(x)) = D(E(τ x)): what is left is the reconstruction's own error."""
    images = smooth(7)
    transforms = {'rotation': Rotate(), 'flip': Flip(axes=('vertical',))}
    found, evaluator = measure(Pooling(0.1), images, transforms, image_side=True)
    reconstruction = ReconstructionMetric()
    for part in images.split(3):
        reconstruction.process(AutoencoderView(Pooling(0.1), part))
    wanted = reconstruction.evaluate(7)['psnr']
    error = (Pooling(0.1).decode(F.avg_pool2d(images, 4)) - images).square().sum()
    variation = (images - images.mean(dim=(0, 2, 3), keepdim=True)).square().sum()
    for name in transforms:
        assert found[f'eq_rec/{name}'] == pytest.approx(wanted, abs=0.02)  # 8 bits round halves one way
        assert found[f'eq_rec_err/{name}'] == pytest.approx((error / variation).item(), rel=1e-9)
        assert found[f'eq_err/{name}'] < 1e-25
    titles = [curve['title'] for curve in evaluator.curves]
    assert titles == ['Equivariance error: rotation', 'Reconstruction of the transformed: rotation']
    assert [series['label'] for series in evaluator.curves[0]['series']] == ['latents', 'decoded images']


def test_the_image_side_has_a_mask_and_intervals_too():
    images = smooth(8)
    turn = Turn(eval_angles=(10, 30))
    found, evaluator = measure(Pooling(), images, {'turn': turn}, image_side=True)
    psnrs = []
    for angle in (10.0, 30.0):
        mask = turn.mask((64, 64), angle)
        decoded = Pooling().decode(2 * turn(Pooling().latents(images), angle))
        pixels = [(127.5 * x + 128).clamp(0, 255).floor() / 255 for x in (decoded, turn(images, angle))]
        psnrs.append(-10 * (pixels[0] - pixels[1])[..., mask].square().mean(dim=(1, 2)).log10())
    psnrs = torch.stack(psnrs)
    assert found['eq_rec/turn'] == pytest.approx(psnrs.mean().item(), rel=1e-9)
    assert found['eq_rec/turn/30'] == pytest.approx(psnrs[1].mean().item(), rel=1e-9)
    (series,) = evaluator.curves[1]['series']
    half = 1.959964 * psnrs[1].std().item() / math.sqrt(8)
    assert series['high'][1] - series['y'][1] == pytest.approx(half, rel=1e-6)


def test_image_side_is_off_unless_asked_for():
    found, _ = measure(Encoder(patches), smooth(3), None)  # this model cannot decode at all
    assert not any(name.startswith('eq_rec') for name in found)
