"""Shapes: fixed pictures, one scene at every size, statistics near those of photographs."""

import pickle

import numpy as np
import pytest
import torch

from eqzoo.data import Shapes
from eqzoo.data.drawing import BACKGROUNDS, OUTLINES, draw_palette, noise_fields, wave
from eqzoo.data.shapes import render
from eqzoo.registry import build

# Channel means of pictures 0 to 3 of seed 0 at 64 px, recipe 1.
GOLDEN = [[120.48, 114.75, 113.31], [137.07, 87.43, 99.83], [117.93, 129.23, 146.34], [109.95, 80.38, 83.09]]


def pictures(dataset, count):
    return np.stack([dataset[index]['image'].numpy() for index in range(count)]).astype(np.float64)


def test_pictures_are_fixed():
    """Rounding may differ between machines by one grey level here and there, so means are compared."""
    np.testing.assert_allclose(pictures(Shapes(4, 64), 4).mean((2, 3)), GOLDEN, atol=0.05)


def test_a_picture_depends_on_seed_and_index_alone():
    dataset, other = Shapes(50, 32, cache_bytes=0), Shapes(9, 32)
    first = dataset[7]['image']
    torch.manual_seed(0)
    dataset[3]
    assert torch.equal(dataset[7]['image'], first)
    assert torch.equal(other[7, 123]['image'], first)
    assert not torch.equal(dataset[8]['image'], first)


def test_seeds_give_disjoint_sets():
    sets = [{Shapes(200, 16, seed=seed)[index]['image'].numpy().tobytes() for index in range(200)} for seed in (0, 1)]
    assert [len(each) for each in sets] == [200, 200]
    assert not sets[0] & sets[1]


@pytest.mark.parametrize(('size', 'tolerance'), [(32, 5), (128, 5)])
def test_sizes_show_the_same_scene(size, tolerance):
    small, large = sorted((size, 64))
    factor = large // small
    shrunk = pictures(Shapes(20, large), 20).reshape(20, 3, small, factor, small, factor).mean((3, 5))
    assert np.abs(shrunk - pictures(Shapes(20, small), 20)).mean() < tolerance
    assert np.abs(shrunk - np.roll(pictures(Shapes(20, small), 20), 1, 0)).mean() > 40


def test_labels_go_round_and_name_the_main_outline():
    dataset = Shapes(30, 16, num_classes=7)
    assert [dataset[index]['label'] for index in range(9)] == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    assert dataset.classes == list(OUTLINES)[:7]
    different = [(render(0, 3, 64, first) != render(0, 3, 64, second)).any() for first, second in ((0, 1), (4, 9))]
    assert different == [True, True]


def test_statistics_resemble_photographs_and_have_an_up():
    images = pictures(Shapes(200, 64), 200)
    assert 85 < images.mean() < 135
    assert images.std() > 40
    assert (images.mean((2, 3)).std(0) > 15).all()  # pictures differ in colour
    assert images[:, :, :16].mean() > images[:, :, -16:].mean() + 8  # lit from above
    assert abs(images[..., :16].mean() - images[..., -16:].mean()) < 4
    grey = images.mean(1) - images.mean((1, 2, 3))[:, None, None]
    window = np.hanning(64)
    power = (np.abs(np.fft.fft2(grey * window * window[:, None])) ** 2).mean(0)
    steps = np.fft.fftfreq(64, 1 / 64)
    radius, rings = np.hypot(*np.meshgrid(steps, steps)), np.arange(2, 31)
    falling = [power[np.abs(radius - ring) < 0.5].mean() for ring in rings]
    # Photographs fall with an exponent of 2 to 3 (Torralba & Oliva 2003).
    assert -3.2 < np.polyfit(np.log(rings), np.log(falling), 1)[0] < -2
    assert power[1:20, 0].sum() > 1.2 * power[0, 1:20].sum()  # level structures outweigh upright ones


@pytest.mark.parametrize('background', BACKGROUNDS)
def test_backgrounds_fill_the_picture_and_use_their_colours(background):
    noise = noise_fields(np.random.default_rng(1), 32)
    colours = draw_palette(np.random.default_rng(2), 4)
    painted = background(np.random.default_rng(3), colours, noise)
    assert painted.shape == (3, 32, 32)
    assert painted.dtype == np.float32
    assert painted.std((1, 2)).min() > 0.01
    assert np.abs(painted - background(np.random.default_rng(3), 1 - colours, noise)).mean() > 0.05
    assert np.abs(painted - background(np.random.default_rng(4), colours, noise)).mean() > 0.005


@pytest.mark.parametrize('name', OUTLINES)
def test_outlines_are_distances_from_their_edge(name):
    x, y = np.meshgrid(np.linspace(-1.3, 1.3, 261), np.linspace(-1.3, 1.3, 261))
    distance = OUTLINES[name](x, y)
    assert 0.08 < (distance < 0).mean() * 2.6**2 / np.pi < 1
    assert (distance[np.hypot(x, y) > 1.1] > 0).all()
    slope = np.hypot(*np.gradient(distance, 0.01))[np.abs(distance) < 0.02]
    assert abs(np.median(slope) - 1) < 0.02


