"""DINOv2: Meta's positions and preparation, and FDD's name for the large network alone."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch.nn import functional as F

from eqzoo.vision import DINOv2, dinov2


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cubic(distance):
    """The kernel of bicubic interpolation, a = -0.75 as in torch."""
    d, a = np.abs(distance), -0.75
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def test_positions_are_resampled_as_meta_does():
    """Sixteen points at (i + 1/2) · 37 / 16.1 - 1/2 of 37, without antialiasing; borders repeated."""
    positions = randn(1, 1 + 37**2, 5)
    grid = positions[0, 1:].double().reshape(37, 37, 5).numpy()
    matrix = np.zeros((16, 37))
    for i in range(16):
        centre = (i + 0.5) * 37 / 16.1 - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[i, min(max(tap, 0), 36)] += cubic(centre - tap)
    expected = torch.from_numpy(np.einsum('ia,jb,abd->ijd', matrix, matrix, grid)).reshape(1, 256, 5)
    resampled = dinov2._resample_positions(positions)
    assert torch.equal(resampled[:, :1], positions[:, :1])
    torch.testing.assert_close(resampled[:, 1:].double(), expected, rtol=0, atol=1e-4)
    assert torch.equal(dinov2._resample_positions(resampled), resampled)


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """Random weights in a file with Meta's names and sizes."""
    state = DINOv2('s', weights='random').network.state_dict()
    state |= {'mask_token': torch.zeros(1, 384), 'pos_embed': randn(1, 1 + 37**2, 384)}
    path = tmp_path_factory.mktemp('weights') / 'vits.pth'
    torch.save(state, path)
    return path


def test_features_are_the_class_token_after_the_norm(file):
    images = torch.randint(256, (2, 3, 60, 80), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    extractor = DINOv2('s', weights=file)
    found = extractor(images)
    assert (found.spatial, found.logits) == (None, None)
    assert found.pooled.shape == (2, extractor.num_features) == (2, 384)
    # ImageNet's mean and deviation in grey levels
    resized = F.interpolate(images.float(), (224, 224), mode='bicubic', antialias=True)
    x = (resized - torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)) / torch.tensor([58.395, 57.12, 57.375]).view(
        3, 1, 1
    )
    # without a head timm's whole network gives the class token
    torch.testing.assert_close(found.pooled, extractor.network(x), rtol=1e-4, atol=1e-4)
    assert found.pooled.std(dim=0).mean() > 1e-2
    maps = extractor.maps(images.float())
    assert [tuple(each.shape) for each in maps] == [(2, 384, 16, 16)] * 4


def test_timms_own_loader_gives_other_positions(file):
    """Why the file is not left to it: EDM2's FDD is on Meta's code."""
    network = DINOv2('s', weights=file).network
    timms = checkpoint_filter_fn(torch.load(file, weights_only=True), network)['pos_embed']
    assert (timms - network.pos_embed).abs().max() > 0.1


def test_fdd_is_the_large_network_with_metas_weights(file, monkeypatch):
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    other = DINOv2('s', weights=file)
    assert other.frechet_key == f'fd_dinov2_vits14_{sha256[:8]}'
    known = replace(dinov2._known_file('s'), sha256=sha256)
    monkeypatch.setattr(dinov2, '_known_file', lambda size: known)
    small = DINOv2('s', weights=file)
    assert (small.frechet_key, small.suffix) == ('fd_dinov2_vits14', '_dinov2_vits14')
    large = small
    large.size, large.key = 'l', 'dinov2_vitl14'  # 1.2 GB otherwise
    assert (large.frechet_key, large.suffix) == ('fdd', '_dinov2_vitl14')
    assert small.card()['weights_sha256'] == sha256


def test_requirements_and_refusals(tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (requirement,) = DINOv2.requirements({})
    assert (requirement.what, requirement.remedy) == ('DINOv2 ViT-L/14', 'python tools/download.py dinov2-vitl14')
    (requirement,) = DINOv2.requirements({'size': 'b'})
    assert 'dinov2_vitb14_pretrain.pth' in requirement.where
    assert DINOv2.requirements(DINOv2.smoke({'size': 'l'})) == []
    with pytest.raises(ValueError, match="DINOv2.size must be 's', 'b' or 'l', got 'g'"):
        DINOv2('g')
    torch.save({'pos_embed': torch.zeros(1, 5, 384)}, tmp_path / 'cut.pth')
    with pytest.raises(ValueError, match='cut.pth.* does not fit the network: 173 missing: cls_token'):
        DINOv2('s', weights=tmp_path / 'cut.pth')
