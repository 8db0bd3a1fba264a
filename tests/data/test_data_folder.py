"""ImageFolder and its sources: names, labels, parts, errors, and a zip archive that equals its folder."""

import errno
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from containers import png, write_tar
from PIL import Image
from torch.utils.data import DataLoader

from eqzoo.data import ImageFolder, Shapes, build_eval_loader, collate, sources
from eqzoo.data.crops import CROPS
from eqzoo.data.sources import FolderSource, Names, ZipSource
from eqzoo.registry import build

NAMES = [f'{folder}/{number}.png' for folder in ('ant', 'bee', 'cat/deep/er') for number in range(7)]

TEXTS = ['a/1.png', '', 'é/ß.jpg', 'odd\udcff.png', 'a/1.png']


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'insects'
    for value, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(value).integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    for name in ('.hidden.png', '._0.png', 'ant/.DS_Store', '__MACOSX/ant/0.png', '.cache/1.png', 'ant/notes.txt'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'no image')
    return root


def pack(folder, target, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(target, 'w', method) as archive:
        for path in sorted(folder.rglob('*'), reverse=True):
            archive.write(path, path.relative_to(folder).as_posix())
    return target


@pytest.fixture
def archive(folder, tmp_path):
    return pack(folder, tmp_path / 'insects.zip')


def assert_same_items(first, second):
    assert first.names == second.names
    for index in range(len(first)):
        one, other = first[index], second[index]
        torch.testing.assert_close(one.pop('image'), other.pop('image'), rtol=0, atol=0)
        assert one == other


def test_a_part_of_a_root_has_its_own_classes(folder, archive):
    for root in (folder, archive):
        dataset = ImageFolder(root, 8, below='cat')
        assert (dataset.names, dataset.classes) == (
            [name for name in sorted(NAMES) if name.startswith('cat/')],
            ['deep'],
        )
        assert ImageFolder(root, 8, below='cat/deep/').classes == ['er']
        assert ImageFolder(root, 8, below='ant').labels() == [0] * 7
        assert 'below cat/' in dataset.describe()
    assert_same_items(ImageFolder(folder, 8, below='cat'), ImageFolder(archive, 8, below='cat'))
    alone = ImageFolder(folder / 'cat', 8)
    assert torch.equal(alone[3]['image'], ImageFolder(folder, 8, below='cat')[3]['image'])


def test_a_folder_that_is_not_there_is_refused_with_the_nearest(folder):
    with pytest.raises(ValueError, match=r"no images below 'bea'. Did you mean 'bee'\? Its folders: ant, bee, cat"):
        ImageFolder(folder, 8, below='bea')
    (lacks,) = ImageFolder.requirements(dict(root=str(folder), below='ca'))
    assert "no images below 'ca'" in lacks.what


def test_names_are_sorted_and_labels_are_first_level_folders(folder):
    dataset = ImageFolder(folder, 8)
    assert dataset.names == sorted(NAMES)
    assert dataset.classes == ['ant', 'bee', 'cat']
    assert [dataset[index]['label'] for index in range(len(dataset))] == [0] * 7 + [1] * 7 + [2] * 7
    item = dataset[3, 99]
    assert (item['index'], item['draw']) == (3, 99)
    assert item['image'].shape == (3, 8, 8)
    assert item['image'].dtype == torch.uint8


def test_pixels_are_those_of_the_named_file(folder):
    expected = np.asarray(Image.open(folder / 'bee/2.png'))[1:11].transpose(2, 0, 1)
    np.testing.assert_array_equal(ImageFolder(folder, 10)[9]['image'].numpy(), expected)


def test_flat_folder_has_label_0(tmp_path):
    others = ['g.jfif', 'h.gif', 'i.ppm', 'j.PGM', 'k.jp2']
    for name in ('b.JPG', 'a.jpeg', 'c.webp', 'd.bmp', 'e.tif', 'f.tiff', *others):
        Image.new('L' if name == 'j.PGM' else 'RGB', (8, 8)).save(tmp_path / name)
    dataset = ImageFolder(tmp_path, 8)
    assert dataset.names == ['a.jpeg', 'b.JPG', 'c.webp', 'd.bmp', 'e.tif', 'f.tiff', *others]
    assert dataset.classes == ['.']
    assert {dataset[index]['label'] for index in range(11)} == {0}


def test_linked_folders_are_followed_once(folder):
    (folder / 'dog').symlink_to(folder / 'ant')
    (folder / 'bee/loop').symlink_to(folder)
    assert FolderSource(folder).names() == sorted([*NAMES, *(f'dog/{number}.png' for number in range(7))])


@pytest.mark.parametrize('method', [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_zip_equals_folder(folder, tmp_path, method):
    archive = pack(folder, tmp_path / 'insects.zip', method)
    options = dict(crop='random_square', flip=True, seed=3)
    first, second = ImageFolder(folder, 8, **options), ImageFolder(archive, 8, **options)
    assert_same_items(first, second)
    assert first.identity() == {**second.identity(), 'root': 'insects'}
    assert second.identity()['root'] == 'insects.zip'


def test_identity_notices_names_sizes_and_parts(folder):
    dataset = ImageFolder(folder, 8)
    before = dataset.identity()
    assert before['num_images'] == 21
    assert ImageFolder(folder, 8, part=(0, 0.5)).identity()['sha256'] != before['sha256']
    with (folder / NAMES[0]).open('ab') as file:
        file.write(b'\0')
    assert dataset.identity()['sha256'] != before['sha256']


def test_folders_of_the_file_system_and_links_to_themselves_are_passed_over(folder, tmp_path, monkeypatch):
    expected, scan = FolderSource(folder).names(), os.scandir

    def scandir(path):
        if Path(path).name in ('lost+found', 'closed'):  # to root nothing is closed
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return scan(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    (folder / 'lost+found').mkdir()
    (folder / 'loop').symlink_to('loop')
    source = FolderSource(folder)
    names, folders, hangs_on_link = source.walk()
    assert names == expected
    assert 'lost+found/' not in folders
    assert hangs_on_link
    assert len(ImageFolder(folder, 8)) == len(expected)
    (folder / 'closed').mkdir()
    with pytest.raises(ValueError, match=rf'{folder}/closed: no permission to read this folder .*chmod'):
        ImageFolder(folder, 8)
    (tmp_path / 'shards' / 'lost+found').mkdir(parents=True)
    write_tar(tmp_path / 'shards' / 'a.tar', {'a.png': png(0)})
    assert ImageFolder(tmp_path / 'shards', 8).names == ['a.tar:a.png']


def test_a_zip_of_windows_has_folders(tmp_path):
    def write(name, system, members):
        with zipfile.ZipFile(tmp_path / name, 'w') as archive:
            for number, member in enumerate(members):
                info = zipfile.ZipInfo(member)
                info.create_system = system
                archive.writestr(info, b'' if member.endswith(('\\', '/')) else png(number))
        return ImageFolder(tmp_path / name, 8)

    windows = write('windows.zip', 0, ['cat\\', 'cat\\1.png', 'dog\\2.png', '__MACOSX\\3.png'])
    assert (windows.names, windows.labels()) == (['cat/1.png', 'dog/2.png'], [0, 1])
    assert windows.source.read('dog/2.png') == png(2)
    assert write('unix.zip', 3, ['cat\\1.png']).names == ['cat\\1.png']
    assert write('mixed.zip', 0, ['a/1.png', 'b\\2.png']).names == ['a/1.png', 'b\\2.png']


def test_zip_after_other_bytes_is_read(archive, tmp_path):
    shifted = tmp_path / 'shifted.zip'
    shifted.write_bytes(b'#!/bin/sh\n' + archive.read_bytes())
    source = ZipSource(shifted)
    assert [source.read(name) for name in source.names()] == [ZipSource(archive).read(name) for name in source.names()]


def test_pickled_zip_has_no_open_file(archive):
    dataset = ImageFolder(archive, 8)
    dataset[0]
    assert dataset.source._file is not None
    copied = pickle.loads(pickle.dumps(dataset))
    assert copied.source._file is None
    assert_same_items(dataset, copied)


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
@pytest.mark.parametrize('start', ['fork', 'spawn'])
def test_workers_read_a_zip_that_is_already_open(archive, start):
    dataset = ImageFolder(archive, 8, crop='random_square')
    expected = torch.stack([dataset[index]['image'] for index in range(len(dataset))])
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate, multiprocessing_context=start)
    torch.testing.assert_close(torch.cat([batch['images'] for batch in loader]), expected, rtol=0, atol=0)


def test_random_choices_are_a_function_of_seed_and_draw(folder):
    dataset = ImageFolder(folder, 8, crop='random_square', flip=True, seed=1)
    same, other = ImageFolder(folder, 8, crop='random_square', flip=True, seed=1), dataset[0, 8]['image']
    dataset[5, 3]
    assert torch.equal(dataset[0, 7]['image'], same[0, 7]['image'])
    assert not torch.equal(dataset[0, 7]['image'], other)
    different = ImageFolder(folder, 8, crop='random_square', flip=True, seed=2)
    assert not torch.equal(dataset[0, 7]['image'], different[0, 7]['image'])


def test_flip_mirrors_half_of_the_draws(folder):
    plain, flipped = ImageFolder(folder, 8)[0]['image'], ImageFolder(folder, 8, flip=True)
    mirrored = 0
    for draw in range(200):
        image = flipped[0, draw]['image']
        assert torch.equal(image, plain) or torch.equal(image, plain.flip(2))
        mirrored += torch.equal(image, plain.flip(2))
    assert 80 <= mirrored <= 120


def test_parts_are_disjoint_and_together_whole(folder):
    first, second = (ImageFolder(folder, 8, part=part).names for part in ((0, 0.6), (0.6, 1)))
    assert (len(first), len(second)) == (13, 8)
    assert sorted([*first, *second]) == sorted(NAMES)
    assert len({name[:3] for name in second}) == 3  # shuffled, not the last class
    assert first == sorted(first)


def test_labels_do_not_depend_on_the_part(folder):
    dataset = ImageFolder(folder, 8, part=(0.9, 1))
    assert dataset.classes == ['ant', 'bee', 'cat']
    for index, name in enumerate(dataset.names):
        assert dataset.classes[dataset[index]['label']] == name[:3]


def test_limit_takes_the_first_of_the_shuffle(folder):
    names = [set(ImageFolder(folder, 8, limit=limit).names) for limit in (4, 9, 100)]
    assert [len(each) for each in names] == [4, 9, 21]
    assert names[0] < names[1]
    assert names[0] <= set(ImageFolder(folder, 8, part=(0, 0.5)).names)


def test_describe(folder, archive):
    assert (
        ImageFolder(folder, 8).describe()
        == 'ImageFolder: 21 images of 3 classes from folder insects, center crop to 8 px'
    )
    assert (
        'zip insects.zip, random_square crop to 8 px, flipped at random'
        in ImageFolder(archive, 8, crop='random_square', flip=True).describe()
    )


def missing(folder):
    return folder / 'nowhere', 'no such folder or zip'


def text_file(folder):
    return folder / 'ant/notes.txt', 'neither a folder nor a zip'


def cut_zip(folder):
    path = folder.parent / 'cut.zip'
    whole = pack(folder, path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path, 'damaged or incomplete zip'


def empty_folder(folder):
    (folder / 'empty').mkdir()
    return folder / 'empty', r'no images in this folder; expected .*.bmp, .gif, .jfif, .jp2, .jpeg, .jpg, .pgm, .png'


def empty_zip(folder):
    path = folder.parent / 'empty.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'nothing')
    return path, r'no images in this zip; .*1 file is left out, since its name does not end as images do: 1 .txt\.'


def bzip2_zip(folder):
    return pack(folder, folder.parent / 'bzip2.zip', zipfile.ZIP_BZIP2), 'packed by bzip2; expected stored'


@pytest.mark.parametrize('case', [missing, text_file, cut_zip, empty_folder, empty_zip, bzip2_zip])
def test_bad_roots_are_reported_by_constructor_and_preflight(folder, case):
    root, message = case(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        ImageFolder(root, 8)
    assert str(root) in str(caught.value)
    (requirement,) = ImageFolder.requirements(dict(root=str(root), size=8))
    assert str(caught.value) in requirement.what
    assert requirement.where == str(root)
    assert 'root=PATH of this dataset' in requirement.remedy


def test_encrypted_zip_is_refused(archive):
    data = bytearray(archive.read_bytes())
    for start in [at for at in range(len(data)) if data[at : at + 4] == b'PK\x01\x02']:
        data[start + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(ValueError, match='encrypted'):
        ImageFolder(archive, 8)


def test_part_without_images(folder):
    with pytest.raises(ValueError, match=r'part \(0, 0.02\) of 21 images'):
        ImageFolder(folder, 8, part=(0, 0.02))
    (requirement,) = ImageFolder.requirements(dict(root=folder, part=(0, 0.02)))
    assert 'widen the part' in requirement.what


def test_requirements_of_a_good_root_and_of_none(folder, archive):
    assert ImageFolder.requirements(dict(root=folder, part=(0, 0.5))) == []
    assert ImageFolder.requirements(dict(root=archive)) == []
    assert ImageFolder.requirements(dict(root=None))[0].what == 'ImageFolder: no root is given.'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(size=0), 'size must be at least 1, got 0'),
        (dict(crop='centre'), "crop must be one of 'center', 'random_square', .*'exact', got 'centre'"),
        (dict(on_small='grow'), "on_small must be 'enlarge', 'skip' or 'refuse', got 'grow'"),
        (dict(on_unreadable='ignore'), "on_unreadable must be 'skip' or 'fail', got 'ignore'"),
        (dict(part=(0.5, 0.2)), r'part must be \(from, to\) with 0 <= from < to <= 1'),
        (dict(part=(0, 1.5)), 'part.* must be'),
        (dict(limit=0), 'limit must be at least 1 or None, got 0'),
        (dict(seed=-1), 'seed must be at least 0'),
    ],
)
def test_bad_arguments(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(folder, **{'size': 8, **arguments})


def damage(folder):
    (folder / NAMES[1]).write_bytes((folder / NAMES[1]).read_bytes()[:60])
    (folder / NAMES[2]).write_bytes(b'')
    (folder / NAMES[3]).unlink()
    (folder / NAMES[3]).symlink_to('nowhere.png')
    (folder / NAMES[4]).write_bytes(b'<html>404</html>')


def test_unreadable_images_are_left_out_and_listed(folder):
    damage(folder)
    batch = next(iter(build_eval_loader(ImageFolder(folder, 8), batch_size=6, num_workers=0)))
    assert batch['unreadable'] == list(batch['reasons']) == sorted(NAMES)[1:5]
    assert batch['reasons'][NAMES[2]] == 'the file is empty'
    assert 'no image format that is read here' in batch['reasons'][NAMES[4]]
    assert batch['indices'].tolist() == batch['draws'].tolist() == [0, 5]
    assert batch['images'].shape == (2, 3, 8, 8)


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_batch_is_its_items_and_none_is_copied(folder, num_workers, monkeypatch):
    damage(folder)
    monkeypatch.setattr(torch, 'stack', None)  # which would copy them
    data = ImageFolder(folder, 8, crop='random_square', flip=True)
    batch = next(iter(build_eval_loader(data, batch_size=8, num_workers=num_workers)))
    assert batch['indices'].tolist() == [0, 5, 6, 7]
    assert batch['images'].is_contiguous()
    for image, index in zip(batch['images'], [0, 5, 6, 7], strict=True):
        assert torch.equal(image, data[index]['image'])


def test_an_item_that_a_subclass_makes_anew_is_in_the_batch(folder):
    class Inverted(ImageFolder):
        def __getitem__(self, key):
            item = super().__getitem__(key)
            return {**item, 'image': 255 - item['image']} if item['index'] == 1 else item

    plain, batch = ImageFolder(folder, 8), collate(Inverted(folder, 8).__getitems__([2, 1, 0]))
    assert torch.equal(batch['images'], torch.stack([plain[2]['image'], 255 - plain[1]['image'], plain[0]['image']]))


@pytest.mark.parametrize(
    ('index', 'cause'), [(1, 'truncated|unrecognized'), (2, 'empty'), (3, 'No such file'), (4, 'no image')]
)
def test_unreadable_images_can_fail(folder, index, cause):
    damage(folder)
    dataset = ImageFolder(folder, 8, on_unreadable='fail')
    dataset[0]
    with pytest.raises(ValueError, match=f'insects: cannot read {NAMES[index]} .*({cause})'):
        dataset[index]


def test_damage_inside_a_zip_is_noticed(folder, tmp_path):
    archive = pack(folder, tmp_path / 'insects.zip', zipfile.ZIP_STORED)
    data, content = archive.read_bytes(), (folder / NAMES[0]).read_bytes()
    archive.write_bytes(data.replace(content, content[:-30] + b'x' + content[-29:]))
    with pytest.raises(ValueError, match=r'cannot read ant/0.png \(bytes do not match their checksum'):
        ImageFolder(archive, 8, on_unreadable='fail')[0]
    reason = 'bytes do not match their checksum in the zip'
    assert ImageFolder(archive, 8)[0, 4] == dict(unreadable='ant/0.png', reason=reason, index=0, draw=4)


def test_small_images_are_enlarged_skipped_or_refused_and_listed(folder):
    # the images are 10 x 12
    large, small = ImageFolder(folder, 10)[0], ImageFolder(folder, 11)
    assert 'enlarged' not in large
    batch = collate([small[0], large | dict(image=small[1]['image'])])
    assert batch['enlarged'] == ['ant/0.png (10 x 12)']
    reason = '10 x 12 pixels, smaller than 11'
    skipping = ImageFolder(folder, 11, on_small='skip')
    assert skipping[2, 7] == dict(unreadable='ant/2.png', reason=reason, index=2, draw=7)
    with pytest.raises(ValueError, match=f"insects: ant/0.png: {reason}; remove it, or set on_small='skip' or 'enl"):
        ImageFolder(folder, 11, on_small='refuse')[0]
    assert skipping.identity() == {**small.identity(), 'on_small': 'skip'}


def test_files_that_are_no_images_are_counted_and_said_once(folder, tmp_path, capsys):
    for name in ('ant/a.HEIC', 'ant/b.heic', 'bee/scan', f'bee/x.{"0" * 40}', 'bee/\x1b[2J.h\x1bc', 'LICENSE'):
        (folder / name).write_bytes(b'')
    for root in (folder, pack(folder, tmp_path / 'left.zip')):
        for size in (8, 9):
            ImageFolder(root, size)
        said = capsys.readouterr().err
        start = f'{root}: 5 files are left out, since their names do not end as images do: 2 .heic, '
        assert said.startswith(start)
        assert sorted(said.strip(' .\n')[len(start) :].split(', ')) == sorted(
            ['1 without an ending', '1 .…', '1 .h\\x1bc']
        )
        assert said.count('\n') == 1


def test_texts_and_licences_beside_images_are_not_spoken_of(folder, tmp_path, capsys):
    for name in ('LICENSE', 'ReadMe', 'labels.csv', 'ant/0.json', 'ant/0.CAPTION', 'Thumbs.db'):
        (folder / name).write_bytes(b'')
    for root in (folder, pack(folder, tmp_path / 'quiet.zip')):
        dataset = ImageFolder(root, 8)
        assert sum(dataset.source.left_out.values()) == 7  # with a .txt
    assert capsys.readouterr().err == ''
    (tmp_path / 'texts').mkdir()
    (tmp_path / 'texts/LICENSE').touch()
    with pytest.raises(ValueError, match='no images in this folder; .* 1 file is left out, .*: 1 license'):
        ImageFolder(tmp_path / 'texts', 8)


def test_a_pipe_and_a_file_of_a_gigabyte_are_unreadable(folder, monkeypatch):
    monkeypatch.setattr(sources, 'MAX_BYTES', 1000)
    (folder / NAMES[0]).unlink()
    os.mkfifo(folder / NAMES[0])
    with (folder / NAMES[1]).open('wb') as file:
        file.truncate(1001)
    dataset = ImageFolder(folder, 8)
    assert dataset[0]['reason'] == 'not a regular file'
    assert dataset[1]['reason'] == '1,001 bytes; an image of more than 1,000 is not read'


def lying_zip(tmp_path, **claims):
    """A zip of one PNG of 100,000 bytes, deflated, whose directory claims other sizes."""
    path = tmp_path / 'lying.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('0.png', bytes(100_000))
    data = bytearray(path.read_bytes())
    start = data.rindex(b'PK\x01\x02')  # APPNOTE.TXT 4.3.12
    for name, offset in (('packed', 20), ('size', 24)):
        if name in claims:
            struct.pack_into('<I', data, start + offset, claims[name])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ('claims', 'reason'),
    [
        (dict(size=100), 'bytes do not match their checksum in the zip'),
        (dict(size=2**32 - 2), '4,294,967,294 bytes; an image of more than 1,073,741,824 is not read'),
        (dict(packed=2**32 - 2), 'the zip ends before this member does'),
    ],
)
def test_sizes_that_a_zip_claims_take_no_memory(tmp_path, claims, reason):
    dataset = ImageFolder(lying_zip(tmp_path, **claims), 8)
    tracemalloc.start()
    assert dataset[0]['reason'] == reason
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_index_beyond_the_end(folder):
    assert len(list(ImageFolder(folder, 8))) == 21
    with pytest.raises(IndexError, match='Index 21 is not in 0 to 20'):
        ImageFolder(folder, 8)[21]


def test_built_from_a_config_and_for_smoke(folder):
    assert build(dict(type='ImageFolder', root=str(folder), size=8, limit=3)).size == 8
    stand_in = build(ImageFolder.smoke(dict(root='nowhere', size=256)))
    assert isinstance(stand_in, Shapes)
    assert (len(stand_in), stand_in.size) == (16, 64)


@pytest.mark.parametrize('at_once', [1, 2, 100])
def test_names_are_the_strings(at_once, monkeypatch):
    monkeypatch.setattr(sources, '_AT_ONCE', at_once)
    names = Names(iter(TEXTS))
    assert list(names) == TEXTS
    assert [names[index] for index in range(-5, 5)] == TEXTS * 2
    assert list(names[1:4]) == TEXTS[1:4]
    assert list(names[::-2]) == TEXTS[::-2]
    assert len(names) == 5


def test_names_compare_and_pickle():
    names = Names(TEXTS)
    assert names == TEXTS
    assert names == Names(tuple(TEXTS))
    assert names != TEXTS[:4]
    assert names != [*TEXTS[:4], 'b']
    assert pickle.loads(pickle.dumps(names)) == names
    assert repr(names) == "Names(5: 'a/1.png', '', 'é/ß.jpg', …)"


def test_names_may_be_empty():
    assert list(Names([])) == []
    with pytest.raises(IndexError, match='no name 0 of 0'):
        Names([])[0]


def test_names_take_their_bytes_and_eight_more_each():
    names = Names(f'class_{index % 1000:04d}/{index:08d}.jpg' for index in range(50_000))
    assert names._bytes.nbytes + names._ends.nbytes == 50_000 * (23 + 8)


def test_a_long_walk_says_what_it_does_and_ends_where_there_are_no_images(tmp_path, monkeypatch, capsys):
    for number in range(30):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr('eqzoo.data.sources._SECONDS_TO_LINE', 0)
    monkeypatch.setattr('eqzoo.data.sources._MOST_FOLDERS', 20)
    with pytest.raises(ValueError, match=r'0 images in the first 20 folders; expected a folder of images'):
        ImageFolder(str(tmp_path), 16)
    assert f'Looking for images in {tmp_path}: 0 in 2 folders so far; Ctrl-C stops it.' in capsys.readouterr().err


@pytest.fixture
def photographs(tmp_path):
    """Smooth JPEG files of 300 x 200 pixels, and one too small."""
    rng = np.random.default_rng(0)
    for number, size in enumerate([(300, 200), (300, 200), (40, 30)]):
        image = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        image.save(tmp_path / f'{number}.jpg', quality=95)
    return tmp_path


@pytest.mark.parametrize('crop', ['exact', 'random_square', 'resize_tensor', 'center'])
def test_items_are_cut_from_pillows_pixels(photographs, crop):
    """Whichever library decodes, and though planes are split and mirrored by OpenCV."""
    size = 40 if crop != 'exact' else 200
    if crop == 'exact':
        for path in photographs.glob('*.jpg'):
            Image.open(path).resize((size, size)).save(path, quality=95)
    dataset = ImageFolder(photographs, size, crop=crop, flip=True, seed=3)
    for draw in range(6):
        index = draw % len(dataset)
        image, rng = Image.open(photographs / f'{index}.jpg').convert('RGB'), np.random.default_rng([3, draw])
        expected = CROPS[crop](image, size, rng)
        if rng.random() < 0.5:
            expected = expected[:, ::-1]
        np.testing.assert_array_equal(dataset[index, draw]['image'], expected.transpose(2, 0, 1))


def test_scaled_decoding_is_near_and_has_another_identity(photographs):
    exact, scaled = (ImageFolder(photographs, 48, decoding=each) for each in ('exact', 'scaled'))
    for index in range(2):
        ours, theirs = (each[index]['image'].numpy().astype(float) for each in (scaled, exact))
        assert 0 < np.abs(ours - theirs).mean() < 3
    # one that is too small is not made smaller still, and is listed as it is
    assert torch.equal(scaled[2]['image'], exact[2]['image'])
    assert scaled[2]['enlarged'] == '2.jpg (40 x 30)'
    assert scaled.identity() == {**exact.identity(), 'decoding': 'scaled'}
    assert 'decoding' not in exact.identity()  # of stores and references made before there was a choice
    with pytest.raises(ValueError, match="decoding must be 'exact' or 'scaled', got 'fast'"):
        build(dict(type='ImageFolder', root=str(photographs), size=48, decoding='fast'))


def test_random_squares_of_scaled_images_are_not_enlarged(photographs, monkeypatch):
    """The smallest has half the short side: 200 pixels may become 100, not 50, for squares of 48."""
    sizes = []
    cut = CROPS['random_square']
    monkeypatch.setitem(CROPS, 'random_square', lambda image, *rest: sizes.append(image.size) or cut(image, *rest))
    dataset = ImageFolder(photographs, 48, crop='random_square', decoding='scaled', on_small='skip')
    assert [dataset[index]['image'].shape for index in range(2)] == [(3, 48, 48)] * 2
    assert sizes == [(150, 100)] * 2