def test_noise_has_equal_power_in_each_octave_and_lies_flat_in_its_last_field():
    fields = np.stack([noise_fields(np.random.default_rng(seed), 64) for seed in range(30)])
    assert fields.dtype == np.float32
    np.testing.assert_allclose(fields.std((0, 2, 3)), 1, atol=0.12)
    steps = np.square(np.diff(fields, axis=2)).mean((0, 2, 3)), np.square(np.diff(fields, axis=3)).mean((0, 2, 3))
    np.testing.assert_allclose(steps[0][:2], steps[1][:2], rtol=0.15)
    assert steps[0][2] > 4 * steps[1][2]


def test_wave_is_square_and_fades_when_too_fine():
    phase = np.arange(0, 2, 0.05, np.float32)
    assert wave(phase, 0.05).mean() == pytest.approx(0.5, abs=0.02)
    assert set(np.unique(wave(phase + 0.025, 0.001))) == {0, 1}
    assert np.ptp(wave(phase, 2.5)) < 0.1


def test_flip_mirrors_half_of_the_draws():
    plain, flipped = Shapes(4, 16)[1]['image'], Shapes(4, 16, flip=True)
    mirrored = [torch.equal(flipped[1, draw]['image'], plain.flip(2)) for draw in range(200)]
    assert all(torch.equal(flipped[1, draw]['image'], plain) for draw in range(200) if not mirrored[draw])
    assert 80 <= sum(mirrored) <= 120
    again = Shapes(4, 16, flip=True)
    assert mirrored == [torch.equal(again[1, draw]['image'], plain.flip(2)) for draw in range(200)]


@pytest.fixture
def drawn(monkeypatch):
    """An empty cache of drawn pictures."""
    from eqzoo.data import shapes

    monkeypatch.setattr(shapes, '_DRAWN', shapes._Drawn())
    return shapes._DRAWN


def test_cache_keeps_its_limit_and_returns_copies(drawn):
    dataset = Shapes(10, 16, cache_bytes=3 * 3 * 16 * 16)
    for index in range(10):
        dataset[index]
    assert [index for _, index, _, _ in drawn.pictures] == [7, 8, 9]
    assert drawn.num_bytes == 3 * 3 * 16 * 16
    before = dataset[9]['image'].clone()
    dataset[9]['image'].zero_()
    assert torch.equal(dataset[9]['image'], before)
    assert len(pickle.dumps(dataset)) < 1000


def test_sets_of_a_process_draw_a_picture_once(drawn):
    first, same = Shapes(10, 16), Shapes(6, 16)
    others = [Shapes(10, 16, seed=1), Shapes(10, 32), Shapes(10, 16, num_classes=3)]
    first[5]
    (kept,) = drawn.pictures.values()
    kept[:] = 7  # the next set returns these pixels if it draws nothing
    assert torch.equal(same[5]['image'], torch.full((3, 16, 16), 7, dtype=torch.uint8))
    assert not any((other[5]['image'] == 7).all() for other in others)
    assert not (Shapes(10, 16, cache_bytes=0)[5]['image'] == 7).all()


def test_a_limit_below_one_picture_caches_nothing(drawn):
    Shapes(2, 16, cache_bytes=100)[0]
    assert not drawn.pictures


def test_identity_and_description_differ_between_sets():
    base = dict(num_images=20, size=16, num_classes=10, seed=0, flip=False)
    identity = Shapes(**base).identity()
    assert identity.items() >= {'kind': 'Shapes', 'recipe': 1, **base}.items()
    changes = dict(num_images=21, size=17, num_classes=9, seed=1, flip=True)
    hashes = {Shapes(**{**base, key: value}).identity()['sha256'] for key, value in changes.items()}
    assert len(hashes | {identity['sha256']}) == 6
    assert Shapes(20, 16, seed=1).describe() == 'Shapes: 20 built-in pictures of 10 shapes, seed 1, 16 px'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_images=0), 'num_images must be at least 1, got 0'),
        (dict(size=15), 'size must be at least 16, got 15'),
        (dict(num_classes=11), r'num_classes must be in \[1, 10\], got 11'),
        (dict(seed=-1), 'seed must be at least 0, got -1'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**arguments)


def test_smoke_shrinks():
    assert Shapes.smoke(dict(num_images=5000, size=256, seed=1)) == dict(num_images=16, size=64, seed=1)
    assert Shapes.smoke(dict(num_images=8, size=32)) == dict(num_images=8, size=32)
    dataset = build(dict(type='Shapes', **Shapes.smoke({})))
    assert (len(dataset), dataset[15]['image'].shape) == (16, (3, 64, 64))
