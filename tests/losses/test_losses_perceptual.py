"""LPIPS and the distance of features: formula, weights, order of damage, gradients, and the module tree."""

import pytest
import torch

from eqzoo.files import sha256_of
from eqzoo.losses import L1, LPIPS, FeatureDistance, ReconstructionLoss
from eqzoo.registry import build


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_lpips_is_zero_for_equal_images_and_positive_otherwise():
    torch.manual_seed(0)
    loss = LPIPS('alex', 'random')
    a, b = randn(2, 3, 64, 64, seed=5), randn(2, 3, 64, 64, seed=6)
    assert torch.equal(loss(a, a), torch.zeros(2))
    assert (loss(a, b) > 0).all()
    assert loss(a, b).shape == (2,)


@pytest.mark.parametrize('net', ['vgg', 'alex'])
def test_lpips_is_the_packages_with_both_images_in_one_batch(net):
    loss = LPIPS(net, 'random')
    a, b = randn(2, 3, 64, 64, seed=5).clamp(-1, 1), randn(2, 3, 64, 64, seed=6).clamp(-1, 1)
    expected = loss._network(a, b).flatten()
    assert torch.equal(loss(a, b), expected)  # in a training, to the bit
    passes = []
    loss._network.net.register_forward_hook(lambda *arguments: passes.append(len(arguments[1][0])))
    with torch.no_grad():
        torch.testing.assert_close(loss(a, b), expected, rtol=1e-6, atol=0)
    assert passes == [4]


def test_lpips_in_bfloat16_is_another_metric():
    torch.manual_seed(0)
    plain = LPIPS('vgg', 'random')
    torch.manual_seed(0)
    other = LPIPS('vgg', 'random', dtype='bfloat16')
    a = randn(2, 3, 32, 32, seed=5).clamp(-1, 1)
    b = (a + 0.05 * randn(2, 3, 32, 32, seed=6)).requires_grad_()
    expected, found = plain(b, a), other(b, a)
    assert found.dtype == torch.float32
    error = (found / expected - 1).abs().max()
    assert 1e-5 < error < 0.05
    gradients = [torch.autograd.grad(each.sum(), b)[0].flatten() for each in (expected, found)]
    assert torch.cosine_similarity(*gradients, dim=0) > 0.97
    assert (plain.key, other.key) == ('random_vgg', 'random_vgg_bf16')
    assert other.card() == {**plain.card(), 'dtype': 'bfloat16'}


def test_lpips_stays_out_of_the_module_tree():
    """In the tree, train() would switch on its dropout, and optimizers and checkpoints would contain it."""
    loss = ReconstructionLoss(L1(), LPIPS('alex', 'random'))
    loss.train()
    assert [name for name, _ in loss.named_parameters()] == ['log_variance']
    assert not loss.perceptual._network.training
    assert not any(p.requires_grad for p in loss.perceptual._network.parameters())


def test_lpips_loads_torchvisions_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    source = LPIPS('alex', 'random')
    state = {}
    for index in range(1, 6):
        for name, value in getattr(source._network.net, f'slice{index}').state_dict().items():
            state[f'features.{name}'] = value
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(tmp_path))
    path = tmp_path / 'alexnet-owt-7be5be79.pth'
    torch.save(state | {'classifier.1.weight': torch.zeros(1)}, path)
    assert LPIPS.requirements({'net': 'alex'}) == []
    with pytest.raises(ValueError, match=f'{path.name} has the sha256 {sha256_of(path)}; expected 7be5be79'):
        LPIPS('alex')
    a, b = randn(1, 3, 64, 64, seed=7), randn(1, 3, 64, 64, seed=8)
    torch.testing.assert_close(LPIPS('alex', path)(a, b), source(a, b), rtol=0, atol=0)


def test_lpips_refuses_a_file_of_another_network(tmp_path):
    """The trunk's layers have the same names in every VGG, and a page that was saved instead of it has none."""
    torch.save({'features.0.weight': torch.zeros(64, 3, 3, 3)}, tmp_path / 'vgg11.pth')
    with pytest.raises(ValueError, match=r'LPIPS\.weights: .*vgg11\.pth does not fit the network: 9 missing: '):
        LPIPS('alex', tmp_path / 'vgg11.pth')
    (tmp_path / 'page.pth').write_text('<!doctype html>')
    with pytest.raises(ValueError, match=r'page\.pth'):
        LPIPS('alex', tmp_path / 'page.pth')


