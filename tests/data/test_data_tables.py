"""Parquet files and Arrow files of `datasets`: equal to the libraries' own reading; columns, labels, damage, memory."""

import json
import shutil
import tracemalloc

import numpy as np
import pytest
from containers import pixels_of, png

from eqzoo.data import ImageFolder, build_eval_loader, build_train_loader

pa = pytest.importorskip('pyarrow')
import pyarrow.parquet as pq  # noqa: E402

CLASSES = ['ant', 'bee', 'cat']
COUNT = 10


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('EQZOO_CACHE', str(tmp_path / '.cache'))


def table(start=0, count=COUNT, **columns):
    """A table as `datasets` writes it: image is a struct of bytes and path, label a number with names."""
    images = [dict(bytes=png(number), path=f'{number}.png') for number in range(start, start + count)]
    labels = pa.array([number % 3 for number in range(start, start + count)], pa.int64())
    features = dict(image=dict(_type='Image'), label=dict(_type='ClassLabel', names=CLASSES))
    found = pa.table({**dict(image=images, label=labels), **columns})
    return found.replace_schema_metadata({'huggingface': json.dumps(dict(info=dict(features=features)))})


@pytest.fixture
def saved(tmp_path):
    """A data set of two splits that `datasets.save_to_disk` wrote, as the library reads it: (bytes, label) of each."""
    datasets = pytest.importorskip('datasets')
    datasets.disable_progress_bars()
    features = datasets.Features(
        image=datasets.Image(), caption=datasets.Value('string'), label=datasets.ClassLabel(names=CLASSES)
    )

    def split(start, count):
        numbers = range(start, start + count)
        columns = dict(image=[dict(bytes=png(each), path=None) for each in numbers], caption=['a'] * count)
        return datasets.Dataset.from_dict({**columns, 'label': [each % 3 for each in numbers]}, features=features)

    data = datasets.DatasetDict(train=split(0, 13).shuffle(seed=3), test=split(13, 4).select([2, 0, 1]))
    data.save_to_disk(tmp_path / 'saved', num_shards=dict(train=3, test=1))
    again = datasets.load_from_disk(str(tmp_path / 'saved'))
    raw = {name: each.cast_column('image', datasets.Image(decode=False)) for name, each in again.items()}
    return tmp_path / 'saved', {
        name: [(row['image']['bytes'], row['label']) for row in each] for name, each in raw.items()
    }


def test_a_saved_data_set_is_what_datasets_reads(saved):
    root, expected = saved
    for split, rows in expected.items():
        for dataset in (ImageFolder(root, 10, below=split), ImageFolder(root / split, 10)):
            assert [dataset.source.read(name) for name in dataset.names] == [content for content, _ in rows]
            assert dataset.labels() == [label for _, label in rows]
            assert dataset.classes == CLASSES
            assert dataset.source.notes == ['Columns that are not read: caption.']
            assert np.array_equal(dataset[1]['image'], pixels_of(rows[1][0])[:, :, 1:11])
    assert ImageFolder(root, 10, below='train').names[0] == 'train/data-00000-of-00003.arrow:00000000'
    assert len(ImageFolder(root, 10)) == 16
    with pytest.raises(ValueError, match=r"no images below 'tran'. Did you mean 'train'\?"):
        ImageFolder(root, 10, below='tran')


@pytest.mark.parametrize('compression', ['NONE', 'SNAPPY', 'ZSTD'])
@pytest.mark.parametrize('dictionary', [True, False])
def test_a_parquet_folder_is_what_pyarrow_reads(tmp_path, compression, dictionary):
    whole = table()
    (tmp_path / 'data').mkdir()
    options = dict(compression=compression, use_dictionary=dictionary, row_group_size=3)
    pq.write_table(whole.slice(0, 6), tmp_path / 'data' / 'train-0-of-2.parquet', **options)
    pq.write_table(whole.slice(6), tmp_path / 'data' / 'train-1-of-2.parquet', **options)
    dataset = ImageFolder(tmp_path, 10)
    expected = pq.read_table(tmp_path / 'data').to_pydict()
    assert [dataset.source.read(name) for name in dataset.names] == [each['bytes'] for each in expected['image']]
    assert (dataset.labels(), dataset.classes) == (expected['label'], CLASSES)
    assert dataset.names[6] == 'data/train-1-of-2.parquet:00000000'
    sizes = [dataset.source.byte_size(name) for name in dataset.names]
    assert sizes == [len(each['bytes']) for each in expected['image']]


