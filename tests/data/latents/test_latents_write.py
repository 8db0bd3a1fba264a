"""Writing a latent store: the same bytes for any workers, processes and interruptions; refusals."""

import filecmp
import json
import resource
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from eqzoo.autoencoders import KLAutoencoder, VQAutoencoder
from eqzoo.data import ImageFolder, Shapes
from eqzoo.data.latents import LatentStore
from eqzoo.data.latents.write import write_store
from eqzoo.files import WriteError

OPTIONS = dict(batch_size=3, flip=True, shard_images=4)


def kl(**options):
    torch.manual_seed(0)
    return KLAutoencoder(2, (8, 8), layers_per_block=1, norm_num_groups=4, **options).eval()


def images(count=14):
    return Shapes(count, 16)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp('store')
    write_store(kl(), images(), root, **OPTIONS)
    return root


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / 'store')


def same(first, second):
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert filecmp.cmpfiles(first, second, names, shallow=False)[0] == names


def test_several_processes_write_the_same_bytes(written, tmp_path):
    for rank in (2, 1, 0):  # without a group nobody waits: the first process is last
        result = write_store(kl(), images(), tmp_path / 'a', **OPTIONS, rank=rank, world_size=3)
        assert (result.index is None) == (rank > 0)
    same(written, tmp_path / 'a')


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_workers_write_the_same_bytes(written, tmp_path):
    write_store(kl(), images(), tmp_path / 'a', **OPTIONS, num_workers=2)
    same(written, tmp_path / 'a')


class KilledError(Exception):
    pass


def test_a_killed_run_continues_where_it_stopped(written, tmp_path):
    root = tmp_path / 'a'
    for allowed in range(5):  # each run gets one shard further
        encoded = []

        def stop(count, encoded=encoded):
            encoded.append(count)
            if sum(encoded[1:]) > 4:
                raise KilledError

        if allowed < 3:
            with pytest.raises(KilledError):
                write_store(kl(), images(), root, **OPTIONS, progress=stop)
            assert len(list(root.glob('*.safetensors'))) == allowed + 1
            assert encoded[0] == 4 * allowed
            (root / f'.shard-{allowed + 1:05d}.safetensors.{2**30}.tmp').write_bytes(b'half')
            (root / f'.index.json.{2**30}.tmp').write_bytes(b'half')
            with pytest.raises(FileNotFoundError, match='no index.json, but plan.json'):
                LatentStore(root)
    result = write_store(kl(), images(), root, **OPTIONS)
    assert (result.outcome, result.num_encoded) == ('written', 2)
    same(written, root)


def test_a_store_of_version_1_is_refused(root):
    """Its rows have checksums of another kind."""
    for name in ('plan.json', 'index.json'):
        path = root / name
        path.write_text(json.dumps({**json.loads(path.read_text()), 'version': 1}))
        with pytest.raises(ValueError, match=f'{name}: .*version 1; expected .*version 2; .*write the store again'):
            write_store(kl(), images(), root, **OPTIONS)
        path.unlink()
    shard = root / 'shard-00000.safetensors'
    shard.write_bytes(shard.read_bytes().replace(b'\\"version\\": 2', b'\\"version\\": 1'))
    with pytest.raises(ValueError, match='shard-00000.safetensors: .*another store .version 1'):
        write_store(kl(), images(), root, **OPTIONS)


def test_a_complete_store_returns_without_encoding(root):
    autoencoder = kl()
    autoencoder.encode = None
    result = write_store(autoencoder, images(), root, **OPTIONS)
    assert (result.outcome, result.num_encoded, result.index) == ('complete', 0, LatentStore(root).index)
    again = write_store(autoencoder, images(), root, batch_size=5, flip=True)  # shards as they are
    assert again.outcome == 'complete'


def test_missing_and_cut_shards_are_written_again(written, root):
    (root / 'shard-00001.safetensors').unlink()
    cut = root / 'shard-00003.safetensors'
    cut.write_bytes(cut.read_bytes()[:-5])
    assert write_store(kl(), images(), root, **OPTIONS).num_encoded == 6
    same(written, root)


