"""Photographs: reading and cropping."""

import pytest
import torch

from eqzoo.laboratory import crop_all, read_photographs


def corner(squares, number=0):
    """Return the (column, row) of the original that is now at the upper left."""
    return tuple(squares.pixels[number, :2, 0, 0].tolist())


def test_photographs_are_cropped_to_a_multiple_without_resampling(save):
    squares = crop_all(read_photographs([save('a.png', 45, 37)], 8), 256, [8, 4])
    assert squares.pixels.shape == (1, 3, 32, 32)
    assert corner(squares) == (4 + 2, 2)  # to 37 x 37, then to 32 x 32
    assert torch.equal(squares.pixels[0, 0, 0], torch.arange(6, 38, dtype=torch.uint8))
    assert squares.sizes == [(45, 37)]
    assert squares.cuts == ['middle 32 x 32']
    assert squares.remarks == ['Cut at the centre from 37 to 32 pixels a side: these models need multiples of 8.']


def test_a_square_that_fits_is_left_alone(save):
    squares = crop_all(read_photographs([save('a.png', 32, 32)], 8), 256, [8])
    assert (corner(squares), squares.cuts, squares.remarks) == ((0, 0), ['whole'], [])


def test_large_ones_are_shrunk_to_the_size(save):
    squares = crop_all(read_photographs([save('a.png', 200, 128)], 8), 64, [8])
    assert squares.pixels.shape == (1, 3, 64, 64)
    # half the size, by means of 2 x 2, the middle of 100 columns
    assert corner(squares)[0] == pytest.approx(2 * 18 + 0.5, abs=1)
    assert squares.cuts == ['short side to 64, middle 64 x 64']
    assert squares.remarks == []


def test_one_size_for_all_is_the_smallest_ones(save):
    places = [save('large.png', 100, 100), save('small.png', 40, 60)]
    squares = crop_all(read_photographs(places, 8), 64, [8])
    assert squares.pixels.shape == (2, 3, 40, 40)
    assert squares.cuts == ['short side to 40, middle 40 x 40', 'middle 40 x 40']
    assert corner(squares, 1) == (0, 10)
    assert squares.remarks == ['All images have the size of the smallest, small.png; leave it out to see more.']


def test_a_folder_gives_the_same_few_images_every_time(save, tmp_path):
    for number in range(6):
        save(f'set/{number}.png', 8 + number, 8)
    first, second = (read_photographs([str(tmp_path / 'set')], 2) for _ in range(2))
    assert first.names == second.names
    assert len(first.names) == 2
    assert [f'{image.width - 8}.png' for image in first.images] == first.names
    assert first.remarks == ['2 of the 6 images in set (--limit), always the same.']


def test_unreadable_photographs_are_left_out_and_remarked(save, tmp_path):
    good = save('set/good.png', 8, 8)
    (tmp_path / 'set' / 'bad.png').write_bytes(b'no image')
    photographs = read_photographs([str(tmp_path / 'set')], 8)
    assert photographs.names == ['good.png']
    assert [remark.partition(' (')[0] for remark in photographs.remarks] == [
        'Left out because they cannot be read: bad.png'
    ]
    assert read_photographs([good, str(tmp_path / 'set' / 'bad.png')], 8).names == ['good.png']
    with pytest.raises(ValueError, match='none can be read: bad.png'):
        read_photographs([str(tmp_path / 'set' / 'bad.png')], 8)


def test_mistakes_are_named(save, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file 'nowhere.png'"):
        read_photographs(['nowhere.png'], 8)
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder or zip of images'):
        read_photographs(['nowhere'], 8)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no images in this folder'):
        read_photographs([str(tmp_path / 'empty')], 8)
    photographs = read_photographs([save('a.png', 20, 6)], 8)
    with pytest.raises(ValueError, match='a.png has 20 x 6 pixels.* multiples of 8'):
        crop_all(photographs, 64, [8])
    with pytest.raises(ValueError, match='--size is 4.* multiples of 8'):
        crop_all(photographs, 4, [8])
