"""Latents of LightningDiT, fast-DiT and EQ-VAE: the same batches as from their own loaders."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eqzoo.data import build_train_loader
from eqzoo.data.latents import LightningDiTLatents, NpyLatents

MEAN, STD = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.5, 4.0])
SIZES = (4, 3)


@pytest.fixture
def shards(tmp_path):
    """Two shards in LightningDiT's layout, and the tensors of both joined."""
    generator = torch.Generator().manual_seed(0)
    rows = sum(SIZES)
    whole = {name: torch.randn(rows, 3, 4, 4, generator=generator) for name in ('latents', 'latents_flip')}
    whole['labels'] = torch.arange(rows) * 3
    start = 0
    for number, size in enumerate(SIZES):
        piece = {name: value[start : start + size].clone() for name, value in whole.items()}
        metadata = dict(total_size=str(size), dtype='torch.float32', device='cpu')
        save_file(piece, tmp_path / f'latents_rank00_shard{number:03d}.safetensors', metadata=metadata)
        start += size
    torch.save(dict(mean=MEAN.view(1, 3, 1, 1), std=STD.view(1, 3, 1, 1)), tmp_path / 'latents_stats.pt')
    return tmp_path, whole


def theirs(latents, multiplier=1.0):
    """The latents as LightningDiT's loader normalises them."""
    return (latents - MEAN.view(1, 3, 1, 1)) / STD.view(1, 3, 1, 1) * multiplier


def test_lightningdit_batches_are_normalised_as_its_loader_does(shards):
    root, whole = shards
    data = LightningDiTLatents(str(root), 20)
    rows = [5, 0, 4, 3]
    batch = data.__getitems__([(row, 50 + row) for row in rows])
    torch.testing.assert_close(batch['mean'], theirs(whole['latents'])[rows])
    assert batch['labels'].tolist() == [15, 0, 12, 9]
    assert set(batch) == {'mean', 'labels', 'indices', 'draws', 'unreadable'}
    assert (len(data), data.latent_shape, data.num_classes, data.kind) == (7, (3, 4, 4), 20, 'moments')
    assert data.labels() == whole['labels'].tolist()
    normalization = data.autoencoder['normalization']
    assert normalization == dict(shift=MEAN.tolist(), scale=(1 / STD).tolist())
    assert data.autoencoder['sha256'] is None
    doubled = LightningDiTLatents(str(root), 20, latent_multiplier=2.0)
    torch.testing.assert_close(doubled[6]['mean'][None], theirs(whole['latents'][6:], 2.0))
    raw = LightningDiTLatents(str(root), 20, latent_norm=False, latent_multiplier=0.5)
    torch.testing.assert_close(raw[6]['mean'], whole['latents'][6] * 0.5)
    assert raw.autoencoder['normalization'] == dict(shift=[0.0] * 3, scale=[0.5] * 3)


def test_lightningdit_flips_by_the_draw(shards):
    root, whole = shards
    data = LightningDiTLatents(str(root), 20, flip=True)
    mean = data.__getitems__([(2, draw) for draw in range(300)])['mean']
    sides = torch.stack([theirs(whole[name])[2] for name in ('latents', 'latents_flip')])
    flipped = (mean - sides[0]).abs().amax((1, 2, 3)) > 1e-5
    torch.testing.assert_close(mean, sides[flipped.long()])
    assert 110 < int(flipped.sum()) < 190
    assert not torch.equal(
        LightningDiTLatents(str(root), 20, flip=True, seed=1).__getitems__([(2, d) for d in range(300)])['mean'], mean
    )
    assert (data.identity()['flip'], data.describe().endswith('drawn once, flipped at random')) == (True, True)
    assert len(pickle.dumps(data)) < 3000


def test_lightningdit_goes_through_the_loader(shards):
    root, _ = shards
    batch = next(iter(build_train_loader(LightningDiTLatents(str(root), 20), batch_size=7, num_workers=0, seed=0)))
    assert sorted(batch['labels'].tolist()) == [0, 3, 6, 9, 12, 15, 18]


def test_lightningdit_refusals(shards, tmp_path_factory):
    root, whole = shards
    empty = tmp_path_factory.mktemp('empty')
    with pytest.raises(FileNotFoundError, match='no latents of LightningDiT'):
        LightningDiTLatents(str(empty))
    with pytest.raises(ValueError, match='shard001.safetensors, row 2: label 18; expected 0 to 17'):
        LightningDiTLatents(str(root), 18)[6]
    with pytest.raises(ValueError, match='num_classes must be at least 1, got 0'):
        LightningDiTLatents(str(root), 0)
    with pytest.raises(ValueError, match='latent_multiplier must be above 0, got 0'):
        LightningDiTLatents(str(root), latent_multiplier=0)
    shard = root / 'latents_rank00_shard001.safetensors'
    content = shard.read_bytes()
    shard.write_bytes(content[:-4])
    with pytest.raises(ValueError, match='shard001.safetensors: truncated'):
        LightningDiTLatents(str(root))
    save_file({name: value.clone() for name, value in whole.items() if name != 'latents_flip'}, shard)
    assert len(LightningDiTLatents(str(root))) == 4 + 7
    with pytest.raises(ValueError, match='not a shard of LightningDiT: .*expected latents, latents_flip, labels'):
        LightningDiTLatents(str(root), flip=True)
    save_file({**whole, 'latents': torch.zeros(7, 3, 2, 2)}, shard)
    with pytest.raises(ValueError, match='shards of several kinds'):
        LightningDiTLatents(str(root))
    save_file({**whole, 'labels': torch.zeros(7)}, shard)
    with pytest.raises(ValueError, match='labels are float32; expected int64'):
        LightningDiTLatents(str(root))
    save_file({**whole, 'latents': whole['latents'].double()}, shard)
    with pytest.raises(ValueError, match='latents are float64; expected float32 or float16 or bfloat16'):
        LightningDiTLatents(str(root))


