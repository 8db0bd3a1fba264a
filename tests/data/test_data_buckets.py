"""Aspect-ratio buckets: their sizes, the images in them, crops, batches of one size, and exact resume."""

import errno
import io
import zlib
from collections import Counter
from fractions import Fraction
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from containers import write_tar
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from eqzoo.data import (
    BucketedImageFolder,
    BucketedShapes,
    BucketSampler,
    ImageFolder,
    build_eval_loader,
    build_train_loader,
)
from eqzoo.data import buckets as module
from eqzoo.data.buckets import assign_buckets, bucket_sizes, cover, read_sizes
from eqzoo.data.decoding import FORMATS, decode, upright_size
from eqzoo.data.opening import open_source

SIZES = [(100, 50), (300, 40), (64, 64), (33, 90), (200, 190), (128, 256), (70, 130), (96, 95)]  # width, height


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv('EQZOO_CACHE', str(path))
    return path


@pytest.fixture
def folder(tmp_path):
    for number, (width, height) in enumerate(SIZES):
        (tmp_path / f'class{number % 2}').mkdir(exist_ok=True)
        picture(width, height, number).save(tmp_path / f'class{number % 2}' / f'{number}.png')
    return tmp_path


@pytest.mark.parametrize(
    ('resolution', 'multiple', 'max_ratio'), [(512, 64, 2), (1024, 64, 2.5), (64, 16, 4), (48, 8, 1)]
)
def test_sizes_are_all_largest_ones_of_the_area(resolution, multiple, max_ratio):
    """Against every pair of sides up to twice the largest."""
    fits = lambda h, w: h * w <= resolution**2 and max(h, w) <= max_ratio * min(h, w)  # noqa: E731
    sides = range(multiple, 5 * resolution, multiple)
    expected = {(h, w) for h in sides for w in sides if fits(h, w) and max(h, w) + multiple > resolution**2 / min(h, w)}
    found = bucket_sizes(resolution, multiple, max_ratio)
    assert set(found) == expected
    assert found == sorted(found, key=lambda size: Fraction(*size))
    assert (resolution, resolution) in found


def test_a_resolution_that_is_no_multiple_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r'multiples of multiple=64, got 500; set 448 or 512, or another multiple'):
        bucket_sizes(500)


def test_images_go_to_the_nearest_shape_at_every_resolution_that_they_fill():
    """Against the rule, one image after another."""
    rng = np.random.default_rng(0)
    images = rng.integers(10, 400, (500, 2)).astype(np.int32)
    shapes = [bucket_sizes(64, 16, 4), bucket_sizes(128, 16, 4), bucket_sizes(256, 16, 4)]
    expected = []
    for number, (width, height) in enumerate(images.tolist()):
        start = 0
        for level, group in enumerate(shapes):
            distances = [abs(np.log(height / width) - np.log(h / w)) for h, w in group]
            h, w = group[nearest := int(np.argmin(distances))]
            if level == 0 or (h <= height and w <= width):
                expected.append((number, start + nearest))
            start += len(group)
    found = assign_buckets(images, shapes)
    assert list(zip(*(each.tolist() for each in found), strict=True)) == expected
    assert len(expected) > len(images)


def test_items_of_a_folder(folder):
    data = BucketedImageFolder(folder, (64, 128), multiple=16, max_ratio=4, place='center')
    items = [data[index] for index in range(len(data))]
    assert [item['index'] for item in items] == list(range(len(data)))
    names = [f'class{number % 2}/{number}.png' for number in range(len(SIZES))]
    assert data.names == sorted(names)
    drawn = Counter(data._image_of.tolist())
    # 200 x 190 and 128 x 256 fill their shapes at 128 pixels, the others do not
    assert {data.names[image] for image, count in drawn.items() if count == 2} == {'class0/4.png', 'class1/5.png'}
    for index, item in enumerate(items):
        size = data.sizes[data.bucket_of[index]]
        source = Image.open(folder / data.names[data._image_of[index]])
        assert tuple(item['image'].shape) == (3, *size)
        assert torch.equal(item['image'], torch.from_numpy(cover(source, size).copy()).permute(2, 0, 1))
        assert item['label'] == int(data.names[data._image_of[index]][5])
        assert ('enlarged' in item) == (source.width < size[1] or source.height < size[0])
    assert data.labels() == [item['label'] for item in items]
    place = f'8 images from folder {folder.name}, 10 items in 7 buckets'
    assert data.describe() == f'BucketedImageFolder: {place}: 64 x 64 (3), 80 x 48 (2), 48 x 80 (1), …'


