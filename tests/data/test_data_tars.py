"""Tar shards: equal to a folder and to webdataset's own loader; damage, samples, labels, memory."""

import gc
import io
import json
import os
import pickle
import subprocess
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from containers import pixels_of, png, write_tar

from eqzoo.data import ImageFolder, build_eval_loader, build_train_loader
from eqzoo.data.tars import _Walk

NAMES = [f'{folder}/{number}.png' for folder in ('ant', 'bee', 'cat/deep/er') for number in range(5)]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / '.cache'))


@pytest.fixture
def members():
    return {name: png(value) for value, name in enumerate(NAMES)}


@pytest.fixture
def shards(tmp_path):
    """Three shards of WebDataset with six samples each, and their labels by key."""
    labels = {}
    for shard in range(3):
        content = {}
        for number in range(6):
            key = f'{shard * 6 + number:04d}'
            labels[f's-{shard:02d}.tar:{key}.png'] = (shard * 6 + number) % 12
            content |= {
                f'{key}.png': png(shard * 6 + number),
                f'{key}.cls': str(labels[f's-{shard:02d}.tar:{key}.png']),
            }
            content |= {
                f'{key}.json': json.dumps(dict(kind=f'k{number % 3}', number=number, list=[1])),
                f'{key}.txt': 'a cat',
            }
        write_tar(
            tmp_path / f's-{shard:02d}.tar',
            {name: each if isinstance(each, bytes) else each.encode() for name, each in content.items()},
        )
    return tmp_path, labels


def tar_members(path):
    with path.open('rb') as file:
        return list(_Walk(path, file.fileno()).members())


