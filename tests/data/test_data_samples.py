"""Samples on disk: ADM's files read in place, unsuitable files, and samples written by number."""

import json
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from eqzoo.data import NpzImages, Shapes, build_eval_loader, collate, write_npz_images
from eqzoo.data.samples import NpzSamples, PngSamples, check_card, open_sample_files, write_card
from eqzoo.registry import build

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
LABELS = np.array([3, 0, 1, 1, 2, 0, 3, 2, 1])


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / 'samples.npz', PIXELS, LABELS)
    return tmp_path / 'samples.npz'


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_items_are_the_images_and_labels(tmp_path, save):
    save(tmp_path / 'a.npz', PIXELS, LABELS)
    dataset = NpzImages(tmp_path / 'a.npz')
    assert (len(dataset), dataset.size, dataset.classes) == (9, 8, ['0', '1', '2', '3'])
    assert dataset.labels() == LABELS.tolist()
    for index in range(9):
        item = dataset[index]
        np.testing.assert_array_equal(item['image'].numpy(), PIXELS[index].transpose(2, 0, 1))
        assert item['label'] == LABELS[index]
    item = dataset[4, 99]
    assert (item['index'], item['draw']) == (4, 99)
    item['image'].zero_()  # its own memory, not the file's
    assert dataset[4]['image'].any()


def test_without_labels_all_are_0(tmp_path):
    np.savez(tmp_path / 'a.npz', PIXELS)
    dataset = NpzImages(tmp_path / 'a.npz')
    assert {dataset[index]['label'] for index in range(9)} == {0}
    assert dataset.classes == ['0']


def test_statistics_in_a_sample_file_are_ignored(tmp_path):
    np.savez(tmp_path / 'a.npz', PIXELS, LABELS, mu=np.array(['x'], object), sigma=np.zeros(3))
    np.savez(tmp_path / 'b.npz', PIXELS, LABELS)
    first, second = NpzImages(tmp_path / 'a.npz'), NpzImages(tmp_path / 'b.npz')
    assert torch.equal(first[3]['image'], second[3]['image'])
    assert first.identity()['sha256'] == second.identity()['sha256']


def test_identity_is_of_the_content(path, tmp_path):
    before = NpzImages(path).identity()
    assert (before['kind'], before['root'], before['num_images'], before['size']) == ('NpzImages', 'samples.npz', 9, 8)
    np.savez_compressed(tmp_path / 'deflated.npz', PIXELS, LABELS)
    assert NpzImages(tmp_path / 'deflated.npz').identity()['sha256'] == before['sha256']
    for name, arrays in (('pixels', (PIXELS[::-1], LABELS)), ('labels', (PIXELS, LABELS[::-1]))):
        np.savez(tmp_path / f'{name}.npz', *arrays)
        assert NpzImages(tmp_path / f'{name}.npz').identity()['sha256'] != before['sha256']
    assert NpzImages(path, limit=4).identity()['num_images'] == 4


def test_limit_takes_the_first(path):
    dataset = NpzImages(path, limit=4)
    assert [item['label'] for item in dataset] == [3, 0, 1, 1]
    assert len(NpzImages(path, limit=100)) == 9
    with pytest.raises(ValueError, match='limit must be at least 1 or None, got 0'):
        NpzImages(path, limit=0)


def test_a_pickle_has_no_images(tmp_path):
    np.savez(tmp_path / 'a.npz', np.zeros((100, 32, 32, 3), np.uint8))
    dataset = NpzImages(tmp_path / 'a.npz')
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 5000
    assert torch.equal(pickle.loads(pickled)[7]['image'], dataset[7]['image'])


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_workers_read_what_this_process_reads(path):
    dataset = NpzImages(path)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate, multiprocessing_context='fork')
    images = torch.cat([batch['images'] for batch in loader])
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), PIXELS)