def test_columns_of_other_names_and_types(tmp_path):
    columns = {
        'picture': pa.array([png(0), png(1)], pa.large_binary()),
        'thumb': pa.array([png(2), png(3)]),
        'kind': pa.array(['b', 'a']).dictionary_encode(),
        'number': pa.array([7, 2], pa.uint8()),
        'good': pa.array([True, False]),
        'caption': ['x', 'y'],
    }
    pq.write_table(pa.table(columns), tmp_path / 'a.parquet')
    path = tmp_path / 'a.parquet'
    with pytest.raises(ValueError, match=r"no column 'image' of bytes.*set image to .* picture \(large_binary\)"):
        ImageFolder(path, 8)
    dataset = ImageFolder(path, 8, image='picture', label='kind')
    assert dataset.source.read('00000001') == png(1)
    assert (dataset.classes, dataset.labels()) == (['a', 'b'], [1, 0])
    assert ImageFolder(path, 8, image='thumb').source.read('00000000') == png(2)
    assert ImageFolder(path, 8, image='thumb').classes == ['.']
    numbered = ImageFolder(path, 8, image='thumb', label='number')
    assert (numbered.labels(), len(numbered.classes)) == ([7, 2], 8)
    assert ImageFolder(path, 8, image='thumb', label='good').labels() == [1, 0]
    assert numbered.identity()['sha256'] != dataset.identity()['sha256']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(image='imag'), r"no column 'imag', or several. Did you mean 'image'\? Its columns: image \(struct<"),
        (dict(image='label'), r"column 'label' is of type int64; expected the bytes of image files"),
        (dict(label='lable'), r"no column 'lable', or several. Did you mean 'label'\?"),
        (dict(label='weight'), r"column 'weight' is of type double; expected whole numbers or text"),
        (dict(label='folder'), r"label='folder', and a table has none"),
    ],
)
def test_wrong_columns_are_one_message(tmp_path, options, message):
    pq.write_table(table(count=2, weight=[0.5, 1.0]), tmp_path / 'a.parquet')
    with pytest.raises(ValueError, match=message):
        ImageFolder(tmp_path / 'a.parquet', 8, **options)
    (lacks,) = ImageFolder.requirements(dict(root=str(tmp_path / 'a.parquet'), **options))
    assert 'a.parquet' in lacks.what


def test_null_images_are_unreadable_and_null_labels_are_named(tmp_path):
    images = [dict(bytes=png(0), path=None), dict(bytes=None, path='/etc/passwd'), None, dict(bytes=b'', path='x')]
    whole = pa.table(dict(image=images, label=pa.array([0, 1, 2, 0])))
    with pa.OSFile(str(tmp_path / 'a.arrow'), 'wb') as file, pa.ipc.new_stream(file, whole.schema) as writer:
        writer.write_table(whole)
    pq.write_table(whole, tmp_path / 'a.parquet')
    for name in ('a.parquet', 'a.arrow'):
        (batch,) = build_eval_loader(ImageFolder(tmp_path / name, 8), batch_size=4, num_workers=0)
        assert batch['reasons'] == {
            '00000001': 'null, without bytes', '00000002': 'null, without bytes', '00000003': 'the file is empty'
        }  # fmt: skip
    pq.write_table(whole.set_column(1, 'label', pa.array([0, None, 1, None])), tmp_path / 'b.parquet')
    with pytest.raises(ValueError, match=r'2 of 4 images have no label, such as 00000001; .*label=None'):
        ImageFolder(tmp_path / 'b.parquet', 8)


