"""Equivariance error: its laws, a two-pass reference, and latents that must not lower it."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqzoo.evaluators import AutoencoderView, EquivarianceError, LatentStatistics
from eqzoo.transforms import Flip, IsotropicScale, Rotate, Shift, Turn


class Encoder(nn.Module):
    """Latents are a function of images; nothing is decoded."""

    def __init__(self, function):
        super().__init__()
        self.latents = function


def pool(images):
    return F.avg_pool2d(images, 8)


def patches(images):
    """A fixed random code of each 8 x 8 patch: knows up from down."""
    weight = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) / 14
    return F.conv2d(images, weight.to(images.dtype), stride=8)


@pytest.fixture(scope='module')
def images():
    """Smooth random images (32, 3, 64, 64), so that scaling keeps most of them."""
    noise = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=64, mode='bicubic').clamp(-1, 1)


def measure(function, images, transforms=None, batch=8, metric=EquivarianceError):
    evaluator = metric(transforms) if metric is EquivarianceError else metric()
    for part in images.split(batch):
        evaluator.process(AutoencoderView(Encoder(function), part))
    return evaluator.evaluate(len(images))


def test_an_equivariant_encoder_has_no_error(images):
    whole = images.mul(127).round()  # whole numbers: their means are exact in any order
    errors = measure(pool, whole, {'rotation': Rotate(), 'flip': Flip()})
    assert errors['eq_err/rotation'] == errors['eq_err_paper/rotation'] == errors['eq_err/flip'] == 0


def test_a_random_patch_code_has_one(images):
    errors = measure(patches, images)
    assert errors['eq_err/rotation'] > 0.5
    assert errors['eq_err/scale'] > 0.1


def test_the_floor_of_scaling_is_low_only_with_antialiasing():
    """Pooling commutes with scaling but for resampling: .005 to .007 on photographs, .009 on noise of their kind."""
    noise = torch.randn(16, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    frequencies = torch.fft.fftfreq(128)
    radius = (frequencies[:, None] ** 2 + frequencies**2).sqrt().clamp_min(1 / 128)
    natural = torch.fft.ifft2(torch.fft.fft2(noise) / radius**1.5).real
    natural = (natural / natural.std(dim=(1, 2, 3), keepdim=True) / 2).clamp(-1, 1)
    assert measure(pool, natural)['eq_err/scale'] == pytest.approx(0.009, abs=0.003)
    released = measure(pool, natural, {'scale': IsotropicScale()})  # bilinear, no antialiasing
    assert released['eq_err/scale/0.5'] < 1e-9  # every pixel has equal weight
    assert released['eq_err/scale/0.25'] > 0.08  # most are skipped: this measures the resampler


def test_streaming_equals_two_passes(images):
    transforms = {'rotation': Rotate(), 'scale': IsotropicScale(interpolation='bicubic', antialias=True)}
    images = images.double()  # in float32, convolutions of other batch sizes differ in the last bits
    errors = measure(patches, images, transforms, batch=7)
    for name, transform in transforms.items():
        centred, paper = [], []
        for params in transform.cases((8, 8)).values():
            a = transform(patches(images), params).numpy()
            b = patches(transform(images, params)).numpy()
            mean = b.mean(axis=(0, 2, 3), keepdims=True)
            centred.append(((a - b) ** 2).sum() / ((b - mean) ** 2).sum())
            paper.append((((a - b) ** 2).sum(axis=(1, 2, 3)) / (b**2).sum(axis=(1, 2, 3))).mean())
        assert errors[f'eq_err/{name}'] == pytest.approx(np.mean(centred), rel=1e-9)
        assert errors[f'eq_err_paper/{name}'] == pytest.approx(np.mean(paper), rel=1e-9)
        cases = [errors[f'eq_err/{name}/{case}'] for case in transform.cases((8, 8))]
        assert cases == pytest.approx(centred, rel=1e-9)


def test_an_offset_lowers_the_papers_error_but_not_the_centred_one(images):
    plain, offset = measure(patches, images), measure(lambda x: patches(x) + 5, images)
    own = measure(lambda x: patches(x) + torch.arange(6.0)[:, None, None], images)  # one for each channel
    assert own['eq_err/rotation'] == pytest.approx(plain['eq_err/rotation'], rel=1e-4)
    assert offset['eq_err_paper/rotation'] < 0.2 * plain['eq_err_paper/rotation']
    assert offset['eq_err/rotation'] == pytest.approx(plain['eq_err/rotation'], rel=1e-4)
    assert offset['eq_err/scale'] == pytest.approx(plain['eq_err/scale'], rel=1e-4)


def test_a_factor_changes_neither(images):
    plain, scaled = measure(patches, images), measure(lambda x: 7 * patches(x), images)
    for name in plain:
        assert scaled[name] == pytest.approx(plain[name], rel=1e-5)


def test_unrelated_latents_have_two(images):
    """E ‖a − b‖² = 2 E ‖b − μ‖² for independent a and b of one distribution."""
    generator = torch.Generator().manual_seed(3)
    errors = measure(lambda x: torch.randn(len(x), 4, 8, 8, generator=generator), images, {'rotation': Rotate()})
    assert errors['eq_err/rotation'] == pytest.approx(2, abs=0.05)


def test_a_collapsed_encoder_is_not_perfect(images):
    """Constant latents: 0 by the paper's measure, no number by the centred one."""
    # the moments of this constant differ by rounding: unguarded, 0 / 1e-16 would be a perfect 0
    errors = measure(lambda x: torch.full((len(x), 4, 7, 7), 0.1), images, {'rotation': Rotate()}, batch=5)
    assert errors['eq_err_paper/rotation'] == 0
    assert math.isnan(errors['eq_err/rotation'])
    nothing = measure(lambda x: torch.zeros(len(x), 4, 8, 8), images, {'rotation': Rotate()})
    assert all(math.isnan(value) for value in nothing.values())
    assert measure(lambda x: torch.zeros(len(x), 4, 8, 8), images, metric=LatentStatistics)['latent_std'] == 0


