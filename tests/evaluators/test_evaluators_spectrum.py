"""The latents' spectrum: known codes in their order, channels alike, batches, and collapse."""

import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images
from torch import nn

from eqzoo.evaluators import AutoencoderView, LatentSpectrum


class Encoder(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.latents = function


def measure(function, images, batch=8):
    evaluator = LatentSpectrum()
    for part in images.split(batch):
        evaluator.process({}, [AutoencoderView(Encoder(function), part)])
    return evaluator.evaluate(len(images)), evaluator


def pool(x):
    return F.avg_pool2d(x, 8)


def patches(x):
    weight = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) / 14
    return F.conv2d(x, weight, stride=8)


@pytest.fixture(scope='module')
def photographs():
    """12 crops of 256 pixels from scikit-learn's two photographs."""
    crops = [
        torch.tensor(image[top : top + 256, left : left + 256])
        for image in load_sample_images().images
        for top in (0, 170)
        for left in (0, 192, 384)
    ]
    return torch.stack(crops).permute(0, 3, 1, 2) / 127.5 - 1


def test_codes_are_in_the_order_of_evaluation_md(photographs):
    """There, on 192 ImageNet images: RGB -3.8 / .02, pooled -3.0 / .08, random patches -1.6 / .35, white 0 / .75."""
    rgb, pooled, code = (measure(f, photographs)[0] for f in (lambda x: x, pool, patches))
    white, _ = measure(lambda x: torch.randn(len(x), 4, 32, 32), photographs.repeat(8, 1, 1, 1))
    assert white['spectrum/slope'] == pytest.approx(0, abs=0.05)
    assert white['spectrum/high_share'] == pytest.approx(0.75, abs=0.01)
    assert rgb['spectrum/slope'] < -2.2
    assert pooled['spectrum/slope'] < -2.2
    assert code['spectrum/slope'] == pytest.approx(-1.9, abs=0.3)
    shares = [each['spectrum/high_share'] for each in (rgb, pooled, code, white)]
    assert max(shares[:2]) < 0.1 < shares[2] < 0.4 < shares[3]


def test_channels_count_alike(photographs):
    plain, _ = measure(patches, photographs)
    factors = torch.tensor([1e-3, 1.0, 50.0, 2.0, 0.1, 7.0])[:, None, None]
    other, _ = measure(lambda x: patches(x) * factors + factors.flip(0), photographs)
    assert other == pytest.approx(plain, rel=1e-4)


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

    assert measure(with_constant, photographs)[0] == pytest.approx(measure(patches, photographs)[0], rel=1e-9)
    nothing, evaluator = measure(lambda x: torch.full((len(x), 2, 8, 8), 0.1), photographs)
    assert all(math.isnan(value) for value in nothing.values())
    assert evaluator.curves == []


def test_small_or_changing_latents_are_refused(photographs):
    with pytest.raises(ValueError, match='spectrum: 2 x 2 cells; accepted are 4 or more a side'):
        measure(lambda x: F.avg_pool2d(x, 128), photographs)
    sizes = iter((8, 16))
    with pytest.raises(ValueError, match=r'LatentSpectrum: latents of \(16, 16\) after \(8, 8\) cells; use images of'):
        measure(lambda x: torch.randn(len(x), 2, *[next(sizes)] * 2), photographs)