def test_lpips_names_the_missing_file(tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.chdir(tmp_path)
    (requirement,) = LPIPS.requirements({})
    assert 'vgg16-397923af.pth' in requirement.what
    assert str(tmp_path) in requirement.where
    assert requirement.remedy == 'python tools/download.py lpips-vgg16'
    with pytest.raises(FileNotFoundError, match='vgg16-397923af.pth.*; fetch it: python tools/download.py lpips-vgg16'):
        LPIPS()
    with pytest.raises(ValueError, match=r"LPIPS.net must be 'vgg' or 'alex', got 'squeeze'"):
        LPIPS('squeeze')


class Pixels:
    """Feature maps that can be computed by hand."""

    key = 'pixels'

    def maps(self, images):
        return [images, images[:, :2, ::2, ::2]]

    def card(self):
        return {'network': 'none'}


@pytest.fixture(scope='module')
def distance():
    return build(dict(type='FeatureDistance', extractor=dict(type='EfficientNetLite0')))


@pytest.fixture
def images():
    """Return smooth images, which are more like photographs than noise."""
    coarse = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(2 * coarse - 1, size=(64, 64), mode='bicubic').clamp(-1, 1)


def noise(seed=1):
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_squared_distance_of_unit_vectors_averaged_and_summed():
    a, b = noise(1), noise(2)
    found = FeatureDistance(Pixels())(a, b)
    expected = torch.zeros(2)
    for maps in ((lambda x: x), (lambda x: x[:, :2, ::2, ::2])):
        first, second = (maps(127.5 * (x + 1)) for x in (a, b))
        cosine = torch.nn.functional.cosine_similarity(first, second, dim=1)
        expected += (2 - 2 * cosine).mean(dim=(1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_it_is_zero_for_equal_images_and_symmetric(distance, images):
    other = (images + 0.2 * noise()).clamp(-1, 1)
    assert torch.equal(distance(images, images), torch.zeros(2))
    torch.testing.assert_close(distance(images, other), distance(other, images))


def test_more_damage_increases_the_distance(distance, images):
    by_noise = torch.stack([distance(images + sigma * noise(), images) for sigma in (0.05, 0.1, 0.2, 0.4)])
    small = [torch.nn.functional.avg_pool2d(images, k, 1, k // 2) for k in (3, 7, 15)]
    by_blur = torch.stack([distance(each, images) for each in small])
    assert (by_noise.diff(dim=0) > 0).all()
    assert (by_blur.diff(dim=0) > 0).all()
    # like LPIPS and unlike pixels: a grey level more everywhere is nothing beside noise of the same power
    assert (distance(images * 0.9 + 0.05, images) < 0.2 * distance(images + 0.1 * noise(), images)).all()


def test_gradient_descent_reduces_the_distance(distance, images):
    x = (images + 0.3 * noise()).requires_grad_()
    before = distance(x, images)
    for _ in range(5):
        (gradient,) = torch.autograd.grad(distance(x, images).sum(), x)
        x = (x - 0.5 * gradient / gradient.norm()).detach().requires_grad_()
    assert (distance(x, images) < 0.9 * before).all()
    assert not any(parameter.requires_grad for parameter in distance.extractor.network.parameters())


def test_it_works_as_perceptual_loss_outside_the_module_tree(distance, images):
    x = (images + 0.1 * noise()).requires_grad_()
    loss, parts = ReconstructionLoss(L1(), distance, perceptual_weight=2.0)(x, images)
    loss.backward()
    plain, _ = ReconstructionLoss(L1())(x, images)
    torch.testing.assert_close(parts['perceptual'], distance(x, images).mean().detach())
    torch.testing.assert_close(loss - plain, 2 * parts['perceptual'] * 3 * 64 * 64, rtol=1e-4, atol=0.1)
    assert x.grad.abs().sum() > 0
    module = ReconstructionLoss(L1(), distance)
    module.train()
    assert [name for name, _ in module.named_parameters()] == ['log_variance']
    assert not distance.extractor.network.training


def test_images_of_16_pixels_and_autocast(distance, images):
    assert distance(images[:, :, :16, :16], -images[:, :, :16, :16]).min() > 0
    with torch.autocast('cpu', torch.bfloat16):
        reduced = distance(images + 0.2 * noise(), images)
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, distance(images + 0.2 * noise(), images), rtol=0.1, atol=0)


def test_key_card_and_refused_extractors(distance):
    assert distance.key == 'distance_effnet_lite0'
    assert distance.card()['extractor'] == distance.extractor.card()
    with pytest.raises(ValueError, match="FeatureDistance.extractor must be a component .*, got 'effnet'"):
        FeatureDistance('effnet')
