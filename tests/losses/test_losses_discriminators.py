"""Discriminators on features and of ConvNeXt blocks: what their logits depend on, what is trained and stored."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from eqzoo.losses import R1, ConvNeXtDiscriminator, DiscriminatorStep, FeatureDiscriminator
from eqzoo.vision import DINOv2, EfficientNetLite0


def images(*shape, seed=0):
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.fixture(scope='module')
def extractor():
    return EfficientNetLite0()


@pytest.fixture
def on_features(extractor):
    torch.manual_seed(0)
    return FeatureDiscriminator(extractor, 8)


def test_logits_are_of_heads_written_out(on_features, extractor):
    """Every map, normalised, through three convolutions whose weights have a largest singular value near 1."""
    on_features.eval()  # the estimate of the singular value rests
    x = images(2, 3, 64, 96)
    maps = extractor.maps(127.5 * (x + 1))
    logits = on_features(x)
    assert [each.shape for each in logits] == [(2, 1, *each.shape[2:]) for each in maps]
    for features, head, found in zip(maps, on_features.heads, logits, strict=True):
        mean, var = features.mean(dim=(1, 2, 3), keepdim=True), features.var(dim=(1, 2, 3), keepdim=True, correction=0)
        y = F.leaky_relu(F.conv2d((features - mean) / (var + 1e-5).sqrt(), head.project.weight, head.project.bias), 0.2)
        z = F.leaky_relu(F.conv2d(y, head.residual.weight, head.residual.bias, padding=1), 0.2)
        expected = F.conv2d((y + z) / 2**0.5, head.out.weight, head.out.bias)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_heads_alone_are_trained_and_stored(on_features, extractor):
    frozen = {name: value.clone() for name, value in extractor.network.state_dict().items()}
    assert all(name.startswith('heads.') for name in on_features.state_dict())
    assert sum(each.numel() for each in on_features.parameters()) < 10_000
    x = images(2, 3, 64, 64).requires_grad_()
    optimizer = torch.optim.SGD(on_features.parameters(), lr=0.1)
    sum(each.mean() for each in on_features.train()(x)).backward()
    assert x.grad.abs().sum(dim=(1, 2, 3)).min() > 0  # to the images through the frozen network
    optimizer.step()
    assert all(torch.equal(value, frozen[name]) for name, value in extractor.network.state_dict().items())
    other = FeatureDiscriminator(extractor, 8)
    other.load_state_dict(on_features.state_dict())
    for one, two in zip(other.eval()(x), copy.deepcopy(on_features).eval()(x), strict=True):
        assert torch.equal(one, two)


def test_spectral_norm_keeps_heads_from_growing(on_features):
    with torch.no_grad():
        for head in on_features.heads:
            head.residual.parametrizations.weight.original.mul_(100)
    for _ in range(30):  # the estimate moves by a step in every pass
        on_features.train()(images(1, 3, 64, 64))
    for head in on_features.heads:
        assert torch.linalg.matrix_norm(head.residual.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize('kind', ['features', 'convnext'])
def test_logits_of_an_image_do_not_depend_on_its_batch(kind, on_features):
    model = (on_features if kind == 'features' else ConvNeXtDiscriminator((1, 1), (8, 16))).train()
    x = images(4, 3, 64, 64)
    with torch.no_grad():
        if kind == 'features':  # the estimate of singular values moves from pass to pass
            model.eval()
        whole, alone = model(x), model(x[1:2])
    for one, two in zip(whole, alone, strict=False):
        torch.testing.assert_close(one[1:2] if kind == 'features' else whole[1:2], two if kind == 'features' else alone)


def test_dinov2_gives_four_maps_and_can_be_differentiated_twice():
    model = FeatureDiscriminator(DINOv2('s', weights='random'), 4, kernel_size=9)
    x = images(1, 3, 32, 32)
    assert [each.shape for each in model(x)] == [(1, 1, 16, 16)] * 4
    value = R1(1.0)(DiscriminatorStep(model, x, [], [], 0))
    value.backward()
    assert value > 0
    assert all(each.grad.isfinite().all() for each in model.parameters() if each.grad is not None)
    assert model.heads[0].residual.parametrizations.weight.original.grad.abs().sum() > 0


def test_convnext_learns_to_tell_two_textures():
    torch.manual_seed(0)
    model = ConvNeXtDiscriminator((1, 1), (16, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    textures = lambda seed: (  # noqa: E731
        images(8, 3, 32, 32, seed=seed),
        F.interpolate(images(8, 3, 8, 8, seed=seed + 1), scale_factor=4),
    )
    for step in range(40):
        fine, coarse = textures(2 * step)
        loss = F.relu(1 - model(fine)).mean() + F.relu(1 + model(coarse)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fine, coarse = textures(1000)
    assert model(fine).mean() > 0.5
    assert model(coarse).mean() < -0.5


def test_convnext_is_of_timms_blocks_and_has_a_smallest_size():
    model = ConvNeXtDiscriminator((2, 1), (8, 16), patch_size=4)
    assert [type(each).__name__ for each in model.network].count('ConvNeXtBlock') == 3
    assert model(images(1, 3, 24, 40)).shape == (1, 1, 3, 5)
    assert model.min_size == 8
    with pytest.raises(ValueError, match=r'ConvNeXtDiscriminator: got images of \(4, 8\); expected at least 8'):
        model(images(1, 3, 4, 8))
    # a block: depthwise 7x7, norm, two 1x1 convolutions to four times the width and back
    blocks = sum(n * (50 * d + 2 * d + 4 * d * (d + 1) + d * (4 * d + 1)) for n, d in ((2, 64), (2, 128), (4, 256)))
    between = 2 * 64 + 128 * (4 * 64 + 1) + 2 * 128 + 256 * (4 * 128 + 1)
    ends = 64 * (48 + 1) + 2 * 64 + 2 * 256 + 256 + 1
    assert sum(each.numel() for each in ConvNeXtDiscriminator().parameters()) == blocks + between + ends


def test_arguments_that_do_not_fit_are_refused(extractor):
    with pytest.raises(ValueError, match='depths and widths must be of one length'):
        ConvNeXtDiscriminator((1, 2), (8,))
    with pytest.raises(ValueError, match='kernel_size must be odd, got 4'):
        FeatureDiscriminator(extractor, kernel_size=4)

    class Blind:
        pass

    with pytest.raises(ValueError, match='FeatureDiscriminator.extractor must have feature maps, got Blind'):
        FeatureDiscriminator(Blind())
    assert isinstance(FeatureDiscriminator(extractor), nn.Module)
