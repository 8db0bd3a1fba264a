"""The latent store: latents read in any order, and every damage noticed."""

import json
import pickle
import shutil

import pytest
import torch

from eqzoo.autoencoders import KLAutoencoder, TinyAutoencoder, VQAutoencoder
from eqzoo.checkpoints.autoencoder import autoencoder_digest
from eqzoo.data import Shapes, build_eval_loader, build_train_loader
from eqzoo.data.latents import LatentStore
from eqzoo.data.latents.write import write_store

SMALL = dict(layers_per_block=1, norm_num_groups=4)
COUNT = 14


def kl(**options):
    torch.manual_seed(0)
    return KLAutoencoder(3, (8, 8), **SMALL, shift=(0.1, 0.2, 0.3), scale=(0.5, 1.0, 2.0), **options).eval()


def images(count=COUNT):
    return Shapes(count, 16, num_classes=4)


def pixels(flip=False, count=COUNT):
    stacked = torch.stack([images(count)[index]['image'] for index in range(count)])
    return (stacked.flip(3) if flip else stacked).float() / 127.5 - 1


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp('store')
    write_store(kl(), images(), root, batch_size=4, flip=True, shard_images=5)
    return root


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / 'store')


class Tokens:
    """A vision encoder: mean colours of the four quarters."""

    def __call__(self, images):
        return torch.nn.functional.avg_pool2d(images.float(), 8).flatten(2).transpose(1, 2)

    def card(self):
        return dict(type='Tokens')


@torch.no_grad()
def test_batches_are_the_posteriors_in_generator_units(root):
    store, autoencoder = LatentStore(root), kl()
    posterior = autoencoder.encode(pixels())
    batch = store.__getitems__([(9, 100), (0, 7), (13, 8)])
    rows = [9, 0, 13]
    torch.testing.assert_close(
        batch['mean'], autoencoder.normalization.normalize(posterior.mean)[rows], rtol=0, atol=1e-5
    )
    scale = autoencoder.normalization.scale[:, None, None]
    torch.testing.assert_close(batch['std'], (posterior.std * scale)[rows], rtol=0, atol=1e-5)
    assert batch['labels'].tolist() == [index % 4 for index in rows]
    assert (batch['indices'].tolist(), batch['draws'].tolist()) == (rows, [100, 7, 8])
    assert (batch['unreadable'], len(store), store.kind, store.latent_shape) == ([], COUNT, 'moments', (3, 8, 8))
    assert (store.num_classes, store.labels()) == (4, images().labels())
    item = store[9, 100]
    assert torch.equal(item['mean'], batch['mean'][0])
    assert (item['label'], item['index'], item['draw']) == (1, 9, 100)


