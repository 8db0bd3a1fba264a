"""Reference files in ADM's layout: written, read, and refused where features are others."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eqzoo.evaluators.gaussian import FeatureMoments, frechet_distance
from eqzoo.evaluators.reference import read_reference, write_reference
from eqzoo.npz import write_npz

DATA = dict(kind='ImageFolder', root='val', num_images=60, sha256='0a1b')


def extractor(key='small', size=6, frechet_key=None, **card):
    card = {'network': 'a small one', 'weights_sha256': 'ab12', **card}
    return SimpleNamespace(key=key, num_features=size, frechet_key=frechet_key or f'fd_{key}', card=lambda: card)


INCEPTION = extractor('inception', 2048, 'fid')


def moments_of(count=60, size=6, seed=0):
    moments = FeatureMoments(size)
    moments.add(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)))
    return moments


def images(count=10, size=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'reference.npz'
    write_reference(
        path,
        extractor(),
        moments_of(),
        data=DATA,
        spatial=moments_of(size=9, seed=1),
        images=images().split(4),
        num_stored=10,
    )
    return path


def test_a_written_reference_is_read(path):
    reference = read_reference(path, extractor())
    for gaussian, moments in ((reference.pooled, moments_of()), (reference.spatial, moments_of(size=9, seed=1))):
        assert torch.equal(gaussian.mean, moments.mean)
        assert torch.equal(gaussian.covariance, moments.covariance)
    assert reference.num_images == 60
    assert reference.meta['extractor'] == {'key': 'small', 'network': 'a small one', 'weights_sha256': 'ab12'}
    assert reference.has_images
    np.testing.assert_array_equal(reference.images(), images().permute(0, 2, 3, 1).numpy())
    assert frechet_distance(moments_of(), reference.pooled) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ('data', 'stored', 'size'),
    [
        (dict(DATA, size=8), 0, 8),
        (dict(DATA, size=8), 10, 8),
        (DATA, 10, 4),
        (DATA, 0, None),
    ],
)
def test_the_size_is_stated_or_that_of_the_images(tmp_path, data, stored, size, capsys):
    pictures = dict(images=[images()], num_stored=10) if stored else {}
    write_reference(tmp_path / 'a.npz', extractor(), moments_of(), data=data, **pictures)
    reference = read_reference(tmp_path / 'a.npz')
    assert reference.size == size
    reference.check_images(size)
    assert capsys.readouterr().err == ''
    if size is None:
        reference.check_images(16)
        reference.check_images(16)
        assert capsys.readouterr().err.count('a.npz: does not say the size and the crop of its images') == 1
    else:
        with pytest.raises(ValueError, match=f'of {size} x {size} pixels; the samples have 16 x 16. Make .*--size 16'):
            reference.check_images(16)


def test_the_size_of_a_foreign_file_is_that_of_its_images(tmp_path):
    with write_npz(tmp_path / 'adm.npz') as npz:
        npz.add('mu', np.zeros(2048))
        npz.add('sigma', np.eye(2048))
        npz.add_images('arr_0', [images(size=6)], 10)
    reference = read_reference(tmp_path / 'adm.npz', INCEPTION)
    reference.check_images(6, 'center')
    with pytest.raises(ValueError, match='adm.npz: statistics of images of 6 x 6 pixels; the samples have 4 x 4'):
        reference.check_images(4)


def test_samples_that_were_cropped_otherwise_are_refused(tmp_path):
    write_reference(tmp_path / 'a.npz', extractor(), moments_of(), data=dict(DATA, size=8, crop='center'))
    reference = read_reference(tmp_path / 'a.npz')
    for crop in (None, 'exact', 'center'):
        reference.check_images(8, crop)
    with pytest.raises(ValueError, match=r"a.npz: .* cropped by 'center'; these are cropped by 'resize_pil'"):
        reference.check_images(8, 'resize_pil')


def test_features_of_the_images_are_kept(tmp_path):
    features = torch.randn(10, 6, generator=torch.Generator().manual_seed(2))
    given = dict(data=DATA, images=[images()], num_stored=10)
    write_reference(tmp_path / 'a.npz', extractor(), moments_of(), **given, features=features)
    assert torch.equal(read_reference(tmp_path / 'a.npz').features(), features)
    write_reference(tmp_path / 'b.npz', extractor(), moments_of(), **given)
    assert read_reference(tmp_path / 'b.npz').features() is None
    message = r'features \(9, 6\) of 10 images; give \(10, 6\), one row per image'
    with pytest.raises(ValueError, match=message):
        write_reference(tmp_path / 'c.npz', extractor(), moments_of(), **given, features=features[:9])
    write(tmp_path / 'd.npz', **STATISTICS, arr_0=np.zeros((2, 4, 4, 3), np.uint8), features=np.zeros((3, 3)))
    with pytest.raises(
        ValueError, match=r'features are \(3, 3\) of float64; for its images expected \(2, 3\) of float32'
    ):
        read_reference(tmp_path / 'd.npz').features()


def test_adms_evaluator_finds_its_keys(path):
    with np.load(path) as loaded:
        assert {'mu', 'sigma', 'mu_s', 'sigma_s', 'arr_0'} <= set(loaded)
        assert loaded['mu'].shape == (6,)
        assert loaded['sigma'].shape == (6, 6)
        assert loaded['mu_s'].shape == (9,)
        assert loaded['arr_0'].shape == (10, 4, 4, 3)
        assert loaded['arr_0'].dtype == np.uint8


def test_the_card_tells_references_apart(path, tmp_path):
    card = read_reference(path).card()
    assert json.loads(json.dumps(card)) == card
    assert (card['file'], card['num_images'], card['data']) == ('reference.npz', 60, DATA)
    write_reference(tmp_path / 'other.npz', extractor(), moments_of(seed=2), data=DATA)
    assert read_reference(tmp_path / 'other.npz').card()['sha256'] != card['sha256']


def test_spatial_features_and_images_may_be_missing(tmp_path):
    write_reference(tmp_path / 'a.npz', extractor(), moments_of(), data=DATA)
    reference = read_reference(tmp_path / 'a.npz', extractor())
    assert reference.spatial is None
    assert not reference.has_images
    with pytest.raises(ValueError, match="no array 'arr_0'; it has meta, mu, sigma"):
        reference.images()


@pytest.fixture
def adm_path(tmp_path):
    """As ADM's files are: a float32 mean, a float64 covariance, no meta."""
    path = tmp_path / 'VIRTUAL_imagenet256_labeled.npz'
    np.savez(
        path,
        arr_0=images().permute(0, 2, 3, 1).numpy(),
        mu=np.ones(2048, np.float32),
        sigma=np.eye(2048),
        mu_s=np.ones(9, np.float32),
        sigma_s=np.eye(9),
    )
    return path


