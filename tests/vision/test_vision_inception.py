"""The Inception of FID: torch-fidelity's network and values, ADM's layout, and a name of its own."""

import copy
import hashlib
import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from eqzoo.vision import FIDInception, inception, weights
from eqzoo.vision.folding import fold_batch_norms
from eqzoo.zoo import find_model


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """Random weights in a file, as torch-fidelity takes them, with batch norms that change their input."""
    path = tmp_path_factory.mktemp('weights') / 'inception.pth'
    network, generator = inception._build(), torch.Generator().manual_seed(1)
    state = weights.random_state(network)
    for name, value in state.items():
        if '.bn.' in name and value.ndim == 1:
            spread = 0.2 * torch.randn(value.shape, generator=generator)
            state[name] = spread if name.endswith(('bias', 'mean')) else spread.exp()
    torch.save(state, path)
    return path


@pytest.fixture
def images():
    return torch.randint(256, (2, 3, 40, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_features_are_torch_fidelitys(file, images):
    reference = FeatureExtractorInceptionV3('inception', ['2048', 'logits_unbiased'], str(file))
    seen = []
    reference.Mixed_6d.branch1x1.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    pooled, logits = reference(images)
    ours = FIDInception(file)(images)
    _assert_close(ours.pooled, pooled)
    _assert_close(ours.logits, logits)
    # ADM reshapes TensorFlow's (B, 17, 17, 7)
    (maps,) = seen
    expected = torch.stack([maps[:, channel] for channel in range(7)], dim=-1).reshape(2, 17 * 17 * 7)
    _assert_close(ours.spatial, expected)
    assert ours.spatial.min() == 0  # after the ReLU
    assert ours.pooled.std(dim=0).mean() > 1e-3  # not one answer to all images


def _assert_close(ours, theirs):
    """Equal but for the rounding of folded batch norms: 7e-6 of the largest value was measured."""
    assert (ours - theirs).abs().max() < 3e-5 * theirs.abs().max()


def test_folding_batch_norms_changes_rounding_alone(file):
    """In double precision nothing is left of it."""
    network = inception._build().to_empty(device='cpu').eval()
    network.load_state_dict(torch.load(file))
    folded = copy.deepcopy(network.double())
    fold_batch_norms(folded)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    x = torch.randn(1, 3, 75, 75, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = (layers[:-2](x) for layers in (folded, network))  # without pooling and classifier
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 * theirs.abs().max().item())


def test_pytorch_fids_resizing_is_another_kernel(file, images):
    """As pytorch-fid: values in [0, 1], half-pixel centres, then 2 x - 1."""
    ours = FIDInception(file, resize='pytorch-fid')
    expected = 2 * F.interpolate(images / 255, (299, 299), mode='bilinear', align_corners=False) - 1
    torch.testing.assert_close(ours._prepare(images.float()), expected, rtol=0, atol=1e-5)
    by_graph = FIDInception(file)
    # TensorFlow 1 takes the value at ⌊299 x / 64⌋, without half pixels: the first pixel stays
    assert torch.equal(by_graph._prepare(images.float())[:, :, 0, 0], (images[:, :, 0, 0].float() - 128) / 128)
    assert (ours._prepare(images.float()) - by_graph._prepare(images.float())).abs().mean() > 0.1
    assert ours.card()['resize'] != by_graph.card()['resize']


@pytest.mark.parametrize(
    ('options', 'frechet', 'suffix'),
    [
        ({}, 'fid', ''),
        ({'resize': 'pytorch-fid'}, 'fid_halfpixel', '_halfpixel'),
        ({'dtype': 'bfloat16'}, 'fid_bf16', '_bf16'),
        ({'resize': 'pytorch-fid', 'dtype': 'bfloat16'}, 'fid_halfpixel_bf16', '_halfpixel_bf16'),
    ],
)
def test_the_pinned_weights_alone_give_fid(file, monkeypatch, options, frechet, suffix):
    other = FIDInception(file, **options)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (other.frechet_key, other.suffix) == (
        f'fd_inception{suffix}_{sha256[:8]}',
        f'_inception{suffix}_{sha256[:8]}',
    )
    assert other.card()['weights_sha256'] == sha256
    random = FIDInception('random', **options)
    assert (random.frechet_key, random.suffix) == (f'fd_random_inception{suffix}', f'_random_inception{suffix}')
    assert not any(re.search('fid', key) for key in (other.frechet_key, random.frechet_key, other.key, random.key))
    known = replace(inception._known_file(), sha256=sha256)  # were this file the pinned one
    monkeypatch.setattr(inception, '_known_file', lambda: known)
    pinned = FIDInception(file, **options)
    assert (pinned.frechet_key, pinned.suffix) == (frechet, suffix)


def test_the_pin_is_the_file_of_2015():
    known = inception._known_file()
    assert known.sha256 == '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'
    assert find_model('fid-inception').files[0].sha256 == known.sha256


@pytest.fixture
def pinned(file, monkeypatch):
    """The zoo's index, were the file of random weights the published one."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(weights, 'resolve', lambda source: replace(find_model('fid-inception').files[0], sha256=sha256))
    return sha256


def test_the_file_is_found_under_pytorch_fids_name(file, pinned, tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(tmp_path))
    (tmp_path / 'pt_inception-2015-12-05-6726825d.pth').symlink_to(file)
    assert FIDInception.requirements({}) == []
    assert FIDInception().frechet_key == 'fid'


def test_a_download_of_eqzoo_s_is_found(file, pinned, monkeypatch):
    monkeypatch.setattr(weights, 'cached', lambda source: file if source == 'eqzoo://fid-inception' else None)
    assert FIDInception.requirements({}) == []
    assert FIDInception().card()['weights_sha256'] == pinned


def test_other_bytes_under_the_known_name_are_refused(file, tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(tmp_path))
    (tmp_path / 'weights-inception-2015-12-05-6726825d.pth').symlink_to(file)
    with pytest.raises(
        ValueError, match='expected 6726825d.*, the Inception of FID.*: python tools/download.py fid-inception'
    ):
        FIDInception()


def test_missing_weights_are_a_requirement(tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_WEIGHTS_DIR', str(tmp_path))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.chdir(tmp_path)
    (requirement,) = FIDInception.requirements({})
    assert requirement.what == 'the Inception of FID'
    assert str(tmp_path / 'weights-inception-2015-12-05-6726825d.pth') in requirement.where
    assert requirement.remedy == 'python tools/download.py fid-inception'
    with pytest.raises(
        FileNotFoundError, match='the Inception of FID is not in .*: python tools/download.py fid-inception'
    ):
        FIDInception()
    (requirement,) = FIDInception.requirements({'weights': 'elsewhere.pth'})
    assert (requirement.where, requirement.remedy) == ('elsewhere.pth', 'correct weights=PATH')
    assert FIDInception.requirements(FIDInception.smoke({'resize': 'tf1'})) == []
    with pytest.raises(ValueError, match="FIDInception.resize must be 'tf1' or 'pytorch-fid', got 'bilinear'"):
        FIDInception('random', resize='bilinear')


def test_files_that_do_not_fit_or_are_damaged(tmp_path):
    (tmp_path / 'damaged.pth').write_bytes(b'PK\x03\x04 cut off')
    with pytest.raises(ValueError, match="weights: '.*damaged.pth' cannot be read"):
        FIDInception(tmp_path / 'damaged.pth')
    torch.save({'conv.weight': torch.zeros(1), 'epoch': 3}, tmp_path / 'other.pth')
    with pytest.raises(
        ValueError, match=r'other.pth.* does not fit the network: 566 missing: .*; 1 unexpected: conv.weight'
    ):
        FIDInception(tmp_path / 'other.pth')


def test_random_weights_are_the_same_in_every_process(images):
    torch.manual_seed(1)
    first = FIDInception('random')
    state = torch.get_rng_state()
    second = FIDInception('random')
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(images[:1]).pooled, second(images[:1]).pooled)