def test_batches_change_nothing(images):
    one, other = measure(pool, images, batch=32), measure(pool, images, batch=5)
    for name in one:
        assert other[name] == pytest.approx(one[name], rel=1e-9)
    one, other = (measure(pool, images, batch=batch, metric=LatentStatistics)['latent_std'] for batch in (32, 5))
    assert other == pytest.approx(one, rel=1e-9)


def test_sizes_that_differ_are_an_error(images):
    def cropped(x):
        return pool(x)[:, :, : 7 if x.shape[2] == 64 else None]

    with pytest.raises(ValueError, match=r'EquivarianceError: rotation 90 turns latents into \(8, 7\) cells'):
        measure(cropped, images, {'rotation': Rotate()})


def test_transforms_are_checked_at_once():
    with pytest.raises(ValueError, match=r'must be one or more transforms by name, .* got \{\}; leave it out'):
        EquivarianceError({})
    with pytest.raises(ValueError, match="names without a slash, got {'a/b': Flip"):
        EquivarianceError({'a/b': Flip()})
    with pytest.raises(
        ValueError, match=r"EquivarianceError.transforms must be a dict of components .* got {'turn': 90}"
    ):
        EquivarianceError({'turn': 90})


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match='EquivarianceError saw none of the 3 images'):
        EquivarianceError().evaluate(3)


def test_states_are_forgotten_after_evaluate(images):
    evaluator = EquivarianceError({'rotation': Rotate()})
    results = []
    for part in (images[:16], images[16:], images[:16]):
        evaluator.process(AutoencoderView(Encoder(patches), part))
        results.append(evaluator.evaluate(16))
    assert results[0] == results[2] != results[1]


def test_the_card_names_transforms_and_cases(images):
    evaluator = EquivarianceError()
    evaluator.process(AutoencoderView(Encoder(pool), images[:2]))
    evaluator.evaluate(2)
    card = json.loads(json.dumps(evaluator.card()))
    assert card['cases'] == {'rotation': ['90', '180', '270'], 'scale': ['0.25', '0.5', '0.75']}
    assert "interpolation='bicubic', antialias=True" in card['transforms']['scale']


def test_latent_std_is_the_mean_over_channels_of_the_variance(images):
    latents = patches(images)
    wanted = latents.double().var(dim=(0, 2, 3), unbiased=False).mean().sqrt().item()
    assert measure(patches, images, metric=LatentStatistics)['latent_std'] == pytest.approx(wanted, rel=1e-6)
    spread = measure(lambda x: patches(x) + torch.arange(6.0)[:, None, None], images, metric=LatentStatistics)
    assert spread['latent_std'] == pytest.approx(wanted, rel=1e-5)  # offsets of channels are no spread


class Identity(Encoder):
    """Its latents are the images in other units, its reconstructions are perfect."""

    def __init__(self):
        super().__init__(lambda images: 0.5 * images)
        self.normalization = nn.Module()
        self.normalization.denormalize = lambda z: 2 * z

    def decode(self, z):
        return z


def evaluated(model, images, transforms, **arguments):
    evaluator = EquivarianceError(transforms, **arguments)
    evaluator.process(AutoencoderView(model, images))
    return evaluator.evaluate(len(images)), evaluator