def test_adms_files_are_of_the_fid_inception(adm_path):
    reference = read_reference(adm_path, INCEPTION)
    assert reference.pooled.mean.dtype == reference.pooled.covariance.dtype == torch.float64
    assert (reference.meta, reference.num_images) == (None, None)
    assert set(reference.card()) == {'file', 'sha256', 'num_images'}
    assert len(reference.images()) == 10


@pytest.mark.parametrize('key', ['random_inception', 'inception'])
def test_adms_files_are_refused_for_other_features_of_that_size(adm_path, key):
    """Also for the Inception with random weights, or with pytorch-fid's resizing."""
    with pytest.raises(
        ValueError, match=f"no 'meta', so these are ADM's statistics, .* of '{key}' .*tools/reference.py"
    ):
        read_reference(adm_path, extractor(key, 2048, 'fid_halfpixel' if key == 'inception' else None))


def test_another_size_of_features_is_refused(tmp_path):
    np.savez(tmp_path / 'a.npz', mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(ValueError, match="features of 6 values; 'inception' has 2048; make a reference"):
        read_reference(tmp_path / 'a.npz', INCEPTION)
    write_reference(tmp_path / 'b.npz', extractor(), moments_of(), data=DATA)
    with pytest.raises(ValueError, match="features of 6 values; 'small' has 7"):
        read_reference(tmp_path / 'b.npz', extractor(size=7))
    with pytest.raises(ValueError, match="moments of 6 features; 'small' has 7"):
        write_reference(tmp_path / 'c.npz', extractor(size=7), moments_of(), data=DATA)


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (extractor('large', network='b'), "its key is 'small', here it is 'large'"),
        (extractor(weights_sha256='cd34'), "its weights_sha256 is 'ab12', here it is 'cd34'"),
        (extractor(resize='bicubic'), "its resize is None, here it is 'bicubic'"),
    ],
)
def test_another_extractor_is_refused(path, other, message):
    with pytest.raises(ValueError, match=f'made with another extractor: {message}; make a reference with tools'):
        read_reference(path, other)
    assert read_reference(path).num_images == 60  # nobody asked