def test_labels_that_are_not_published_are_none(tmp_path):
    whole = table(count=2).set_column(1, 'label', pa.array([-1, -1]))
    pq.write_table(whole, tmp_path / 'a.parquet')
    assert ImageFolder(tmp_path / 'a.parquet', 8).labels() == [0, 0]
    pq.write_table(table(count=2).set_column(1, 'label', pa.array([3, 0])), tmp_path / 'b.parquet')
    data = pq.read_table(tmp_path / 'b.parquet').replace_schema_metadata(table().schema.metadata)
    pq.write_table(data, tmp_path / 'b.parquet')
    with pytest.raises(ValueError, match=r'labels from 0 to 3; expected whole numbers from 0 to 2'):
        ImageFolder(tmp_path / 'b.parquet', 8)


@pytest.mark.parametrize('form', ['stream', 'file', 'compressed', 'sliced'])
def test_arrow_files_of_every_form(tmp_path, form):
    whole = table(count=7)
    whole = whole.slice(2) if form == 'sliced' else whole
    options = pa.ipc.IpcWriteOptions(compression='zstd') if form == 'compressed' else None
    new = pa.ipc.new_file if form == 'file' else pa.ipc.new_stream
    with pa.OSFile(str(tmp_path / 'a.arrow'), 'wb') as file, new(file, whole.schema, options=options) as writer:
        writer.write_table(whole, max_chunksize=3)
    dataset = ImageFolder(tmp_path / 'a.arrow', 8)
    assert [dataset.source.read(name) for name in dataset.names] == [each['bytes'].as_py() for each in whole['image']]
    assert (dataset.labels(), dataset.classes) == (whole['label'].to_pylist(), CLASSES)


