"""What every registered extractor must do; a new one is tested without a new test."""

import json
import re

import pytest
import torch
from torch import nn

from eqzoo.registry import EXTRACTORS, build
from eqzoo.vision import FeatureExtractor, Features, FIDInception


@pytest.fixture(scope='module', params=EXTRACTORS.names())
def extractor(request):
    """One of each, as `--smoke` makes it, or with random weights."""
    cls = EXTRACTORS.module_dict[request.param]
    arguments = cls.smoke({}) if hasattr(cls, 'smoke') else {'weights': 'random'}
    assert cls.requirements(arguments) == []
    return build({'type': request.param, **arguments})


@pytest.fixture
def images():
    return torch.randint(256, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_it_keeps_the_contract(extractor, images):
    found = extractor(images)
    assert isinstance(extractor, FeatureExtractor)
    assert not isinstance(extractor, nn.Module)
    assert isinstance(found, Features)
    assert found.pooled.shape == (2, extractor.num_features)
    widths = [None if each is None else each.shape[1] for each in found]
    assert widths == [extractor.num_features, extractor.num_spatial, extractor.num_logits]
    for each in filter(lambda feature: feature is not None, found):
        assert (each.ndim, len(each), each.dtype) == (2, 2, torch.float32)
        assert each.isfinite().all()
        assert not torch.equal(each[0], each[1])
    assert not extractor._network.training
    assert not any(parameter.requires_grad for parameter in extractor._network.parameters())


def test_its_metrics_are_never_called_fid_without_the_pinned_weights(extractor):
    """Neither random weights nor those of another network."""
    for each in (extractor, build(dict(type='EfficientNetLite0')), FIDInception('random', resize='pytorch-fid')):
        keys = [each.key, each.frechet_key, f'r{each.frechet_key}', f's{each.frechet_key}', f'i{each.frechet_key}']
        keys += [f'{name}{each.suffix}' for name in ('inception_score', 'kid', 'precision', 'recall')]
        assert not [key for key in keys if re.search('fid|fdd|lpips', key, re.IGNORECASE)]
        assert each.suffix == f'_{each.key}'


def test_its_card_is_json_and_says_which_weights(extractor):
    card = extractor.card()
    assert json.loads(json.dumps(card)) == card
    assert {'network', 'weights_sha256', 'resize'} <= set(card)
    assert card['weights_sha256'] == 'random weights'


def test_only_8_bit_images_are_taken(extractor, images):
    with pytest.raises(TypeError, match=f'{type(extractor).__name__}: images must be uint8, got torch.float32'):
        extractor(images.float())


def test_autocast_changes_nothing(extractor, images):
    plain = extractor(images).pooled
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(extractor(images).pooled, plain)


def test_maps_pass_gradients(extractor, images):
    x = images.float().requires_grad_()
    maps = extractor.maps(x)
    assert all(each.ndim == 4 and len(each) == 2 for each in maps)
    sum(each.square().mean() for each in maps).backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