def test_a_perfect_autoencoder_has_100_decibels_on_the_image_side(images):
    """With any transform, resampled or not: the latents are the images, so both change in the same way."""
    transforms = {'rotation': Rotate(), 'shift': Shift(eval_shifts=(0.5, 1)), 'turn': Turn(eval_angles=(20,))}
    errors, _ = evaluated(Identity(), images, transforms, image_side=True)
    for name in ('rotation', 'rotation/90', 'shift', 'shift/0.5', 'turn', 'turn/20'):
        assert errors[f'eq_rec/{name}'] == pytest.approx(100, abs=1e-9)
        assert errors[f'eq_rec_err/{name}'] < 1e-9


@pytest.mark.parametrize('mask', [True, False])
def test_known_error_of_an_encoder_that_knows_left_from_right(mask):
    """One half of the columns is 1, the other -1, and a flip exchanges them: 2² / 1² = 4."""

    def halves(x):
        signs = torch.ones(x.shape[3] // 8, dtype=x.dtype)
        signs[len(signs) // 2 :] = -1
        return signs.expand(len(x), 2, x.shape[2] // 8, -1)

    errors, _ = evaluated(Encoder(halves), torch.zeros(5, 3, 64, 64), {'flip': Flip(('horizontal',))}, mask=mask)
    key = 'eq_err' if mask else 'eq_err_unmasked'
    assert errors[f'{key}/flip'] == 4
    assert errors[f'{key}/flip_std'] == pytest.approx(0, abs=1e-9)  # all images are the same


@pytest.mark.parametrize(('interpolation', 'floor'), [('bilinear', 1e-25), ('bicubic', 1e-4)])
def test_a_masked_turn_of_a_ramp_has_only_the_resamplers_error(interpolation, floor):
    """Pooling keeps ramps. Bilinear is exact on them, torch's bicubic (a = -0.75) is not, and the mirror bends them."""
    places = torch.linspace(-1, 1, 128, dtype=torch.float64)
    slopes = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    images = slopes[..., :1, None] * places[:, None] + slopes[..., 1:, None] * places
    transforms = {'turn': Turn(interpolation=interpolation, eval_angles=(15, 30))}
    masked, _ = evaluated(Encoder(pool), images, transforms)
    everything, _ = evaluated(Encoder(pool), images, transforms, mask=False)
    assert masked['eq_err/turn'] < floor
    assert everything['eq_err_unmasked/turn'] > masked['eq_err/turn'] * 1.01
    assert everything['eq_err_unmasked/turn'] > 5e-5


def test_the_standard_error_shrinks_with_the_root_of_the_number():
    """Each image four times is four times the images: half the error, but for n and n - 1."""
    images = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    images *= torch.linspace(0.3, 1, 40)[:, None, None, None]
    few, many = (measure(patches, x, {'rotation': Rotate()}) for x in (images, images.repeat(4, 1, 1, 1)))
    assert many['eq_err/rotation'] == pytest.approx(few['eq_err/rotation'], rel=1e-12)
    wanted = few['eq_err/rotation_std'] / 2 * math.sqrt((1 - 1 / 40) / (1 - 1 / 160))
    assert many['eq_err/rotation_std'] == pytest.approx(wanted, rel=1e-9)
    fresh = torch.randn(640, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    errors = [measure(patches, fresh[:count], {'rotation': Rotate()})['eq_err/rotation_std'] for count in (40, 640)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)  # 40 images know their deviation to 11 %


@pytest.mark.parametrize('channels', [1, 96])
def test_the_standard_error_is_that_of_the_residuals(channels):
    """Two passes over the images, μ known: (e − ratio · v) over images. Offsets of channels change nothing."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(channels, 3, 8, 8, generator=generator).double() / 14
    offset = 5 * torch.randn(channels, 1, 1, generator=generator).double()
    images = torch.randn(30, 3, 32, 32, generator=generator).double()
    images *= torch.linspace(0.3, 1, 30)[:, None, None, None]

    def encode(x):
        return F.conv2d(x, weight, stride=8) + offset

    a, b = encode(images).rot90(1, (2, 3)), encode(images.rot90(1, (2, 3)))
    e = (a - b).square().sum(dim=(1, 2, 3))
    v = (b - b.mean(dim=(0, 2, 3), keepdim=True)).square().sum(dim=(1, 2, 3))
    residuals = (e - e.sum() / v.sum() * v) / v.mean()
    found = measure(encode, images, {'turn': Rotate(turns=(1,))})
    assert found['eq_err/turn_std'] == pytest.approx(residuals.std().item() / math.sqrt(30), rel=1e-8)