@pytest.mark.parametrize('kind', ['parquet', 'arrow'])
def test_damage_is_one_message_or_unreadable_images(tmp_path, kind):
    """Cut at every tenth and with bytes flipped: never another error, and never much memory."""
    path = tmp_path / f'a.{kind}'
    if kind == 'parquet':
        pq.write_table(table(), path)
    else:
        with pa.OSFile(str(path), 'wb') as file, pa.ipc.new_stream(file, table().schema) as writer:
            writer.write_table(table())
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    cases = [content[: len(content) * tenth // 10] for tenth in range(10)]
    for _ in range(25):
        flipped = bytearray(content)
        for place in generator.integers(0, len(content), 20):
            flipped[place] ^= 1 << int(generator.integers(8))
        cases.append(bytes(flipped))
    refusals = []
    tracemalloc.start()
    for number, case in enumerate(cases):
        (tmp_path / f'{number}.{kind}').write_bytes(case)
        try:
            dataset = ImageFolder(tmp_path / f'{number}.{kind}', 8)
        except ValueError as error:
            refusals.append((f'{number}.{kind}', str(error)))
        else:
            assert len([dataset[index] for index in range(len(dataset))]) == len(dataset)
    assert len(refusals) >= 10
    assert all(name in message for name, message in refusals)
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def test_resume_is_exact(saved):
    root, _ = saved
    dataset = ImageFolder(root, 8, below='train', crop='random_square', flip=True)

    def batches(start, count, num_workers):
        loader = build_train_loader(dataset, batch_size=5, num_workers=num_workers, seed=2)
        loader.sampler.start_draw = start
        return [batch['images'].numpy().tobytes() for _, batch in zip(range(count), loader, strict=False)]

    assert batches(0, 6, 0)[2:] == batches(10, 4, 2)


def test_parquet_is_unpacked_once_and_again_if_the_cache_is_emptied(tmp_path):
    pq.write_table(table(), tmp_path / 'a.parquet')
    dataset = ImageFolder(tmp_path / 'a.parquet', 8)
    (pack,) = (tmp_path / '.cache' / 'images').glob('*.pack')
    assert pack.read_bytes() == b''.join(png(number) for number in range(COUNT))
    before = pack.stat().st_mtime_ns
    assert ImageFolder(tmp_path / 'a.parquet', 8).identity() == dataset.identity()
    assert pack.stat().st_mtime_ns == before
    pack.unlink()
    assert ImageFolder(tmp_path / 'a.parquet', 8)[3]['label'] == 0


def test_no_room_for_unpacking_is_said_before(tmp_path, monkeypatch):
    pq.write_table(table(), tmp_path / 'a.parquet')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(OSError, match=r'a.parquet: its images take 0.0 GiB, and .* set EQZOO_CACHE'):
        ImageFolder(tmp_path / 'a.parquet', 8)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('state.json', '{"_data_files": [{"filename": "../x.arrow"}]}', 'state.json names no files of this folder'),
        ('state.json', '[', r'state.json: no JSON as `datasets` writes it'),
        ('state.json', '{}', 'state.json names no files of this folder'),
        ('../dataset_dict.json', '{"splits": ["../train"]}', 'dataset_dict.json names no splits'),
    ],
)
def test_hostile_descriptions_of_saved_data_sets(saved, name, content, message):
    root, _ = saved
    (root / 'train' / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        ImageFolder(root, 8)


def test_a_data_set_of_the_hub_is_read_through_datasets(tmp_path, monkeypatch):
    """`datasets` takes a folder of this name below the working directory for it; without one it asks the Hub."""
    datasets = pytest.importorskip('datasets')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / '.hf')
    monkeypatch.setattr(datasets.config, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'org' / 'insects').mkdir(parents=True)
    pq.write_table(table(), tmp_path / 'org' / 'insects' / 'train-0.parquet')
    pq.write_table(table(20, 4), tmp_path / 'org' / 'insects' / 'test-0.parquet')
    dataset = ImageFolder('hf://datasets/org/insects', 8, below='train')
    assert [dataset.source.read(name) for name in dataset.names] == [png(number) for number in range(COUNT)]
    assert (dataset.labels(), dataset.classes) == ([number % 3 for number in range(COUNT)], CLASSES)
    assert len(ImageFolder('hf://datasets/org/insects', 8)) == COUNT + 4
    with pytest.raises(ValueError, match=r'hf://datasets/org/beasts: datasets cannot load it \(ConnectionError: Could'):
        ImageFolder('hf://datasets/org/beasts', 8)


def test_a_missing_library_is_one_message(tmp_path, monkeypatch):
    for name in ('a.parquet', 'a.arrow'):
        (tmp_path / name).write_bytes(b'PAR1' if name == 'a.parquet' else b'ARROW1')
        monkeypatch.setattr('eqzoo.data.tables.find_spec', lambda _: None)
        with pytest.raises(ValueError, match=rf"{name}: .* needs pyarrow; expected: pip install 'eqzoo\[parquet\]'"):
            ImageFolder(tmp_path / name, 8)
    with pytest.raises(ValueError, match=r"pip install 'eqzoo\[hub\]'"):
        ImageFolder('hf://datasets/org/name', 8)


def test_unpacking_takes_constant_memory(tmp_path):
    """20 MB of images in one row group, with a megabyte of Python objects at most."""
    noise = np.random.default_rng(0)
    images = [noise.bytes(20_000) for _ in range(1000)]
    pq.write_table(pa.table(dict(image=images)), tmp_path / 'a.parquet', compression='NONE')
    del images
    before = pa.default_memory_pool().max_memory()
    tracemalloc.start()
    dataset = ImageFolder(tmp_path / 'a.parquet', 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset) == 1000
    assert peak < 6_000_000
    assert pa.default_memory_pool().max_memory() - before < 12_000_000
    assert len(dataset.source.read('00000999')) == 20_000