def test_lightningdit_statistics_must_exist_and_fit(shards):
    root, _ = shards
    path = root / 'latents_stats.pt'
    torch.save(dict(mean=torch.zeros(4), std=torch.ones(4)), path)
    with pytest.raises(ValueError, match=r'no statistics of 3 channels .*of shape \(1, 3, 1, 1\)'):
        LightningDiTLatents(str(root))
    torch.save(dict(mean=torch.zeros(3), std=torch.zeros(3)), path)
    with pytest.raises(ValueError, match='std must be positive'):
        LightningDiTLatents(str(root))
    path.unlink()
    with pytest.raises(FileNotFoundError, match='latents_stats.pt: the latents are raw'):
        LightningDiTLatents(str(root))
    (lack,) = LightningDiTLatents.requirements(dict(root=str(root)))
    assert 'latents_stats.pt' in lack.what
    assert LightningDiTLatents.requirements(dict(root=str(root), latent_norm=False)) == []


def write_npy(root, names, *, seed=0):
    latents = np.random.default_rng(seed).normal(size=(len(names), 1, 4, 8, 8)).astype(np.float32)
    for folder in ('imagenet256_features', 'imagenet256_labels'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        np.save(root / 'imagenet256_features' / f'{name}.npy', latents[number])
        np.save(root / 'imagenet256_labels' / f'{name}.npy', np.array([number * 2]))
    return torch.from_numpy(latents[:, 0])


@pytest.mark.parametrize(
    'names', [[str(step) for step in range(12)], [f'{rank}-{step}' for rank in range(2) for step in range(11)]]
)
def test_npy_latents_are_in_the_order_of_their_numbers_and_as_they_are(tmp_path, names):
    latents = write_npy(tmp_path, names)
    data = NpyLatents(str(tmp_path), 100, scale=0.2)
    batch = data.__getitems__([11, (2, 90)])
    assert torch.equal(batch['mean'], latents[[11, 2]])
    assert (batch['labels'].tolist(), batch['draws'].tolist()) == ([22, 4], [11, 90])
    assert data.labels() == [2 * number for number in range(len(names))]
    assert data.autoencoder['normalization'] == dict(shift=[0.0] * 4, scale=[0.2] * 4)
    assert NpyLatents(str(tmp_path)).autoencoder['normalization']['scale'] == [0.18215] * 4
    assert (data.num_classes, data.latent_shape, len(data)) == (100, (4, 8, 8), len(names))
    assert data.identity()['sha256'] != NpyLatents(str(tmp_path)).identity()['normalization']
    assert (
        data.describe()
        == f'NpyLatents: {len(names)} latents 4x8x8 of 100 classes from {tmp_path.name}, drawn once, scaled by 0.2'
    )
    shift, scale = torch.zeros(4), torch.full((4,), 0.2)
    data.check_autoencoder('whatever', shift, scale)
    with pytest.raises(ValueError, match='with scale .* Set shift and scale'):
        data.check_autoencoder('whatever', shift, scale * 2)


def test_npy_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match='expected a pair of folders'):
        NpyLatents(str(tmp_path))
    (tmp_path / 'a_features').mkdir()
    (tmp_path / 'a_labels').mkdir()
    with pytest.raises(FileNotFoundError, match=r'a_features: no .npy files'):
        NpyLatents(str(tmp_path))
    write_npy(tmp_path, ['0', '1', '2'])
    with pytest.raises(ValueError, match='several sets of latents: a_features, imagenet256_features'):
        NpyLatents(str(tmp_path))
    (tmp_path / 'a_features').rmdir()
    with pytest.raises(ValueError, match='scale must be above 0, got -1'):
        NpyLatents(str(tmp_path), scale=-1)
    with pytest.raises(ValueError, match='label 4; expected 0 to 3'):
        NpyLatents(str(tmp_path), 4)[2]
    features = tmp_path / 'imagenet256_features'
    np.save(features / '1.npy', np.zeros((2, 4, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r'1.npy: shape \(2, 4, 8, 8\); expected one image'):
        NpyLatents(str(tmp_path))[1]
    np.save(features / '1.npy', np.zeros((1, 4, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r'1.npy: \(1, 4, 4, 4\); the first is \(1, 4, 8, 8\)'):
        NpyLatents(str(tmp_path))[1]
    (features / '1.npy').write_bytes((features / '0.npy').read_bytes()[:-3])
    with pytest.raises(ValueError, match=r'1.npy: damaged'):
        NpyLatents(str(tmp_path))[1]
    (features / '1.npy').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 files have no partner .*: 1.npy; restore'):
        NpyLatents(str(tmp_path))
    assert NpyLatents.requirements(dict(root=str(tmp_path)))[0].where == str(tmp_path)
    assert 'no root is given' in NpyLatents.requirements({})[0].what