@torch.no_grad()
def test_flip_uses_the_mirrored_latents_with_probability_half_by_the_draw(root):
    data = images()
    store = LatentStore(root, flip=True, images=data, seed=3)
    autoencoder = kl()
    means = {flip: autoencoder.latents(pixels(flip)) for flip in (False, True)}
    batch = store.__getitems__([(5, draw) for draw in range(400)])
    flipped = torch.tensor([bool((image != data[5]['image']).any()) for image in batch['images']])
    assert 160 < int(flipped.sum()) < 240
    for flip in (False, True):
        of_these = batch['mean'][flipped == flip]
        torch.testing.assert_close(of_these, means[flip][5].expand_as(of_these), rtol=0, atol=1e-5)
    assert torch.equal(batch['images'][flipped][0], data[5]['image'].flip(2))
    for other in (LatentStore(root, flip=True, seed=4), LatentStore(root)):
        assert not torch.equal(other.__getitems__([(5, draw) for draw in range(400)])['mean'], batch['mean'])
    assert torch.equal(store[5, 17]['mean'], batch['mean'][17])


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_batches_do_not_depend_on_the_workers_of_the_loader(root):
    store = LatentStore(root, flip=True)
    len_of_pickle = len(pickle.dumps(store))
    here, there = (
        [
            batch
            for batch, _ in zip(
                build_train_loader(store, batch_size=6, num_workers=workers, seed=1), range(5), strict=False
            )
        ]
        for workers in (0, 2)
    )
    for ours, theirs in zip(here, there, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ('mean', 'std', 'labels', 'draws'):
            assert torch.equal(ours[name], theirs[name])
    assert len(pickle.dumps(store)) == len_of_pickle < 5000
    batches = list(build_eval_loader(store, batch_size=4, num_workers=0))
    assert [index for batch in batches for index in batch['indices'].tolist()] == list(range(COUNT))


@pytest.mark.parametrize(('dtype', 'atol'), [('float16', 2e-3), ('bfloat16', 2e-2)])
def test_half_precision_takes_half_the_space_and_is_close(written, tmp_path, dtype, atol):
    write_store(kl(), images(), tmp_path / dtype, batch_size=4, dtype=dtype)
    half, whole = LatentStore(tmp_path / dtype), LatentStore(written)
    assert half.plan.fields['mean'].num_bytes * 2 == whole.plan.fields['mean'].num_bytes
    ours, theirs = (store.__getitems__(list(range(COUNT)))['mean'] for store in (half, whole))
    assert ours.dtype == torch.float32
    assert 0 < (ours - theirs).abs().max() < atol
    stored = torch.tensor(half.autoencoder['normalization']['scale'])[:, None, None]
    raw = ours / stored + torch.tensor(half.autoencoder['normalization']['shift'])[:, None, None]
    nearest = raw.to(getattr(torch, dtype)).float()
    torch.testing.assert_close(raw, nearest, rtol=1e-5, atol=1e-6)


def test_autocast_changes_the_latents_a_little(written, tmp_path):
    write_store(kl(), images(), tmp_path, batch_size=4, precision='bf16')
    ours, theirs = (LatentStore(root).__getitems__([0, 1])['mean'] for root in (tmp_path, written))
    assert 0 < (ours - theirs).abs().max() < 0.1


@torch.no_grad()
def test_a_store_of_a_codebook_has_codes(tmp_path):
    torch.manual_seed(0)
    autoencoder = VQAutoencoder(4, 32, (8, 8), attention_levels=(), norm_num_groups=4, layers_per_block=1).eval()
    write_store(autoencoder, images(), tmp_path, batch_size=4, shard_images=6, flip=True)
    store = LatentStore(tmp_path)
    batch = store.__getitems__([3, 12])
    assert torch.equal(batch['codes'], autoencoder.tokens(pixels())[[3, 12]])
    assert (batch['codes'].dtype, batch['labels'].tolist(), 'mean' in batch) == (torch.int64, [3, 0], False)
    assert (store.kind, store.num_codes, store.latent_shape) == ('codes', 32, (8, 8))
    assert store.autoencoder['normalization'] is None
    assert store.plan.fields['codes'].dtype == 'uint16'


def test_a_store_without_a_posterior_has_no_std(tmp_path):
    torch.manual_seed(0)
    write_store(TinyAutoencoder(width=8, num_blocks=(1, 1)).eval(), images(), tmp_path, batch_size=4)
    assert set(LatentStore(tmp_path)[0]) == {'mean', 'label', 'index', 'draw'}


def test_features_of_a_vision_encoder_are_stored(tmp_path):
    write_store(kl(), images(), tmp_path, batch_size=4, flip=True, encoder=Tokens())
    store = LatentStore(tmp_path, flip=True, images=images())
    batch = store.__getitems__([(2, draw) for draw in range(16)])
    expected = Tokens()(batch['images']).to(torch.bfloat16).float()
    assert batch['features'].shape == (16, 4, 3)
    torch.testing.assert_close(batch['features'], expected, rtol=0, atol=0)
    assert len(batch['features'].unique(dim=0)) == 2
    assert store.plan.encoder == dict(type='Tokens')


def test_statistics_are_of_drawn_latents(root):
    autoencoder = kl()
    with torch.no_grad():
        posterior = autoencoder.encode(pixels())
    statistics = LatentStore(root).index.statistics
    mean = posterior.mean.mean((0, 2, 3))
    variance = posterior.mean.var((0, 2, 3), correction=0) + posterior.std.square().mean((0, 2, 3))
    assert statistics['mean'] == pytest.approx(mean.tolist(), abs=1e-6)
    assert statistics['std'] == pytest.approx(variance.sqrt().tolist(), abs=1e-6)


def test_another_autoencoder_or_normalisation_is_refused(root):
    store, autoencoder = LatentStore(root), kl()
    normalization = autoencoder.normalization
    store.check_autoencoder(autoencoder_digest(autoencoder), normalization.shift, normalization.scale)
    other = kl()
    other.decoder.conv_out.bias.data += 1
    with pytest.raises(ValueError, match=r'autoencoder \w{12}…, the config has \w{12}…; .*weights'):
        store.check_autoencoder(autoencoder_digest(other), normalization.shift, normalization.scale)
    with pytest.raises(ValueError, match=r'scale \(0.5, 1, 2\), the autoencoder has \(0.5, 1, 4\); .*cache_latents'):
        store.check_autoencoder(autoencoder_digest(autoencoder), normalization.shift, torch.tensor([0.5, 1, 4]))
    with pytest.raises(ValueError, match='with shift'):
        store.check_autoencoder(autoencoder_digest(autoencoder), normalization.shift + 1, normalization.scale)


def damage(path, place, bit=1):
    content = bytearray(path.read_bytes())
    content[place] ^= bit
    path.write_bytes(content)


def test_every_flipped_bit_is_reported_with_shard_and_row(root):
    store = LatentStore(root)
    shard = root / 'shard-00001.safetensors'
    whole = shard.read_bytes()
    header = 8 + int.from_bytes(whole[:8], 'little')
    spans = {name: each['data_offsets'] for name, each in json.loads(whole[8:header]).items() if name != '__metadata__'}
    for name, (start, end) in spans.items():
        for row, bit in ((0, 1), (3, 128)):
            shard.write_bytes(whole)
            length = (end - start) // 5
            damage(shard, header + start + row * length + length // 2, bit)
            flipped = name.endswith('_flip')
            found = LatentStore(root).damaged_rows(1)
            both = name == 'labels'
            expected = [
                f'row {row} (image {5 + row}{", mirrored" if each else ""})'
                for each in ((False, True) if both else (flipped,))
            ]
            assert [place.split(', ', 1)[1] for place in found] == expected
            if not flipped:
                with pytest.raises(
                    ValueError, match=rf'shard-00001.safetensors, row {row} \(image {5 + row}\): its checksum differs'
                ):
                    LatentStore(root).__getitems__([0, 5 + row, 9])
    shard.write_bytes(whole)
    assert [store.damaged_rows(number) for number in range(3)] == [[], [], []]


def test_a_damaged_header_is_noticed(root):
    shard = root / 'shard-00000.safetensors'
    whole = shard.read_bytes()
    header = 8 + int.from_bytes(whole[:8], 'little')
    silent = 0
    for place in range(0, header, 7):
        shard.write_bytes(whole)
        damage(shard, place)
        try:
            batch = LatentStore(root).__getitems__([0, 4])
        except ValueError:
            continue
        assert torch.equal(batch['mean'], LatentStore(root).__getitems__([0, 4])['mean'])
        silent += 1
    assert silent < header / 7 / 2  # a reader needs neither the sums nor the other tensors


def test_missing_truncated_and_foreign_shards_are_refused(root, written):
    shard = root / 'shard-00002.safetensors'
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(
        FileNotFoundError, match='shard-00002.safetensors: missing shard of 3; run python tools/cache_latents'
    ):
        LatentStore(root)
    shard.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf'truncated shard: {len(content) - 1:,} bytes, {len(content):,} expected'):
        LatentStore(root)
    plan = LatentStore(written).plan.sha256
    shard.write_bytes(content.replace(plan.encode(), plan[::-1].encode()))  # of the same size
    with pytest.raises(ValueError, match='belongs to another store'):
        LatentStore(root)[12]


def test_indices_of_other_versions_and_damaged_ones_are_refused(root):
    path = root / 'index.json'
    index = json.loads(path.read_text())
    for version in (1, 3):
        path.write_text(json.dumps({**index, 'version': version}))
        with pytest.raises(
            ValueError, match=f'version {version}; expected .*version 2; .*write the store again: python'
        ):
            LatentStore(root)
    path.write_text(json.dumps({**index, 'format': 'another'}))
    with pytest.raises(ValueError, match="format 'another'"):
        LatentStore(root)
    path.write_text(json.dumps({**index, 'classes': ['a']}))
    with pytest.raises(ValueError, match='edited .ValueError: its content differs'):
        LatentStore(root)
    path.write_text(json.dumps(index)[:-9])
    with pytest.raises(ValueError, match='damaged or edited'):
        LatentStore(root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='no index.json, but plan.json'):
        LatentStore(root)


def test_other_images_are_refused(root):
    with pytest.raises(ValueError, match='not the images of these latents: .*seed 5, not 0.*sha256'):
        LatentStore(root, images=Shapes(COUNT, 16, num_classes=4, seed=5))
    with pytest.raises(ValueError, match='flip True, not False'):
        LatentStore(root, images=Shapes(COUNT, 16, num_classes=4, flip=True))


def test_a_flip_needs_the_mirrored_copy(tmp_path):
    write_store(kl(), images(), tmp_path, batch_size=4)
    with pytest.raises(ValueError, match='expected flip=False; or .* --flip --out'):
        LatentStore(tmp_path, flip=True)


def test_requirements(root, tmp_path):
    assert LatentStore.requirements(dict(root=str(root), flip=True)) == []
    (lack,) = LatentStore.requirements(dict(root=str(tmp_path / 'nowhere')))
    assert (lack.what, lack.where) == ('latent store', str(tmp_path / 'nowhere'))
    assert lack.remedy == 'python tools/cache_latents.py CONFIG'
    (root / 'shard-00001.safetensors').unlink()
    assert 'missing shard' in LatentStore.requirements(dict(root=str(root)))[0].what
    assert 'no root is given' in LatentStore.requirements({})[0].what


def test_indices_and_seeds_out_of_range(root):
    with pytest.raises(IndexError, match='Index 14 is not in 0 to 13'):
        LatentStore(root)[COUNT]
    with pytest.raises(IndexError, match='Index -1'):
        LatentStore(root).__getitems__([(0, 0), (-1, 0)])
    with pytest.raises(ValueError, match='LatentStore.seed must be at least 0, got -1'):
        LatentStore(root, seed=-1)


def test_identity_and_description(root, tmp_path):
    store = LatentStore(root)
    identity = store.identity()
    assert identity['images'] == images().identity()
    assert identity['autoencoder'] == autoencoder_digest(kl())
    assert identity['normalization']['scale'] == [0.5, 1.0, 2.0]
    assert store.describe().startswith('LatentStore: 14 latents 3x8x8 of 4 classes from store, autoencoder ')
    assert LatentStore(root, flip=True).describe().endswith(', flipped at random')
    write_store(kl(), images(13), tmp_path / 'less', batch_size=4)
    assert LatentStore(tmp_path / 'less').identity()['sha256'] != identity['sha256']


def test_a_row_opens_its_shard_only(root):
    store = LatentStore(root)
    store.__getitems__([0])
    assert set(store._shards) == {(0, False)}
