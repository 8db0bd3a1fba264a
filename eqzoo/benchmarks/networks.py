"""Benchmarks of metric networks: beside the packages that they are from, and bfloat16 beside float32."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eqzoo.benchmarks.measure import cpu_seconds, ratio_of
from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance
from eqzoo.images import to_float
from eqzoo.losses import LPIPS
from eqzoo.vision import EfficientNetLite0, FeatureExtractor, inception
from eqzoo.vision.weights import random_state


class NetworkCost(NamedTuple):
    """A metric's network beside the one of its package, on the same images and weights.

    Args:
        ratio: Of CPU times; the median over rounds.
        difference: Of the values, relative to the largest.
    """

    ratio: float
    difference: float


def compare_networks(images: Tensor, *, rounds: int) -> dict[str, NetworkCost]:
    """Return time and difference of Inception and LPIPS, on random weights, to torch-fidelity's layers and to lpips.

    Args:
        images: (B, 3, H, W), uint8, with B even: LPIPS compares the first half with the second.
        rounds: Timed passes, alternating.
    """
    ours = inception.FIDInception('random')
    plain = inception._build().to_empty(device='cpu').eval().requires_grad_(False)
    plain.load_state_dict(random_state(plain))
    lpips, pair = LPIPS('vgg', 'random'), [to_float(each) for each in images.chunk(2)]
    ways: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        'Inception': (lambda: ours(images).pooled, lambda: _plain_features(plain, images)),
        'LPIPS (VGG)': (lambda: lpips(*pair), lambda: lpips._network(*pair).flatten()),
    }
    found = {}
    with torch.no_grad():
        for name, (own, theirs) in ways.items():
            seconds = cpu_seconds({'own': own, 'theirs': theirs}, rounds)
            expected = theirs()
            difference = (own() - expected).abs().max() / expected.abs().max()
            found[name] = NetworkCost(ratio_of(seconds['own'], seconds['theirs']), difference.item())
    return found


def _plain_features(network: torch.nn.Module, images: Tensor) -> Tensor:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    x = (interpolate_bilinear_2d_like_tensorflow1x(images.float(), (299, 299), align_corners=False) - 128) / 128
    for layer in list(network.children())[:-1]:
        x = layer(x)
    return x.flatten(1)


def reduced_distances(first: Sequence[Tensor], second: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """Return values in float32 and in bfloat16 of two metrics whose weights come with eqzoo's installation.

    The Fréchet distance of two sets on EfficientNet-Lite0, and the error of the features themselves, as
    (0, relative norm of the difference).

    Args:
        first: Batches of images (B, 3, H, W), uint8.
        second: As `first`, of another set.
    """
    networks: list[FeatureExtractor] = [EfficientNetLite0(), EfficientNetLite0(dtype='bfloat16')]
    distances, features = [], []
    for network in networks:
        sets = [torch.cat([network(batch).pooled for batch in batches]) for batches in (first, second)]
        moments = [FeatureMoments(network.num_features) for _ in sets]
        for each, values in zip(moments, sets, strict=True):
            each.add(values)
        distances.append(frechet_distance(*moments))
        features.append(torch.cat(sets))
    error = (features[1] - features[0]).norm() / features[0].norm()
    return {networks[0].frechet_key: tuple(distances), 'features': (0.0, error.item())}