def test_another_normalisation_is_stored_without_encoding(root):
    before = LatentStore(root)[3]
    autoencoder = kl(scale=(2.0, 4.0), shift=1.0)
    autoencoder.encode = None
    assert write_store(autoencoder, images(), root, **OPTIONS).outcome == 'renormalized'
    after = LatentStore(root)[3]
    scale = torch.tensor([2.0, 4.0])[:, None, None]
    torch.testing.assert_close(after['mean'], (before['mean'] - 1) * scale)
    torch.testing.assert_close(after['std'], before['std'] * scale)
    assert write_store(autoencoder, images(), root, **OPTIONS).outcome == 'complete'


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (dict(dtype='bfloat16'), r"fields.mean.dtype 'float32' there, 'bfloat16' asked"),
        (dict(flip=False), 'flip True there, False asked'),
        (dict(precision='bf16'), "precision 'fp32' there, 'bf16' asked"),
        (dict(shard_images=5), 'shard_images 4 there, 5 asked'),
    ],
)
def test_another_plan_is_refused_with_its_differences(root, change, expected):
    with pytest.raises(ValueError, match=f'another plan: {expected}.* another --out'):
        write_store(kl(), images(), root, **{**OPTIONS, **change})
    (root / 'plan.json').unlink()
    with pytest.raises(ValueError, match='of another plan'):
        write_store(kl(), images(), root, **{**OPTIONS, **change})


def test_other_weights_and_other_images_are_another_plan(root):
    other = kl()
    other.encoder.conv_in.bias.data += 1
    with pytest.raises(ValueError, match=r'another plan: autoencoder \w{12}… there, \w{12}… asked'):
        write_store(other, images(), root, **OPTIONS)
    with pytest.raises(ValueError, match='another plan: images.num_images 14 there, 15 asked'):
        write_store(kl(), images(15), root, **OPTIONS)


def test_a_shard_of_another_store_is_not_overwritten(root, tmp_path):
    other = kl()
    other.encoder.conv_in.bias.data += 1
    write_store(other, images(), tmp_path / 'other', **OPTIONS)
    (root / 'index.json').unlink()
    shutil.copy(tmp_path / 'other' / 'shard-00001.safetensors', root)
    with pytest.raises(ValueError, match='shard-00001.safetensors: .*another store'):
        write_store(kl(), images(), root, **OPTIONS)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.complex64])
def test_files_of_others_stay(dtype, tmp_path):
    foreign = tmp_path / 'shard-00000.safetensors'
    save_file({'a': torch.zeros(3, dtype=dtype)}, foreign)
    garbage, notes = tmp_path / 'shard-00001.safetensors', tmp_path / 'notes.tmp'
    garbage.write_bytes(b'no safetensors')
    notes.write_text('mine')
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for _ in range(2):  # the first attempt must not make them its own
        with pytest.raises(ValueError, match=r'shard-00000.safetensors: this (shard belongs to another store|file)'):
            write_store(kl(), images(), tmp_path, **OPTIONS)
    foreign.unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match=r'shard-00001.safetensors: this file is no shard .* move it away'):
            write_store(kl(), images(), tmp_path, **OPTIONS)
    garbage.unlink()
    write_store(kl(), images(), tmp_path, **OPTIONS)
    assert notes.read_bytes() == before['notes.tmp']


def test_random_crops_are_refused(tmp_path):
    Image.new('RGB', (40, 40)).save(tmp_path / 'a.png')
    dataset = ImageFolder(tmp_path, 32, crop='random_square')
    with pytest.raises(ValueError, match=r"ImageFolder.crop='random_square' .* crop='center'"):
        write_store(kl(), dataset, tmp_path / 'store', **OPTIONS)
    assert not (tmp_path / 'store').exists()


