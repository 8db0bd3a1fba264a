"""Sample files: samples are read back by number, in any order and after interruptions."""

import json

import numpy as np
import pytest
import torch

from eqzoo.data import NpzImages
from eqzoo.data.samples import NpzSamples, PngSamples, check_card, open_sample_files, write_card


def images(numbers):
    """Images with their number in the first pixel."""
    stacked = torch.arange(3 * 4 * 4).reshape(3, 4, 4).repeat(len(numbers), 1, 1, 1)
    stacked[:, 0, 0, 0] = torch.tensor(numbers)
    return stacked.to(torch.uint8)


@pytest.mark.parametrize('name', ['samples', 'samples.npz'])
def test_samples_are_read_back_by_number(tmp_path, name):
    files = open_sample_files(tmp_path / name)
    assert files.numbers() == set()
    for numbers in ([4, 0], [3], [1, 2, 5]):
        files.write(numbers, images(numbers))
    again = open_sample_files(tmp_path / name)  # another process, after a kill
    assert again.numbers() == {0, 1, 2, 3, 4, 5}
    assert torch.equal(again.read([5, 0, 3]), images([5, 0, 3]))
    again.finish([0, 1, 0, 1, 0, 1])
    assert torch.equal(again.read(range(6)), images(range(6)))
    assert open_sample_files(tmp_path / name).numbers() == {0, 1, 2, 3, 4, 5}


def test_a_finished_npz_has_adms_layout_and_can_be_added_to(tmp_path):
    files = NpzSamples(tmp_path / 'a' / 'samples.npz')
    files.write([1, 0], images([1, 0]))
    files.finish([7, 8])
    content = np.load(files.path)
    assert content['arr_0'].shape == (2, 4, 4, 3)
    assert content['arr_1'].tolist() == [7, 8]
    assert content['arr_0'][:, 0, 0, 0].tolist() == [0, 1]
    files.write([2], images([2]))
    files.finish([7, 8, 9])
    data = NpzImages(files.path)
    assert data.labels() == [7, 8, 9]
    assert [int(data[n]['image'][0, 0, 0]) for n in range(3)] == [0, 1, 2]
    assert [path.name for path in files.path.parent.iterdir()] == ['samples.npz']  # no parts are left
    files.finish([7, 8, 9])  # nothing new: nothing done


def test_a_folder_has_images_only(tmp_path):
    PngSamples(tmp_path / 'out').write([12], images([12]))
    write_card(tmp_path / 'out', {'plan': {}})
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['000012.png']
    assert (tmp_path / 'out.json').is_file()


def test_samples_of_another_plan_are_not_added_to(tmp_path):
    path = tmp_path / 'samples.npz'
    plan = dict(seed=0, labels=(1, 2))
    check_card(path, plan)  # nothing is there
    write_card(path, dict(plan=plan))
    check_card(path, plan)
    with pytest.raises(ValueError, match='seed 0 there, 1 asked'):
        check_card(path, dict(plan, seed=1))
    (tmp_path / 'samples.json').write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r'samples.json: damaged \(KeyError'):
        check_card(path, plan)
    (tmp_path / 'samples.json').unlink()
    NpzSamples(path).write([0], images([0]))
    with pytest.raises(ValueError, match='samples, but no samples.json'):
        check_card(path, plan)
