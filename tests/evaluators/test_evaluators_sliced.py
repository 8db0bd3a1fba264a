"""Sliced Wasserstein distance: the pyramid, the patches' places, the distance itself, and its sensitivity."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from eqzoo.data import Shapes
from eqzoo.evaluators.sliced import (
    _wasserstein,
    laplacian_pyramid,
    num_levels,
    patches,
    patches_per_image,
    sliced_wasserstein,
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def uint8(*shape, seed=0):
    return torch.randint(256, shape, generator=generator(seed), dtype=torch.uint8)


def test_the_pyramid_is_pro_gans():
    """Karras et al.: scipy's mirrored filter of 5 x 5, every second pixel, and four times the filter upwards."""
    images = uint8(2, 3, 64, 32).float()
    taps = np.array([1, 4, 6, 4, 1]) / 16
    kernel = (taps[:, None] * taps[None, :])[None, None]

    def blur(x, gain=1):
        return scipy.ndimage.convolve(x, kernel * gain, mode='mirror')

    fine = images.double().numpy()
    small = blur(fine)[:, :, ::2, ::2]
    spread = np.zeros_like(fine)
    spread[:, :, ::2, ::2] = small
    pyramid = laplacian_pyramid(images, 2)
    assert num_levels((64, 32)) == 2
    torch.testing.assert_close(pyramid[1].double(), torch.from_numpy(small), rtol=0, atol=1e-3)
    torch.testing.assert_close(pyramid[0].double(), torch.from_numpy(fine - blur(spread, 4)), rtol=0, atol=1e-3)


def test_a_constant_image_has_no_detail():
    fine, coarse = laplacian_pyramid(torch.full((1, 1, 32, 32), 100.0), 2)
    torch.testing.assert_close(coarse, torch.full((1, 1, 16, 16), 100.0))
    torch.testing.assert_close(fine, torch.zeros(1, 1, 32, 32), rtol=0, atol=1e-4)


def test_levels_by_size():
    assert [num_levels((side, side)) for side in (16, 31, 32, 48, 64, 256)] == [1, 1, 2, 2, 3, 5]
    with pytest.raises(ValueError, match=r'swd: images of \(15, 64\) pixels; expected at least 16'):
        num_levels((15, 64))


def test_patches_are_cut_from_the_image():
    images = uint8(2, 3, 16, 20)
    (level,) = patches(images, torch.arange(2), 40)
    assert level.shape == (2, 40, 3 * 49)
    windows = images.float().unfold(2, 7, 1).unfold(3, 7, 1).permute(0, 2, 3, 1, 4, 5).reshape(2, 10 * 14, -1)
    for cut, own in zip(level.float(), windows, strict=True):
        places = torch.cdist(cut, own).min(dim=1)
        assert places.values.max() == 0
        assert len(places.indices.unique()) > 20  # of 140 places
    assert level.dtype == torch.float16


def test_places_belong_to_the_images_numbers():
    images, numbers = uint8(4, 3, 32, 32), torch.tensor([7, 0, 3, 9])
    whole = patches(images, numbers, 8)
    parts = [patches(images[part], numbers[part], 8) for part in (slice(0, 1), slice(1, 4))]
    for level, *pieces in zip(whole, *parts, strict=True):
        assert torch.equal(level, torch.cat(pieces))
    same = patches(images[:1].expand(2, -1, -1, -1), torch.tensor([0, 1]), 8)
    assert not torch.equal(same[0][0], same[0][1])  # equal images of other numbers are cut elsewhere


def test_kept_patches_do_not_grow_with_the_set():
    for num_images in (1, 1000, 5000, 50_000, 100_000):
        assert num_images * patches_per_image(num_images) <= 1 << 17
    assert patches_per_image(10) == 128
    assert patches_per_image(40_000) == 3
    assert patches_per_image(1 << 20) == 1