def test_a_full_disk_is_one_message_and_the_next_run_goes_on(written, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(WriteError, match=r'a/shard-00000.safetensors: cannot be written \(File too large\)'):
            write_store(kl(), images(), tmp_path / 'a', **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    write_store(kl(), images(), tmp_path / 'a', **OPTIONS)
    same(written, tmp_path / 'a')


@pytest.fixture
def folder(tmp_path):
    """Sixteen images, 00.png to 15.png, and `break_(*numbers)`, after which some cannot be read."""
    root = tmp_path / 'images'
    root.mkdir()
    for index in range(16):
        Image.new('RGB', (16, 16), (index, 0, 0)).save(root / f'{index:02}.png')

    def break_(*numbers):
        for number in numbers:
            (root / f'{number:02}.png').write_bytes(b'no image')

    return root, break_


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
@pytest.mark.parametrize('workers', [0, 2])
def test_all_unreadable_images_are_named_and_the_advice_helps(folder, tmp_path, workers, capfd):
    (root, break_), store = folder, tmp_path / 'store'
    break_(5, 9, 13)
    options = dict(batch_size=2, shard_images=4, num_workers=workers)
    for processes in (2, 1):  # of two, this one has the images 0 to 3 and 8 to 11
        data = ImageFolder(str(root), 16)
        with pytest.raises(ValueError, match=r'cannot read 3 of 16 images: 05.png \(.*09.png \(.*13.png \(') as raised:
            write_store(kl(), data, store, **options, world_size=processes)
        assert f'replace or remove these files, delete {store}, whose shards so far are of' in str(raised.value)
        assert 'looking for others in 12 images, without encoding' in capfd.readouterr().err
    for number in ('05', '09', '13'):
        (root / f'{number}.png').unlink()
    with pytest.raises(ValueError, match='holds a latent store of another plan'):
        write_store(kl(), ImageFolder(str(root), 16), store, **options)
    shutil.rmtree(store)
    written = write_store(kl(), ImageFolder(str(root), 16), store, **options)
    assert (written.outcome, written.num_encoded) == ('written', 13)


def test_an_unreadable_first_image_leaves_no_folder_to_delete(folder, tmp_path):
    root, break_ = folder
    break_(*range(12))
    with pytest.raises(ValueError, match='cannot read 12 of 16') as raised:
        write_store(kl(), ImageFolder(str(root), 16), tmp_path / 'store', batch_size=3)
    message = str(raised.value)
    assert '09.png (' in message
    assert '10.png' not in message
    assert message.endswith(
        ' and 2 more; a store has one row for each image; replace or remove these files and run the command again.'
    )
    for number in range(12):
        (root / f'{number:02}.png').unlink()
    assert write_store(kl(), ImageFolder(str(root), 16), tmp_path / 'store', batch_size=3).num_encoded == 4


def test_random_flips_are_refused(tmp_path):
    with pytest.raises(ValueError, match='Shapes.flip mirrors images at random.*--flip'):
        write_store(kl(), Shapes(4, 16, flip=True), tmp_path, batch_size=2)


def test_latents_that_are_not_finite_are_refused(tmp_path):
    autoencoder = kl()
    autoencoder.quant_conv.bias.data += 1e5
    with pytest.raises(ValueError, match='mean of image 0 is not finite'):
        write_store(autoencoder, images(), tmp_path, batch_size=2, dtype='float16')


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (dict(batch_size=0), 'batch_size must be at least 1, got 0'),
        (dict(shard_images=0), 'shard_images must be at least 1, got 0'),
        (dict(dtype='int8'), "dtype must be one of float32, float16, bfloat16, got 'int8'"),
        (dict(precision='fp16'), "precision must be fp32 or bf16, got 'fp16'"),
    ],
)
def test_arguments_out_of_range(tmp_path, change, expected):
    with pytest.raises(ValueError, match=expected):
        write_store(kl(), images(), tmp_path, **{**OPTIONS, **change})


def test_codebooks_beyond_16_bits_are_refused(tmp_path):
    autoencoder = VQAutoencoder(2, 2**16 + 1, (8, 8), attention_levels=(), norm_num_groups=4, layers_per_block=1)
    with pytest.raises(ValueError, match='a codebook of 65,537; .*65,536'):
        write_store(autoencoder, images(), tmp_path, batch_size=2)


def test_the_index_describes_the_store(written):
    index = json.loads((written / 'index.json').read_text())
    assert index['images'] == images().identity()
    assert index['classes'] == images().classes
    assert list(index['shards']) == [f'shard-{number:05d}.safetensors' for number in range(4)]
    assert index['plan']['fields']['std'] == dict(dtype='float32', shape=[2, 8, 8])
    assert index['written_with']['torch'] == torch.__version__


def test_shards_are_about_64_mib_by_default(tmp_path):
    write_store(kl(), images(), tmp_path, batch_size=14)
    plan = LatentStore(tmp_path).plan
    assert plan.shard_images == 64 * 2**20 // (2 * 2 * 8 * 8 * 4)