def test_cards_are_compared_as_json_gives_them_back(tmp_path):
    listed, numbered = extractor(mean=(0.5, 0.5)), extractor(mean=[0.5, 0.5])
    write_reference(tmp_path / 'a.npz', listed, moments_of(), data=DATA)
    read_reference(tmp_path / 'a.npz', listed)
    read_reference(tmp_path / 'a.npz', numbered)


def write(path, **arrays):
    with write_npz(path) as npz:
        for name, array in arrays.items():
            npz.add(name, array)


STATISTICS = dict(mu=np.zeros(3), sigma=np.eye(3))


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        (dict(arr_0=np.zeros((2, 4, 4, 3))), "no array 'mu'; it has arr_0; .* this may be a file of samples"),
        (dict(mu=np.zeros(3)), "no array 'sigma'; it has mu"),
        ({**STATISTICS, 'mu_s': np.zeros(3)}, "no array 'sigma_s'"),
        (dict(mu=np.zeros(3), sigma=np.eye(4)), r'mu, sigma: Gaussian: mean \(3,\) and covariance \(4, 4\)'),
        (dict(mu=np.zeros(3), sigma=np.eye(3) * np.nan), 'mu, sigma: Gaussian: .* NaN or infinite'),
        (dict(mu=np.array(['a', 'b', 'c']), sigma=np.eye(3)), 'mu, sigma: could not convert'),
        ({**STATISTICS, 'meta': '{"extractor": '}, "'meta' is invalid"),
        ({**STATISTICS, 'meta': '[1]'}, "'meta' is invalid; expected JSON with extractor, num_images and data"),
        ({**STATISTICS, 'meta': '{"extractor": {}}'}, "'meta' is invalid"),
    ],
)
def test_files_that_are_no_references(tmp_path, arrays, message):
    path = tmp_path / 'a.npz'
    write(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        read_reference(path)
    assert str(path) in str(caught.value)


def test_damaged_and_missing_files(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match='damaged or incomplete npz'):
        read_reference(path)
    with pytest.raises(FileNotFoundError, match='no such npz file'):
        read_reference(tmp_path / 'nowhere.npz')
    (tmp_path / 'text.npz').write_text('mu sigma')
    with pytest.raises(ValueError, match='not an npz file'):
        read_reference(tmp_path / 'text.npz')


def test_arrays_that_are_no_images_are_refused(tmp_path):
    write(tmp_path / 'a.npz', **STATISTICS, arr_0=np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r'arr_0 is \(2, 3, 4, 4\) of float32; expected \(N, H, W, 3\) of uint8'):
        read_reference(tmp_path / 'a.npz').images()


def test_a_failed_writing_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match='got 10 rows, expected 12'):
        write_reference(tmp_path / 'a.npz', extractor(), moments_of(), data=DATA, images=[images()], num_stored=12)
    with pytest.raises(ValueError, match=r'1 image\(s\); a covariance needs at least 2'):
        write_reference(tmp_path / 'a.npz', extractor(), moments_of(1), data=DATA)
    assert list(tmp_path.iterdir()) == []