@pytest.mark.parametrize(('n', 'm'), [(50, 50), (50, 75), (7, 48), (1, 5), (64, 16)])
def test_the_distance_of_projections_is_scipys(n, m):
    a, b = torch.randn(3, n, generator=generator(1)), 2 * torch.randn(3, m, generator=generator(2)) + 1
    found = _wasserstein(a.sort(dim=1).values, b.sort(dim=1).values)
    expected = [scipy.stats.wasserstein_distance(x, y) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_contrast_and_colour_of_a_whole_set_do_not_count():
    first = torch.randn(4000, 147, generator=generator(1))
    scales = torch.tensor([3.0, 0.1, 20.0]).repeat_interleave(49)
    assert sliced_wasserstein([first], [first * scales - 2 * scales]).mean < 1e-3
    by_place = torch.linspace(0.5, 2, 49).repeat(3)  # not by channel: that is seen
    assert sliced_wasserstein([first], [first * by_place]).mean > 10


def test_the_value_is_a_thousand_times_the_distance_along_unit_directions():
    """Half the patches small, half large, of variance 1 together: every projection is a known mixture."""
    first, second = (torch.randn(20_000, 147, generator=generator(seed)) for seed in (1, 2))
    small, large = 0.5, 1.75**0.5
    second[::2] *= small
    second[1::2] *= large
    x = np.linspace(-8, 8, 20_001)
    normal = scipy.stats.norm.cdf
    gap = np.abs(normal(x) - (normal(x / small) + normal(x / large)) / 2)
    expected = 1000 * gap.sum() * (x[1] - x[0])
    assert sliced_wasserstein([first], [second]).mean == pytest.approx(expected, rel=0.02)


def test_identical_sets_have_zero_and_order_does_not_count():
    images = uint8(40, 3, 32, 32)
    first = patches(images, torch.arange(40), 32)
    assert sliced_wasserstein(first, first) == (0.0, (0.0, 0.0))
    second = patches(uint8(40, 3, 32, 32, seed=1), torch.arange(40), 32)
    order = torch.randperm(40, generator=generator(4))
    plain, mixed = sliced_wasserstein(first, second), sliced_wasserstein([x[order] for x in first], second)
    assert plain.mean == pytest.approx(mixed.mean, rel=1e-5)
    assert plain.mean == pytest.approx(sum(plain.levels) / 2)


def shapes(count, start):
    dataset = Shapes(count + start, size=32)
    return torch.stack([torch.as_tensor(dataset[i]['image']) for i in range(start, start + count)])


def test_it_grows_with_noise_and_blur():
    images, numbers = shapes(100, 0), torch.arange(100)
    reference = patches(shapes(100, 100), numbers, 32)

    def distance(damaged):
        return sliced_wasserstein(reference, patches(damaged.round().clamp(0, 255).byte(), numbers, 32)).mean

    x, noise = images.float(), torch.randn(images.shape, generator=generator(5))
    by_noise = [distance(x + sigma * noise) for sigma in (0, 4, 8, 16)]
    by_blur = [distance(torch.from_numpy(scipy.ndimage.gaussian_filter(x.numpy(), (0, 0, s, s)))) for s in (0.6, 1.5)]
    assert by_noise == sorted(by_noise)
    assert [by_noise[0], *by_blur] == sorted([by_noise[0], *by_blur])
    assert by_noise[-1] > 2 * by_noise[0]


def test_refusals():
    with pytest.raises(TypeError, match='swd: images must be uint8, got torch.float32'):
        patches(torch.zeros(1, 3, 32, 32), torch.arange(1), 4)
    first, second = patches(uint8(2, 3, 32, 32), torch.arange(2), 4), patches(uint8(2, 3, 16, 16), torch.arange(2), 4)
    with pytest.raises(ValueError, match='swd: the sets have levels of .*; expected images of one size'):
        sliced_wasserstein(first, second)
    with pytest.raises(ValueError, match='swd: a set has 1 patches; expected at least 2'):
        sliced_wasserstein([torch.zeros(1, 147)], [torch.zeros(4, 147)])