def test_written_files_are_read_again(tmp_path):
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    write_npz_images(tmp_path / 'a.npz', images.split(4), 9, labels=torch.from_numpy(LABELS))
    with np.load(tmp_path / 'a.npz') as loaded:  # as ADM's evaluator does
        np.testing.assert_array_equal(loaded['arr_0'], PIXELS)
        np.testing.assert_array_equal(loaded['arr_1'], LABELS)
        assert sorted(loaded) == ['arr_0', 'arr_1']
    batches = list(build_eval_loader(NpzImages(tmp_path / 'a.npz'), batch_size=4, num_workers=0))
    assert torch.equal(torch.cat([batch['images'] for batch in batches]), images)
    assert torch.cat([batch['labels'] for batch in batches]).tolist() == LABELS.tolist()
    write_npz_images(tmp_path / 'b.npz', [images], 9)
    assert NpzImages(tmp_path / 'b.npz').classes == ['0']


def test_mistakes_in_writing_are_refused(tmp_path):
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    with pytest.raises(ValueError, match=r'labels \(3,\) for 9 images; expected \(9,\)'):
        write_npz_images(tmp_path / 'a.npz', [images], 9, labels=[1, 2, 3])
    with pytest.raises(ValueError, match='got 9 rows, expected 10'):
        write_npz_images(tmp_path / 'a.npz', [images], 10)
    assert list(tmp_path.iterdir()) == []


def nothing(path):
    path.unlink()
    return 'no such npz file'


def truncated(path):
    path.write_bytes(path.read_bytes()[:900])
    return 'damaged or incomplete npz'


def without_images(path):
    np.savez(path, images=PIXELS)
    return "no array 'arr_0'; it has images"


def channels_first(path):
    np.savez(path, PIXELS.transpose(0, 3, 1, 2))
    return r'arr_0 is \(9, 3, 8, 8\) of uint8; expected \(N, size, size, 3\)'


def floats(path):
    np.savez(path, PIXELS / 255)
    return r'arr_0 is .* of float64; .*with values 0 to 255'


def no_images(path):
    np.savez(path, PIXELS[:0])
    return r'arr_0 is \(0, 8, 8, 3\)'


def few_labels(path):
    np.savez(path, PIXELS, LABELS[:4])
    return r'arr_1 is \(4,\) of int64, from 0 to 3; expected the 9 classes'


def one_hot_labels(path):
    np.savez(path, PIXELS, np.eye(4)[LABELS])
    return r'arr_1 is \(9, 4\) of float64'


def huge_label(path):
    np.savez(path, arr_0=PIXELS, arr_1=np.array([0] * 8 + [2**62]))
    return r'from 0 to 4611686018427387904; .*whole numbers from 0 to 1048575'


def negative_labels(path):
    np.savez(path, PIXELS, LABELS - 1)
    return 'whole numbers from 0'


