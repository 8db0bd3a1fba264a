"""What every vision encoder must do, and REPA's preparation of images for each of those it names."""

import json

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from eqzoo.registry import ENCODERS, build
from eqzoo.vision import VisionEncoder

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


@pytest.fixture(scope='module', params=ENCODERS.names())
def encoder(request):
    """One of each with random weights, of one block, for 16 x 16 tokens of 256 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param in REPAS:
            patch.setattr(timm, 'create_model', lambda name, **options: create(name, depth=1, **options))
        return build(dict(type=request.param, weights='random'))


def test_it_keeps_the_contract(encoder):
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


def test_autocast_changes_nothing(encoder):
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
