"""Crops: values against formulas, sizes for awkward inputs."""

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from eqzoo.data import ImageFolder
from eqzoo.data.crops import CROPS, center, exact, random_square


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_center_of_the_right_size_is_cut_without_resampling():
    image = picture(8, 13)
    np.testing.assert_array_equal(center(image, 8, None), np.asarray(image)[:, 2:10])


def test_center_halves_by_box_averages():
    image = picture(32, 32)
    expected = np.asarray(image).astype(int)
    for _ in range(2):  # Pillow goes across, then down, and rounds halves up each time
        expected = (expected[:, ::2] + expected[:, 1::2] + 1) // 2
        expected = (expected[::2] + expected[1::2] + 1) // 2
    np.testing.assert_array_equal(center(image, 8, None), expected)


def test_center_follows_adm_between_powers_of_two():
    image = picture(30, 50)  # halved to 15 x 25, then short side 10 by bicubic, 10 x 17
    small = image.resize((25, 15), Image.Resampling.BOX).resize((17, 10), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(center(image, 10, None), np.asarray(small)[:, 3:13])


def test_random_square_is_the_released_recipe():
    image, rng = picture(20, 30), np.random.default_rng(5)
    side = int(20 * rng.uniform(0.5, 1.0))
    left, top = int(rng.integers(31 - side)), int(rng.integers(21 - side))
    expected = cv2.resize(
        np.asarray(image)[top : top + side, left : left + side].copy(), (8, 8), interpolation=cv2.INTER_AREA
    )
    np.testing.assert_array_equal(random_square(image, 8, np.random.default_rng(5)), expected)


def test_random_square_covers_sides_and_places():
    rows, columns = np.mgrid[:40, :60]
    image = Image.fromarray(np.stack([rows, columns, rows * 0], 2).astype(np.uint8))
    seen = [random_square(image, 2, np.random.default_rng([0, draw])).astype(float) for draw in range(300)]
    # Two samples of a ramp lie half a side apart.
    sides = np.array([2 * (pixels[1, 0, 0] - pixels[0, 0, 0]) for pixels in seen])
    assert 20 <= sides.min() <= 21
    assert 38 <= sides.max() <= 40
    middles = np.array([pixels[..., 1].mean() for pixels in seen])
    assert middles.min() < 13
    assert middles.max() > 46


@pytest.mark.parametrize('crop', [name for name in CROPS if name != 'exact'])
@pytest.mark.parametrize(('height', 'width'), [(1, 1), (3, 200), (200, 3), (1, 40_000), (17, 16)])
def test_any_size_gives_a_full_square(crop, height, width):
    image = Image.new('RGB', (width, height), (10, 200, 30))
    pixels = CROPS[crop](image, 16, np.random.default_rng(0))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8([10, 200, 30]), (16, 16, 3)))


@pytest.mark.parametrize(
    ('crop', 'steps'),
    [
        ('resize_tensor', [transforms.ToTensor(), transforms.Resize(20, antialias=True)]),
        ('resize_tensor_aliased', [transforms.ToTensor(), transforms.Resize(20, antialias=False)]),
        ('resize_pil', [transforms.Resize(20), transforms.ToTensor()]),
    ],
)
def test_resize_crops_equal_torchvision(crop, steps):
    image = picture(45, 61)
    expected = transforms.Compose([*steps, transforms.CenterCrop(20)])(image).numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(CROPS[crop](image, 20, None) / 255, expected, atol=0.5001 / 255)


def test_the_ways_to_resize_differ():
    image = picture(45, 61)
    pixels = [CROPS[crop](image, 20, None).astype(int) for crop in CROPS if crop.startswith('resize')]
    assert np.abs(pixels[0] - pixels[1]).mean() > 5  # what antialiasing does
    assert np.abs(pixels[0] - pixels[2]).max() in (1, 2)  # Pillow's rounding between its two passes


def test_exact_refuses_other_sizes(tmp_path):
    image = picture(12, 12)
    np.testing.assert_array_equal(exact(image, 12, None), np.asarray(image))
    picture(12, 12).save(tmp_path / 'a.png')
    picture(13, 12).save(tmp_path / 'b.png')
    data = ImageFolder(str(tmp_path), 12, crop='exact')
    np.testing.assert_array_equal(data[0]['image'].permute(1, 2, 0), np.asarray(image))
    with pytest.raises(ValueError, match="b.png: 12 x 13 pixels; crop='exact' accepts 12 x 12"):
        data[1]