@pytest.mark.parametrize('kind', [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_are_those_of_tarfile(tmp_path, kind):
    long = '/'.join(['folder'] * 14) + '/name.png'  # 107 characters: ustar splits it, others have a header for it
    longest = {} if kind == tarfile.USTAR_FORMAT else {'x' * 300 + '/é.png': b'b' * 513}
    content = {'a.png': b'1', long: b'22' * 512, 'empty.png': b'', **longest, 'z': b'3' * 512}
    path = write_tar(tmp_path / 'a.tar', content, kind)
    with tarfile.open(path) as archive:
        expected = [(each.name, each.offset_data, each.size) for each in archive if each.isfile()]
    assert [member[:3] for member in tar_members(path)] == expected
    assert len(expected) == len(content)


def test_members_are_those_of_gnu_tar(tmp_path):
    (tmp_path / 'in' / ('deep' * 40)).mkdir(parents=True)
    (tmp_path / 'in' / ('deep' * 40) / 'a.png').write_bytes(png(0))
    (tmp_path / 'in' / 'b.png').write_bytes(png(1))
    os.link(tmp_path / 'in' / 'b.png', tmp_path / 'in' / 'c.png')
    (tmp_path / 'in' / 'd.png').symlink_to('b.png')
    subprocess.run(['tar', '-C', tmp_path / 'in', '-cf', tmp_path / 'a.tar', '.'], check=True)
    dataset = ImageFolder(tmp_path / 'a.tar', 8)
    assert dataset.names == ['b.png', 'c.png', 'deep' * 40 + '/a.png']
    assert [dataset.source.read(name) for name in dataset.names] == [png(1), png(1), png(0)]


def test_numbers_in_base_256_are_read(tmp_path):
    path = write_tar(tmp_path / 'a.tar', {'a.png': b'12345'})
    content = bytearray(path.read_bytes())
    start = content.index(b'a.png', 1) if content[156:157] == b'x' else 0
    content[start + 124 : start + 136] = b'\x80' + (5).to_bytes(11, 'big')
    total = sum(content[start : start + 148]) + 8 * 32 + sum(content[start + 156 : start + 512])
    content[start + 148 : start + 156] = f'{total:06o}\0 '.encode()
    path.write_bytes(content)
    assert [(each.name, each.size) for each in tar_members(path)] == [('a.png', 5)]


def test_a_tar_equals_its_folder_and_its_zip(tmp_path, members):
    for name, content in members.items():
        (tmp_path / 'insects' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'insects' / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / 'insects.zip', 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    write_tar(
        tmp_path / 'insects.tar', {'./ant/.hidden.png': b'', 'ant/notes.txt': b'', **dict(reversed(members.items()))}
    )
    options = dict(crop='random_square', flip=True, seed=3)
    folder, archive, tar = (ImageFolder(tmp_path / f'insects{end}', 8, **options) for end in ('', '.zip', '.tar'))
    assert folder.names == archive.names == tar.names
    assert folder.labels() == archive.labels() == tar.labels()
    for index in range(len(folder)):
        one, other = folder[index, 7 * index], tar[index, 7 * index]
        assert np.array_equal(one.pop('image'), other.pop('image'))
        assert one == other
    assert folder.identity()['sha256'] == archive.identity()['sha256'] == tar.identity()['sha256']
    assert tar.source.left_out == {'.txt': 1}
    assert ImageFolder(tmp_path / 'insects.tar', 8, below='cat').classes == ['deep']


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # webdataset leaves files open
def test_shards_are_what_webdataset_yields(shards):
    webdataset = pytest.importorskip('webdataset')
    folder, labels = shards
    root = f'{folder}/s-{{00..02}}.tar'
    expected = {
        f'{Path(each["__url__"]).name}:{each["__key__"]}.png': (each['png'], int(each['cls']))
        for each in webdataset.WebDataset(root, shardshuffle=False)
    }
    gc.collect()
    dataset = ImageFolder(root, 10)
    assert list(dataset.names) == sorted(expected)
    assert dataset.classes == [str(number) for number in range(12)]
    for index, name in enumerate(dataset.names):
        content, label = expected[name]
        assert dataset[index]['label'] == label == labels[name]
        assert np.array_equal(dataset[index]['image'], pixels_of(content)[:, :, 1:11])
    assert dataset.source.left_out == {'.json': 18, '.txt': 18}


@pytest.mark.parametrize('form', ['folder', 'pattern', 'list'])
def test_shards_by_folder_pattern_and_list_are_those_by_braces(shards, form):
    folder, labels = shards
    files = [str(folder / f's-{number:02d}.tar') for number in (2, 0, 1)]
    dataset = ImageFolder(dict(folder=folder, pattern=f'{folder}/s-*.tar', list=files)[form], 8)
    braces = ImageFolder(f'{folder}/s-{{00..02}}.tar', 8)
    assert dict(zip(dataset.names, dataset.labels(), strict=True)) == labels
    assert dataset.identity()['sha256'] == braces.identity()['sha256']
    assert dataset.identity()['root'] == dict(folder=folder.name, pattern='s-*.tar', list='s-02.tar and 2 more')[form]


def test_labels_of_other_members_and_none(shards):
    folder, _ = shards
    named = ImageFolder(folder, 8, label='.json:kind')
    assert (named.classes, named.labels()) == (['k0', 'k1', 'k2'], [0, 1, 2] * 6)
    assert ImageFolder(folder, 8, label='.json:number').labels() == list(range(6)) * 3
    assert ImageFolder(folder, 8, label='.txt').classes == ['a cat']
    assert (ImageFolder(folder, 8, label=None).classes, ImageFolder(folder, 8, label='folder').classes) == (
        ['.'],
        ['.'],
    )
    assert ImageFolder(folder, 8, label='.json:kind', part=(0.5, 1)).labels() == [
        named.labels()[list(named.names).index(name)] for name in ImageFolder(folder, 8, part=(0.5, 1)).names
    ]


@pytest.mark.parametrize(
    ('label', 'message'),
    [
        ('.json:king', "no key 'king'; its keys: kind, number, list"),
        ('.json:list', r'list is \[1\]; expected a whole number or text'),
        ('.txt:kind', r'0000.txt: no JSON'),
        ('.lbl', r"no member ends in .lbl, as label='.lbl' says"),
        ('cls', r"label='cls'; expected 'auto', 'folder', None, or the ending"),
    ],
)
def test_wrong_labels_are_one_message(shards, label, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(shards[0], 8, label=label)


def test_a_missing_label_is_named(tmp_path):
    path = write_tar(tmp_path / 'a.tar', {'1.png': png(1), '1.cls': b'3', '2.png': png(2)})
    with pytest.raises(ValueError, match=r'1 of 2 images have no label, such as 2.png; .*label=None'):
        ImageFolder(path, 8)
    assert len(ImageFolder(path, 8, label=None)) == 2
    write_tar(tmp_path / 'b.tar', {'1.png': png(1), '1.cls': b'-3'})
    with pytest.raises(ValueError, match=r'labels from -3 to -3; expected whole numbers from 0 to'):
        ImageFolder(tmp_path / 'b.tar', 8)


def test_one_image_of_a_sample(tmp_path):
    content = {'1.jpg': png(1), '1.seg.png': png(2), '2.jpg': png(3), '2_mask.png': png(4), 'a.2.jpg': png(5)}
    dataset = ImageFolder(write_tar(tmp_path / 'a.tar', content), 8)
    assert dataset.names == ['1.jpg', '2.jpg', 'a.2.jpg']
    assert (dataset.source.left_out, dataset.source.masks) == ({'.seg.png': 1}, 1)
    pairs = write_tar(tmp_path / 'b.tar', {'1.input.jpg': png(1), '1.target.png': png(2)})
    with pytest.raises(ValueError, match=r"1 has 2 images: '.input.jpg', '.target.png'; set image"):
        ImageFolder(pairs, 8)
    assert ImageFolder(pairs, 8, image='target.png').names == ['1.target.png']
    assert ImageFolder(pairs, 8, image='*').names == ['1.input.jpg', '1.target.png']


def test_masks_beside_images_are_left_out_of_folders_and_zips(tmp_path):
    names = ['a/1.jpg', 'a/1-masklabel.png', 'a/1.txt', 'b/2.png', 'b/2.mask.png', 'b/3_mask.png']
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        for name in names:
            (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / 'in' / name).write_bytes(png(0))
            archive.writestr(name, png(0))
    for root in (tmp_path / 'in', tmp_path / 'a.zip'):
        dataset = ImageFolder(root, 8)
        assert dataset.names == ['a/1.jpg', 'b/2.png', 'b/3_mask.png']
        assert (dataset.source.masks, dataset.source.left_out) == (2, {'.txt': 1})
        assert ImageFolder(root, 8, image='.jpg').names == ['a/1.jpg']


def test_unreadable_samples_are_named_with_their_shard(shards):
    folder, _ = shards
    path = folder / 's-01.tar'
    content = bytearray(path.read_bytes())
    member = next(each for each in tar_members(path) if each.name == '0008.png')
    content[member.offset : member.offset + 8] = b'no image'
    path.write_bytes(content)
    dataset = ImageFolder(folder, 8)
    batches = list(build_eval_loader(dataset, batch_size=18, num_workers=0))
    assert batches[0]['unreadable'] == ['s-01.tar:0008.png']
    assert 'no image format' in batches[0]['reasons']['s-01.tar:0008.png']


def test_resume_and_shares_are_exact(shards):
    """Batches are a function of (seed, draw): from any start, for any number of processes, with workers or without."""
    dataset = ImageFolder(shards[0], 8, crop='random_square', flip=True, seed=1)

    def draws(start, count, num_workers=0, rank=0, world_size=1):
        options = dict(batch_size=6, num_workers=num_workers, seed=5, rank=rank, world_size=world_size)
        loader = build_train_loader(dataset, **options)
        loader.sampler.start_draw = start
        found = {}
        for _, batch in zip(range(count), loader, strict=False):
            found |= {
                int(draw): image.numpy().tobytes() for draw, image in zip(batch['draws'], batch['images'], strict=True)
            }
        return found

    whole = draws(0, 6)
    assert draws(12, 4, num_workers=2) == {draw: image for draw, image in whole.items() if draw >= 12}
    assert draws(0, 6, rank=0, world_size=2) | draws(0, 6, rank=1, world_size=2) == whole


def test_the_index_is_kept_and_belongs_to_the_file(shards, monkeypatch, tmp_path):
    folder, _ = shards
    first = ImageFolder(folder, 8)
    monkeypatch.setattr('eqzoo.data.opening._INDEXERS', dict.fromkeys(('tar',), None))  # calling it would fail
    again = ImageFolder(folder, 8)
    assert (first.names, first.labels(), first.identity()) == (again.names, again.labels(), again.identity())
    monkeypatch.undo()
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / '.cache'))
    for kept in (tmp_path / '.cache' / 'indices').glob('*.npz'):
        kept.write_bytes(kept.read_bytes()[:-40])  # damaged: made again
    assert ImageFolder(folder, 8).identity() == first.identity()
    write_tar(folder / 's-00.tar', {'0000.png': png(99), '0000.cls': b'1'})
    changed = ImageFolder(folder, 8)
    assert len(changed) == 13
    assert first[0]['reason'] == 'its file has changed since it was indexed'


def test_a_shard_that_is_rewritten_while_it_is_read_gives_no_other_image(tmp_path):
    shard = tmp_path / 'a.tar'
    write_tar(shard, {'1.png': png(1), '2.png': png(2)})
    dataset = ImageFolder(shard, 8)
    assert 'reason' not in dataset[0]
    content = shard.read_bytes()
    with shard.open('r+b') as file:  # in place, as large as before
        file.write(content)
    os.utime(shard, ns=(0, 1))  # a clock may be too coarse to show it
    assert dataset[0]['reason'] == dataset[1]['reason'] == 'its file has changed since it was indexed'


def test_without_a_cache_it_is_indexed_each_time(shards, monkeypatch):
    monkeypatch.setenv('EQZOO_CACHE', '/proc/nowhere')
    assert len(ImageFolder(shards[0], 8)) == 18


def test_a_pickled_source_opens_its_own_files(shards):
    dataset = ImageFolder(shards[0], 8)
    before = dataset[17]['image']
    assert len(dataset.source._open) == 1
    copy = pickle.loads(pickle.dumps(dataset))
    assert not copy.source._open
    assert np.array_equal(copy[17]['image'], before)


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr('eqzoo.data.packed._MOST_OPEN', 2)
    for number in range(5):
        write_tar(tmp_path / f'{number}.tar', {'a.png': png(number)})
    dataset = ImageFolder(tmp_path, 8)
    before = len(list(Path('/proc/self/fd').iterdir()))
    for index in [0, 1, 2, 3, 4, 0, 4, 2]:
        assert dataset.source.read(dataset.names[index]) == png(index)
    assert len(list(Path('/proc/self/fd').iterdir())) - before == 2


def damaged(content, how):
    """A tar's bytes with damage."""
    if how == 'cut in a member':
        return content[: 512 + 100]
    if how == 'cut in a header':
        return content[: 1024 + 512 * (len(png(0)) // 512) + 100]
    header = bytearray(content)
    if how == 'claimed size':
        header[124:136] = b'77777777777\0'
    elif how == 'negative size':
        header[124:136] = b'-0000000001\0'
    if how == 'checksum':
        header[0] ^= 1
    else:
        total = sum(header[:148]) + 8 * 32 + sum(header[156:512])
        header[148:156] = f'{total:06o}\0 '.encode()
    return bytes(header)


@pytest.mark.parametrize(
    ('how', 'message'),
    [
        ('cut in a member', r'a.tar: incomplete: it has 612 bytes, and the member at byte 0 goes beyond'),
        ('cut in a header', r'a.tar: incomplete'),
        ('claimed size', r'a.tar: incomplete: .* the member at byte 0 goes beyond'),
        ('negative size', r'a.tar: damaged: no size in the header at byte 0'),
        ('checksum', r'a.tar: no tar archive, or damaged: no header at byte 0'),
    ],
)
def test_damage_is_one_message_and_takes_no_memory(tmp_path, how, message):
    path = write_tar(tmp_path / 'a.tar', {'1.png': png(0), '2.png': png(1)}, tarfile.GNU_FORMAT)
    path.write_bytes(damaged(path.read_bytes(), how))
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        ImageFolder(path, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_huge_pax_header_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as archive:
        info = tarfile.TarInfo('a.png')
        info.pax_headers = {'comment': 'x' * (3 << 20)}
        archive.addfile(info, io.BytesIO())
    with pytest.raises(ValueError, match=r'damaged: a header of 3,1\d\d,\d\d\d bytes at byte 512'):
        ImageFolder(path, 8)


@pytest.mark.parametrize('record', [b'9 path=a\n', b'x path=a\n', b'999 path=a\n', b'6 pat\n', b'-5 path=a\n'])
def test_a_wrong_pax_header_is_one_message(tmp_path, record):
    path = write_tar(tmp_path / 'a.tar', {'x': record}, tarfile.GNU_FORMAT)
    content = bytearray(path.read_bytes())
    content[156:157] = b'x'
    total = sum(content[:148]) + 8 * 32 + sum(content[156:512])
    content[148:156] = f'{total:06o}\0 '.encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'a.tar: (damaged: a wrong pax header at byte 512|no images in this tar)'):
        ImageFolder(path, 8)


def test_names_that_leave_the_archive_are_not_listed(tmp_path):
    content = {'../up.png': png(0), '/abs.png': png(1), 'a/../../b.png': png(2), 'e\x1b[2J.png': b'bad'}
    dataset = ImageFolder(write_tar(tmp_path / 'a.tar', content), 8)
    assert dataset.names == ['abs.png', 'e\x1b[2J.png']


def test_an_archive_without_its_end_is_read_and_said(tmp_path):
    path = write_tar(tmp_path / 'a.tar', {'1.png': png(0)}, tarfile.USTAR_FORMAT)
    path.write_bytes(path.read_bytes()[: 512 + -(-len(png(0)) // 512) * 512])
    dataset = ImageFolder(path, 8)
    assert len(dataset) == 1
    assert dataset.source.notes == ['a.tar has no end mark: it may be cut off.']


def test_a_compressed_tar_is_one_message(tmp_path):
    with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz') as archive:
        archive.addfile(tarfile.TarInfo('a.png'))
    with pytest.raises(ValueError, match=r'a.tar.gz: a tar packed by gzip as a whole, .*unpack it'):
        ImageFolder(tmp_path / 'a.tar.gz', 8)