@pytest.mark.parametrize(
    'case',
    [
        nothing,
        truncated,
        without_images,
        channels_first,
        floats,
        no_images,
        few_labels,
        one_hot_labels,
        negative_labels,
        huge_label,
    ],
)
def test_bad_files_are_reported_by_constructor_and_preflight(path, case):
    message = case(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        NpzImages(path)
    assert str(path) in str(caught.value)
    (requirement,) = NpzImages.requirements(dict(path=str(path)))
    assert str(caught.value) in requirement.what
    assert requirement.where == str(path)
    assert 'path=FILE of this dataset' in requirement.remedy


def test_images_of_another_size(path):
    assert NpzImages(path, 8).size == 8
    with pytest.raises(ValueError, match='images of 8 pixels; expected 256; set size=8'):
        NpzImages(path, 256)
    (requirement,) = NpzImages.requirements(dict(path=path, size=256))
    assert 'expected 256' in requirement.what


def test_no_requirements_for_a_good_file(path):
    assert NpzImages.requirements(dict(path=path, limit=3)) == []
    assert NpzImages.requirements({})[0].what == 'NpzImages: no path is given.'


def test_index_beyond_the_end(path):
    assert len(list(NpzImages(path))) == 9
    with pytest.raises(IndexError, match='Index 9 is not in 0 to 8'):
        NpzImages(path)[9]


def test_built_described_and_for_smoke(path):
    assert (
        build(dict(type='NpzImages', path=str(path), size=8)).describe()
        == 'NpzImages: 9 images of 8 px from samples.npz'
    )
    assert NpzImages(path, limit=1).describe() == 'NpzImages: 1 image of 8 px from samples.npz'
    assert isinstance(build(NpzImages.smoke(dict(path='nowhere'))), Shapes)


def numbered(numbers):
    """Images with their number in the first pixel."""
    stacked = torch.arange(3 * 4 * 4).reshape(3, 4, 4).repeat(len(numbers), 1, 1, 1)
    stacked[:, 0, 0, 0] = torch.tensor(numbers)
    return stacked.to(torch.uint8)


@pytest.mark.parametrize('name', ['samples', 'samples.npz'])
def test_samples_are_read_back_by_number(tmp_path, name):
    files = open_sample_files(tmp_path / name)
    assert files.numbers() == set()
    for numbers in ([4, 0], [3], [1, 2, 5]):
        files.write(numbers, numbered(numbers))
    again = open_sample_files(tmp_path / name)  # another process, after a kill
    assert again.numbers() == {0, 1, 2, 3, 4, 5}
    assert torch.equal(again.read([5, 0, 3]), numbered([5, 0, 3]))
    again.finish([0, 1, 0, 1, 0, 1])
    assert torch.equal(again.read(range(6)), numbered(range(6)))
    assert open_sample_files(tmp_path / name).numbers() == {0, 1, 2, 3, 4, 5}


def test_a_finished_npz_has_adms_layout_and_can_be_added_to(tmp_path):
    files = NpzSamples(tmp_path / 'a' / 'samples.npz')
    files.write([1, 0], numbered([1, 0]))
    files.finish([7, 8])
    content = np.load(files.path)
    assert content['arr_0'].shape == (2, 4, 4, 3)
    assert content['arr_1'].tolist() == [7, 8]
    assert content['arr_0'][:, 0, 0, 0].tolist() == [0, 1]
    files.write([2], numbered([2]))
    files.finish([7, 8, 9])
    data = NpzImages(files.path)
    assert data.labels() == [7, 8, 9]
    assert [int(data[n]['image'][0, 0, 0]) for n in range(3)] == [0, 1, 2]
    assert [path.name for path in files.path.parent.iterdir()] == ['samples.npz']  # no parts are left
    files.finish([7, 8, 9])  # nothing new: nothing done


def test_a_folder_has_images_only(tmp_path):
    PngSamples(tmp_path / 'out').write([12], numbered([12]))
    write_card(tmp_path / 'out', {'plan': {}})
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['000012.png']
    assert (tmp_path / 'out.json').is_file()


def test_samples_of_another_plan_are_not_added_to(tmp_path):
    path = tmp_path / 'samples.npz'
    plan = dict(seed=0, labels=(1, 2))
    check_card(path, plan)  # nothing is there
    write_card(path, dict(plan=dict(plan, seed=7)))
    check_card(path, plan)  # a run that was refused before it drew any has left its card
    NpzSamples(path).write([0], numbered([0]))
    with pytest.raises(ValueError, match='seed 7 there, 0 asked'):
        check_card(path, plan)
    write_card(path, dict(plan=plan))
    check_card(path, plan)
    with pytest.raises(ValueError, match='seed 0 there, 1 asked'):
        check_card(path, dict(plan, seed=1))
    (tmp_path / 'samples.json').write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r'samples.json: damaged \(KeyError'):
        check_card(path, plan)
    (tmp_path / 'samples.json').unlink()
    with pytest.raises(ValueError, match='samples, but no samples.json'):
        check_card(path, plan)


def test_files_of_others_beside_the_parts_stay(tmp_path):
    folder = tmp_path / 'a.parts'
    folder.mkdir()
    (folder / 'mine.npz').write_bytes(b'no npz file')
    files = NpzSamples(tmp_path / 'a.npz')
    files.write([0, 1], torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    files.finish([0, 1])
    assert NpzSamples(tmp_path / 'a.npz').numbers() == {0, 1}
    assert [file.name for file in folder.iterdir()] == ['mine.npz']
