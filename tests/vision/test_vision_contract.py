"""Contracts of every registered vision network; a new one is tested without a new test."""

import json
import re

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from eqzoo.evaluators.gaussian import FeatureMoments
from eqzoo.evaluators.reference import read_reference, write_reference
from eqzoo.registry import VISION, build
from eqzoo.vision import FeatureExtractor, Features, FIDInception, VisionEncoder

EXTRACTORS, ENCODERS = (
    [name for name in VISION.names() if issubclass(VISION.module_dict[name], kind)]
    for kind in (FeatureExtractor, VisionEncoder)
)


def test_every_network_is_an_extractor_or_an_encoder():
    assert EXTRACTORS == ['DINOv2', 'EfficientNetLite0', 'FIDInception']
    assert ENCODERS == ['CLIPTokens', 'DINOv2Tokens', 'EfficientNetLite0Tokens', 'IJEPATokens', 'MAETokens']
    assert sorted([*EXTRACTORS, *ENCODERS]) == VISION.names()


@pytest.fixture(scope='module', params=EXTRACTORS)
def extractor(request):
    """One of each, as `--smoke` makes it, or with random weights."""
    cls = VISION.module_dict[request.param]
    arguments = cls.smoke({}) if hasattr(cls, 'smoke') else {'weights': 'random'}
    assert cls.requirements(arguments) == []
    return build({'type': request.param, **arguments})


@pytest.fixture
def images():
    return torch.randint(256, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_an_extractor_returns_features(extractor, images):
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
    assert not extractor.network.training
    assert not any(parameter.requires_grad for parameter in extractor.network.parameters())


def test_an_extractors_metrics_are_never_called_fid_without_the_pinned_weights(extractor):
    """Neither random weights nor those of another network."""
    for each in (extractor, build(dict(type='EfficientNetLite0')), FIDInception('random', resize='pytorch-fid')):
        keys = [each.key, each.frechet_key, f'r{each.frechet_key}', f's{each.frechet_key}', f'i{each.frechet_key}']
        keys += [f'{name}{each.suffix}' for name in ('inception_score', 'kid', 'precision', 'recall')]
        assert not [key for key in keys if re.search('fid|fdd|lpips', key, re.IGNORECASE)]
        assert each.suffix == f'_{each.key}'


def test_an_extractors_card_is_json_and_names_its_weights(extractor):
    card = extractor.card()
    assert json.loads(json.dumps(card)) == card
    assert {'network', 'weights_sha256', 'resize'} <= set(card)
    assert card['weights_sha256'] == 'random weights'


def test_an_extractor_refuses_float_images(extractor, images):
    with pytest.raises(TypeError, match=f'{type(extractor).__name__}: images must be uint8, got torch.float32'):
        extractor(images.float())


def test_autocast_does_not_change_features(extractor, images):
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


def test_bfloat16_is_another_metric_with_nearly_the_same_features(extractor, images, tmp_path):
    cls = type(extractor)
    arguments = cls.smoke({}) if hasattr(cls, 'smoke') else {'weights': 'random'}
    other = cls(**arguments, dtype='bfloat16')
    assert {parameter.dtype for parameter in other.network.parameters()} == {torch.bfloat16}
    found, expected = other(images), extractor(images)
    for ours, plain in zip(found, expected, strict=True):
        if plain is not None:
            error = (ours - plain).norm() / plain.norm()
            assert ours.dtype == torch.float32
            assert 1e-4 < error < 0.05  # 8 bits of precision, through a hundred layers
    assert (other.key, other.frechet_key) == (f'{extractor.key}_bf16', f'{extractor.frechet_key}_bf16')
    assert other.suffix == f'{extractor.suffix}_bf16'
    assert other.card() == {**extractor.card(), 'dtype': 'bfloat16'}
    assert 'dtype' not in extractor.card()  # files that were made before there was a choice are still good
    moments = FeatureMoments(extractor.num_features)
    moments.add(expected.pooled)
    write_reference(tmp_path / 'float32.npz', extractor, moments, data={})
    with pytest.raises(ValueError, match=f"its key is '{extractor.key}', here it is '{other.key}'"):
        read_reference(tmp_path / 'float32.npz', other)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# REPA's train.py and utils.py: pixels, normalisation, and whether tokens have been through the last norm.
REPAS = {
    'DINOv2Tokens': (224, IMAGENET, True),
    'CLIPTokens': (224, CLIP, False),
    'MAETokens': (256, IMAGENET, False),
    'IJEPATokens': (224, IMAGENET, True),
}

create = timm.create_model
IMAGES = torch.randint(256, (2, 3, 256, 256), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope='module', params=ENCODERS)
def encoder(request):
    """One of each with random weights, of one block, for 16 x 16 tokens of 256 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param in REPAS:
            patch.setattr(timm, 'create_model', lambda name, **options: create(name, depth=1, **options))
        return build(dict(type=request.param, weights='random'))


def test_an_encoder_returns_tokens(encoder):
    tokens = encoder(IMAGES)
    assert isinstance(encoder, VisionEncoder)
    assert not isinstance(encoder, nn.Module)  # or a generator would train it
    assert tokens.shape == (2, 256, encoder.num_features)
    assert (tokens.dtype, tokens.requires_grad) == (torch.float32, False)
    assert tokens.isfinite().all()
    assert tokens.std(dim=(0, 1)).mean() > 1e-3
    assert not encoder.network.training
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    assert encoder.key.startswith('random_')
    card = encoder.card()
    assert json.loads(json.dumps(card)) == card
    assert card['weights_sha256'] == 'random weights'


def test_tokens_are_of_their_places_row_by_row(encoder):
    """A change in one corner of the image shows most there, or as near as convolutions of random weights have it."""
    changed = IMAGES.clone()
    changed[:, :, :16, 240:] = 255 - changed[:, :, :16, 240:]  # first row, last column
    distance = (encoder(changed) - encoder(IMAGES)).square().sum(dim=2).mean(dim=0)
    row, column = divmod(int(distance.argmax()), 16)
    assert row <= 2
    assert column >= 13


def test_autocast_does_not_change_tokens(encoder):
    plain = encoder(IMAGES)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(encoder(IMAGES), plain)


@pytest.mark.parametrize('encoder', sorted(REPAS), indirect=True)
def test_images_are_prepared_and_tokens_taken_as_repa_does(encoder):
    side, (mean, std), after_norm = REPAS[type(encoder).__name__]
    images = (IMAGES / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    if side != 256:
        images = F.interpolate(images, side, mode='bicubic')
    names = dict(
        DINOv2Tokens='vit_base_patch14_dinov2',
        CLIPTokens='vit_large_patch14_clip_quickgelu_224',
        MAETokens='vit_large_patch16_224',
        IJEPATokens='vit_huge_patch14_gap_224',
    )
    network = create(names[type(encoder).__name__], depth=1, num_classes=0, img_size=side).eval()
    lacking, unknown = network.load_state_dict(encoder.network.state_dict(), strict=False)
    assert (lacking, unknown) == ([] if after_norm else ['norm.weight', 'norm.bias'], [])
    with torch.no_grad():
        options = dict(indices=1, norm=after_norm, output_fmt='NLC', intermediates_only=True)
        (expected,) = network.forward_intermediates(images, **options)
    torch.testing.assert_close(encoder(IMAGES), expected, rtol=1e-4, atol=1e-4)
