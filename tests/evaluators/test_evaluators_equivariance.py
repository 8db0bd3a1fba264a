"""The equivariance error: its laws, a two-pass reference, and what cannot game it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqzoo.evaluators import AutoencoderView, EquivarianceError, LatentStatistics
from eqzoo.transforms import Flip, IsotropicScale, Rotate


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
    return F.conv2d(images, weight, stride=8)


@pytest.fixture(scope='module')
def images():
    """Smooth random images (32, 3, 64, 64), so that scaling keeps most of them."""
    noise = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=64, mode='bicubic').clamp(-1, 1)


def measure(function, images, transforms=None, batch=8, metric=EquivarianceError):
    evaluator = metric(transforms) if metric is EquivarianceError else metric()
    for part in images.split(batch):
        evaluator.process({}, [AutoencoderView(Encoder(function), part)])
    return evaluator.evaluate(len(images))


def test_an_equivariant_encoder_has_no_error(images):
    whole = images.mul(127).round()  # whole numbers: their means are exact in any order
    errors = measure(pool, whole, {'rotation': Rotate(), 'flip': Flip()})
    assert errors['eq_err/rotation'] == errors['eq_err_paper/rotation'] == errors['eq_err/flip'] == 0


def test_a_random_patch_code_has_one(images):
    errors = measure(patches, images)
    assert errors['eq_err/rotation'] > 0.5
    assert errors['eq_err/scale'] > 0.1


def test_the_floor_of_scaling_is_low():
    """Pooling commutes with scaling but for resampling: measured .026 here, .005 to .007 on photographs."""
    noise = torch.randn(32, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert measure(pool, F.interpolate(noise, size=64, mode='bicubic'))['eq_err/scale'] < 0.04


def test_streaming_equals_two_passes(images):
    transforms = {'rotation': Rotate(), 'scale': IsotropicScale(interpolation='bicubic', antialias=True)}
    errors = measure(patches, images, transforms, batch=7)
    for name, transform in transforms.items():
        centred, paper = [], []
        for params in transform.cases((8, 8)).values():
            a = transform(patches(images), params).double().numpy()
            b = patches(transform(images, params)).double().numpy()
            mean = b.mean(axis=(0, 2, 3), keepdims=True)
            centred.append(((a - b) ** 2).sum() / ((b - mean) ** 2).sum())
            paper.append((((a - b) ** 2).sum(axis=(1, 2, 3)) / (b**2).sum(axis=(1, 2, 3))).mean())
        # float32 convolutions of other batch sizes differ in the last bits
        assert errors[f'eq_err/{name}'] == pytest.approx(np.mean(centred), rel=1e-5)
        assert errors[f'eq_err_paper/{name}'] == pytest.approx(np.mean(paper), rel=1e-5)
        cases = [errors[f'eq_err/{name}/{case}'] for case in transform.cases((8, 8))]
        assert cases == pytest.approx(centred, rel=1e-5)


def test_an_offset_lowers_the_papers_error_but_not_the_centred_one(images):
    plain, offset = measure(patches, images), measure(lambda x: patches(x) + 5, images)
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
    errors = measure(lambda x: torch.full((len(x), 4, 8, 8), 0.3), images, {'rotation': Rotate()})
    assert errors['eq_err_paper/rotation'] == 0
    assert math.isnan(errors['eq_err/rotation'])


def test_batches_change_nothing(images):
    one, other = measure(pool, images, batch=32), measure(pool, images, batch=5)
    for name in one:
        assert other[name] == pytest.approx(one[name], rel=1e-9)


def test_sizes_that_differ_are_an_error(images):
    def cropped(x):
        return pool(x)[:, :, : 7 if x.shape[2] == 64 else None]

    with pytest.raises(ValueError, match=r'EquivarianceError: rotation 90 turns latents into \(8, 7\) cells'):
        measure(cropped, images, {'rotation': Rotate()})


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match='EquivarianceError saw none of the 3 images'):
        EquivarianceError().evaluate(3)


def test_states_are_forgotten_after_evaluate(images):
    evaluator = EquivarianceError({'rotation': Rotate()})
    results = []
    for part in (images[:16], images[16:], images[:16]):
        evaluator.process({}, [AutoencoderView(Encoder(patches), part)])
        results.append(evaluator.evaluate(16))
    assert results[0] == results[2] != results[1]


def test_the_card_names_transforms_and_cases(images):
    evaluator = EquivarianceError()
    evaluator.process({}, [AutoencoderView(Encoder(pool), images[:2])])
    card = evaluator.card()
    assert card['cases'] == {'rotation': ['90', '180', '270'], 'scale': ['0.25', '0.5', '0.75']}
    assert "interpolation='bicubic', antialias=True" in card['transforms']['scale']


def test_latent_std_is_the_mean_over_channels_of_the_variance(images):
    latents = patches(images)
    wanted = latents.double().var(dim=(0, 2, 3), unbiased=False).mean().sqrt().item()
    assert measure(patches, images, metric=LatentStatistics)['latent_std'] == pytest.approx(wanted, rel=1e-6)
    spread = measure(lambda x: patches(x) + torch.arange(6.0)[:, None, None], images, metric=LatentStatistics)
    assert spread['latent_std'] == pytest.approx(wanted, rel=1e-5)  # offsets of channels are no spread