def test_covering_keeps_proportions_and_the_place():
    """An image of columns 0 to 199: which of them are left says where it was cut, and how much it was resized."""
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    image = Image.fromarray(np.ascontiguousarray(columns))
    assert np.array_equal(cover(image, (100, 200)), columns)
    middle = cover(image, (50, 50))[:, :, 0].astype(float)
    np.testing.assert_allclose(middle[0], 50 + 2 * np.arange(50) + 0.5, atol=1)
    assert (middle == middle[0]).all()
    starts = [cover(image, (100, 100), np.random.default_rng(seed))[0, 0, 0] for seed in range(40)]
    assert min(starts) < 20
    assert max(starts) > 80
    assert np.array_equal(cover(picture(37, 91), (91, 37)), np.asarray(picture(37, 91)))


def test_a_box_is_never_outside_by_rounding():
    for width, height in ((333, 71), (1, 1), (7, 9999), (640, 427)):
        for size in ((64, 192), (192, 64), (64, 64)):
            assert cover(Image.new('RGB', (width, height)), size).shape == (*size, 3)


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
@pytest.mark.parametrize('ending', ['jpg', 'png', 'tif', 'webp'])
def test_headers_have_the_size_that_decoding_gives(ending, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'a.{ending}'
    picture(30, 17).save(path, exif=exif)
    with path.open('rb') as file:
        size = upright_size(file)
    assert size == decode(path.read_bytes()).size
    assert (size == (17, 30)) == (orientation >= 5)


XMP = b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize('kind', [b'eXIf', b'iTXt', None])
@pytest.mark.parametrize('is_late', [False, True])
def test_the_header_of_a_png_has_the_orientation_wherever_it_is(kind, is_late, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = {b'eXIf': exif.tobytes().removeprefix(b'Exif\0\0'), b'iTXt': XMP}.get(kind)
    whole = io.BytesIO()
    picture(30, 17).save(whole, 'PNG')
    whole = whole.getvalue()
    place = len(whole) - 12 if is_late else 8 + 25  # before IEND, or behind IHDR
    if kind is not None:
        crc = zlib.crc32(kind + content).to_bytes(4, 'big')
        whole = whole[:place] + len(content).to_bytes(4, 'big') + kind + content + crc + whole[place:]
    loads, load = [], PngImageFile.load
    monkeypatch.setattr(PngImageFile, 'load', lambda image: loads.append(image) or load(image))
    size = upright_size(io.BytesIO(whole))
    assert bool(loads) == (is_late and kind is not None)  # otherwise no pixel is decoded
    assert size == decode(whole).size == ((17, 30) if kind else (30, 17))


def test_headers_of_all_formats(tmp_path):
    for number, name in enumerate(sorted(FORMATS)):
        path = tmp_path / f'{number}'
        picture(30, 17).save(path, format=name)
        with path.open('rb') as file:
            assert upright_size(file) == (30, 17), name


def test_sizes_are_read_once_and_again_when_a_file_changes(folder, cache, monkeypatch, capsys):
    (folder / 'class0/a.png').write_bytes(b'no image')
    source, reads = open_source(folder), []
    original = module.upright_size
    monkeypatch.setattr(module, 'upright_size', lambda file: reads.append(file) or original(file))
    names = source.names()
    expected = [SIZES[int(name[7])] if name[7] != 'a' else (0, 0) for name in names]
    assert read_sizes(source, names).tolist() == [list(size) for size in expected]
    assert read_sizes(source, names).tolist() == [list(size) for size in expected]
    assert len(reads) == len(SIZES) + 1
    picture(10, 10, 9).save(folder / 'class0/a.png')
    assert (10, 10) in map(tuple, read_sizes(source, names).tolist())
    assert len(reads) == 2 * (len(SIZES) + 1)
    (cache / 'file').touch()
    monkeypatch.setenv('EQZOO_CACHE', str(cache / 'file'))  # no folder can be made there
    read_sizes(source, names)
    assert 'are not kept: ' in capsys.readouterr().err
    monkeypatch.setenv('EQZOO_CACHE', '/proc/nowhere')
    assert (10, 10) in map(tuple, read_sizes(source, names).tolist())


def test_sizes_that_the_disk_refused_are_read_again_the_next_time(folder, monkeypatch):
    source, original, is_broken, reads = open_source(folder), module.upright_size, True, []

    def read(file):
        reads.append(file.name)
        if is_broken and file.name.endswith('0.png'):
            raise OSError(errno.EIO, 'Input/output error')
        return original(file)

    monkeypatch.setattr(module, 'upright_size', read)
    names = source.names()
    sizes = [list(SIZES[int(name[7])]) for name in names]
    assert read_sizes(source, names).tolist() == [
        size if name[7] != '0' else [0, 0] for name, size in zip(names, sizes, strict=True)
    ]
    is_broken = False
    assert read_sizes(source, names).tolist() == sizes
    assert read_sizes(source, names).tolist() == sizes
    assert len(reads) == len(SIZES) + 1
    assert reads[-1].endswith('0.png')


def test_an_unreadable_image_is_named_in_its_batch_and_small_ones_as_they_should(folder):
    (folder / 'class0/a.png').write_bytes(b'no image')
    options = dict(multiple=16, max_ratio=4)
    data = BucketedImageFolder(folder, 64, **options)
    unreadable = [item for item in map(data.__getitem__, range(len(data))) if 'unreadable' in item]
    assert [item['unreadable'] for item in unreadable] == ['class0/a.png']


def test_small_images_are_left_out_or_refused_before_training(folder, capsys):
    (folder / 'class0/a.png').write_bytes(b'no image')  # of unknown size: it stays
    options = dict(multiple=16, max_ratio=4)
    every = BucketedImageFolder(folder, 64, **options)
    small = {every.names[index] for index in range(len(every)) if 'enlarged' in every[index]}
    assert small == {'class1/3.png'}
    skipped = BucketedImageFolder(folder, 64, on_small='skip', **options)
    assert '1 image smaller than the nearest shape, such as class1/3.png (33 x 90, smaller than 32 x 128)' in (
        capsys.readouterr().err
    )
    items = [skipped[index] for index in range(len(skipped))]
    assert {skipped.names[image] for image in skipped._image_of} == set(every.names) - small
    assert [item['unreadable'] for item in items if 'unreadable' in item] == ['class0/a.png']
    assert skipped.identity()['num_images'] == every.identity()['num_images'] - 1 == len(SIZES)
    assert skipped.labels() == [int(skipped.names[image][5]) for image in skipped._image_of]
    with pytest.raises(
        ValueError, match=r'1 image smaller than the nearest shape, such as class1/3.png .*; remove them, or set'
    ):
        BucketedImageFolder(folder, 64, on_small='refuse', **options)
    (folder / 'class0/a.png').unlink()
    with pytest.raises(ValueError, match=r'8 images smaller than the nearest shape, .*, and no other; give larger'):
        BucketedImageFolder(folder, 512, on_small='skip', **options)


@pytest.mark.parametrize('as_list', [False, True])
def test_shards_by_braces_or_a_list_are_those_of_a_folder(as_list, folder, tmp_path_factory):
    shards = tmp_path_factory.mktemp('shards')
    for number in range(2):
        files = sorted((folder / f'class{number}').iterdir())
        write_tar(shards / f's-{number}.tar', {f'class{number}/{file.name}': file.read_bytes() for file in files})
    root = [shards / 's-0.tar', shards / 's-1.tar'] if as_list else f'{shards}/s-{{0..1}}.tar'
    options = dict(multiple=16, max_ratio=4, place='center')
    data, expected = BucketedImageFolder(root, (64, 128), **options), BucketedImageFolder(folder, (64, 128), **options)
    assert data.bucket_of.tolist() == expected.bucket_of.tolist()
    assert all(torch.equal(data[index]['image'], expected[index]['image']) for index in range(len(data)))
    assert data.labels() == expected.labels()
    name = 's-0.tar and 1 more' if as_list else 's-{0..1}.tar'
    assert f'from set of tars {name}, 10 items in 7 buckets' in data.describe()
    assert data.identity()['root'] == name


def take(sampler, count):
    return list(islice(sampler, count))


BUCKET_OF = np.array([0, 2, 2, 0, 3, 2, 2, 2, 0, 2, 2, 3, 2])  # bucket 1 has no items


@pytest.mark.parametrize('batch_size', [1, 2, 4, 6])
def test_batches_are_of_one_bucket_and_a_cycle_has_every_item_equally_often(batch_size):
    size = len(BUCKET_OF)
    drawn = take(BucketSampler(BUCKET_OF, batch_size, seed=5), 2 * size * batch_size)
    assert [draw for _, draw in drawn] == list(range(2 * size * batch_size))
    batches = [[index for index, _ in drawn[start : start + batch_size]] for start in range(0, len(drawn), batch_size)]
    assert all(len({BUCKET_OF[index] for index in batch}) == 1 for batch in batches)
    for cycle in (batches[:size], batches[size:]):
        assert Counter(index for batch in cycle for index in batch) == dict.fromkeys(range(size), batch_size)
        # evenly: after the first half of a cycle a bucket has had half of its batches, to one
        half = Counter(int(BUCKET_OF[batch[0]]) for batch in cycle[: size // 2])
        for bucket, count in Counter(BUCKET_OF.tolist()).items():
            assert abs(half[bucket] - count / 2) <= 1.5
    assert batches[:size] != batches[size:]
    assert take(BucketSampler(BUCKET_OF, batch_size, seed=6), len(drawn)) != drawn


@pytest.mark.parametrize('world_size', [1, 2, 4])
@pytest.mark.parametrize('start', [0, 4, 20, 51, 52, 53, 107])
def test_resume_continues_without_replay(start, world_size):
    for rank in range(world_size):
        options = dict(seed=4, rank=rank, world_size=world_size)
        whole = [pair for pair in take(BucketSampler(BUCKET_OF, 4, **options), 300) if pair[1] >= start]
        resumed = BucketSampler(BUCKET_OF, 4, **options)
        resumed.start_draw = start
        assert take(resumed, 60) == whole[:60]


def test_one_bucket_is_passes_through_all_items():
    drawn = take(BucketSampler([0] * 7, 3), 21)
    for start in (0, 7, 14):
        assert sorted(index for index, _ in drawn[start : start + 7]) == list(range(7))


@pytest.mark.parametrize('world_size', [2, 4])
def test_all_processes_have_one_size_in_a_step_and_together_the_batch_of_one(world_size):
    data = BucketedShapes(12, [(32, 32), (32, 64)], flip=True)
    options = dict(batch_size=4, num_workers=0, seed=3)
    alone = islice(build_train_loader(data, **options), 10)
    ranks = [build_train_loader(data, **options, rank=rank, world_size=world_size) for rank in range(world_size)]
    sizes = set()
    for batch, *parts in zip(alone, *ranks, strict=False):
        sizes.add(batch['images'].shape[2:])
        for key in ('images', 'labels', 'draws'):
            assert torch.equal(torch.stack([part[key] for part in parts], 1).flatten(0, 1), batch[key])
    assert sizes == {(32, 32), (32, 64)}


def test_evaluation_takes_one_size():
    with pytest.raises(ValueError, match='BucketedShapes has images of several sizes, which only training takes'):
        build_eval_loader(BucketedShapes(4, [(32, 32), (32, 64)]), batch_size=2, num_workers=0)
    batches = list(build_eval_loader(BucketedShapes(4, [(32, 64)]), batch_size=2, num_workers=0))
    assert [batch['images'].shape for batch in batches] == [(2, 3, 32, 64)] * 2


def test_samplers_and_memory_refuse_what_cannot_be():
    with pytest.raises(ValueError, match=r'BucketSampler.batch_size must be at least 1, got 0'):
        BucketSampler([0], 0)
    huge = SimpleNamespace(sizes=[(64, 64), (10**5, 10**5)], bucket_of=[0, 1], __len__=lambda: 2)
    huge = type('Huge', (), {**vars(huge), '__len__': lambda self: 2})()
    with pytest.raises(ValueError, match=r'8 images of 100,000 x 100,000 pixels'):
        build_train_loader(huge, batch_size=8, num_workers=0, seed=0)


def test_identities_name_the_buckets(folder):
    one, other = (BucketedImageFolder(folder, 64, multiple=16, max_ratio=ratio).identity() for ratio in (2.0, 4.0))
    assert one == {**other, 'max_ratio': 2.0}
    assert one['sha256'] == ImageFolder(folder, 64).identity()['sha256']
    assert one['kind'] == 'BucketedImageFolder'
