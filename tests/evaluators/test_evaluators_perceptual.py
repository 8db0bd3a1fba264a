"""Perceptual distances: their names, their values, and what is compared."""

import pytest
import torch

from eqzoo.evaluators import PerceptualMetric, SampleView
from eqzoo.losses import LPIPS


class Differences:
    """Mean absolute difference in the place of a network."""

    key = 'difference'

    def __call__(self, reconstruction, target):
        return (reconstruction - target).abs().mean(dim=(1, 2, 3))

    def card(self):
        return {'network': 'none'}


def view(images, reconstruction):
    each = SampleView(images, torch.arange(len(images)))
    each.reconstruction = reconstruction
    return each


def measure(distance, images, reconstruction, **arguments):
    metric = PerceptualMetric(distance, **arguments)
    for x, y in zip(images.split(2), reconstruction.split(2), strict=True):
        metric.process({}, [view(x, y)])
    return metric.evaluate(len(images))


IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_mean_over_images_of_uneven_batches():
    error = torch.linspace(0.1, 0.5, 5)[:, None, None, None]
    given = measure(Differences(), IMAGES, IMAGES + error, values='float')
    assert given == {'difference_float': pytest.approx(0.3, rel=1e-6)}


def test_eight_bits_are_rounded_and_clamped():
    images = torch.full((1, 3, 16, 16), 1.0)
    assert measure(Differences(), images, images + 5)['difference'] == 0
    assert measure(Differences(), images, images - 2.4 / 127.5)['difference'] == pytest.approx(2 / 127.5)


def test_lpips_values_are_the_packages():
    distance = LPIPS(weights='random')
    reconstruction = IMAGES.flip(3)
    wanted = distance(reconstruction, IMAGES).double().mean().item()
    assert measure(distance, IMAGES, reconstruction, values='float') == {
        'random_vgg_float': pytest.approx(wanted, rel=1e-6)
    }


def test_only_the_trained_trunks_are_called_lpips(tmp_path):
    assert [LPIPS(net, weights='random').key for net in ('vgg', 'alex')] == ['random_vgg', 'random_alex']
    assert LPIPS('alex', weights='random').card()['trunk_sha256'] == 'random weights'
    network = LPIPS('alex', weights='random')._network.net
    layers = [layer for i in range(1, 6) for layer in getattr(network, f'slice{i}').state_dict().items()]
    torch.save({f'features.{name}': tensor for name, tensor in layers}, tmp_path / 'trunk.pth')
    named = LPIPS('alex', weights=str(tmp_path / 'trunk.pth'))
    assert named.key == 'lpips_alex'
    assert len(named.card()['trunk_sha256']) == 64


def test_an_unknown_kind_of_values_is_refused():
    with pytest.raises(ValueError, match="PerceptualMetric.values must be 'uint8' or 'float', got 'png'"):
        PerceptualMetric(Differences(), values='png')
