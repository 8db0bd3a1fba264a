"""Transforms at the same size by resampling (Affine, Perspective, Warp): alignment, masks, precision, arguments."""

import math

import pytest
import torch
import torch.nn.functional as F
from resampling_signals import coordinates, randn, waves

from eqzoo.transforms import Affine, Choice, Compose, IsotropicScale, Motion, Perspective, Resampled, Turn, Warp

CLASSES = [Affine, Perspective, Warp]
SIZES = [(24, 24), (20, 32)]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def params_of(cls, draws=4):
    """The cases and some draws, by name."""
    drawn = {f'draw {seed}': cls().sample(seeded(seed), (8, 8)) for seed in range(draws)}
    return {**cls().cases((8, 8)), **drawn}


ALL = [
    pytest.param(cls, params, id=f'{cls.__name__} {name}') for cls in CLASSES for name, params in params_of(cls).items()
]


@pytest.mark.parametrize(('cls', 'params'), ALL)
@pytest.mark.parametrize('grid', [(32, 32), (24, 40)])
def test_images_and_latents_stay_aligned(cls, params, grid):
    """Pooling after the transform agrees with pooling before it within 1/200 cell, at 8 pixels per cell."""
    transform = cls(interpolation='bilinear')
    inside = transform.mask(grid, params)
    assert inside.sum() > 0.3 * inside.numel()
    pixels = (8 * grid[0], 8 * grid[1])
    fine = F.avg_pool2d(transform((coordinates(*pixels) - 3.5) / 8, params), 8)
    coarse = transform(coordinates(*grid), params)
    # affine maps commute with means exactly, others up to their curvature within a cell
    torch.testing.assert_close(fine[..., inside], coarse[..., inside], rtol=0, atol=1e-9 if cls is Affine else 0.005)


@pytest.mark.parametrize(('cls', 'params'), ALL)
def test_smooth_signals_stay_aligned(cls, params):
    """Within the error of torch's bicubic (a = -0.75); an offset of half a cell gives ten times as much."""
    grid, images = (32, 48), waves(256, 384)
    inside = cls().mask(grid, params)
    pooled, fine = F.avg_pool2d(images, 8), F.avg_pool2d(cls()(images, params), 8)
    assert (cls()(pooled, params) - fine)[..., inside].abs().max() < 0.012
    off = F.avg_pool2d(images.roll(4, dims=3), 8)  # the counter-example
    assert (cls()(off, params) - fine)[..., inside].abs().max() > 0.09


@pytest.mark.parametrize(('cls', 'params'), ALL)
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('interpolation', ['bicubic', 'bilinear'])
def test_the_mask_leaves_out_the_filled_border(cls, params, size, interpolation, monkeypatch):
    """With zeros in place of the mirror image, ones stay ones only where no value comes from beyond the border."""
    transform = cls(interpolation=interpolation)
    sampled = F.grid_sample
    monkeypatch.setattr(
        F, 'grid_sample', lambda *arguments, padding_mode, **others: sampled(*arguments, padding_mode='zeros', **others)
    )
    came_in = (transform(torch.ones(1, 1, *size).double(), params)[0, 0] - 1).abs() > 1e-9
    mask = transform.mask(size, params)
    assert came_in.any() or interpolation == 'bilinear' or params == Motion(zoom=1.25)
    assert mask.any()
    assert not (came_in & mask).any()


@pytest.mark.parametrize(('cls', 'params'), ALL)
@pytest.mark.parametrize('size', SIZES)
def test_the_mask_leaves_out_little_more(cls, params, size):
    """Values from more than two cells inside the outermost ones stay."""
    sources = cls().sources(*coordinates(*size)[0], size, params)
    edges = torch.stack([torch.minimum(s, side - 1 - s) for s, side in zip(sources, size, strict=True)]).amin(dim=0)
    assert cls().mask(size, params)[edges > 2].all()


@pytest.mark.parametrize(('cls', 'params'), ALL)
@pytest.mark.parametrize('cell', [4, 8])
def test_the_mask_of_latents_covers_only_valid_pixels(cls, params, cell):
    """The mask of latents is valid for all pixels that an encoder sees."""
    for grid in [(16, 16), (12, 20)]:
        pixels = cls().mask((cell * grid[0], cell * grid[1]), params)
        whole = F.avg_pool2d(pixels[None, None].float(), cell)[0, 0] == 1
        assert not (cls().mask(grid, params) & ~whole).any()


def test_the_mask_considers_the_squares_of_cells():
    """The counter-example: for a narrow, turned image, cells with inside sources have pixels from outside."""
    affine, motion, size = Affine(), Motion(zoom=0.5, stretch=2.0, angle=45.0), (23, 23)
    sources = torch.stack(affine.sources(*coordinates(*size)[0], size, motion))
    deep = ((sources >= 1) & (sources <= 21)).all(dim=0)
    pixels = affine.mask((4 * 23, 4 * 23), motion)
    whole = F.avg_pool2d(pixels[None, None].float(), 4)[0, 0] == 1
    assert (deep & ~whole).any()
    mask = affine.mask(size, motion)
    assert not (mask & ~whole).any()
    other = affine.mask(size, motion._replace(angle=-45.0))
    assert torch.equal(mask, mask.rot90(2))  # all four corners count
    assert torch.equal(other, mask.flip(1))


@pytest.mark.parametrize('cls', CLASSES)
def test_the_border_is_filled_with_the_mirror_image(cls):
    """A mirrored picture of nine times the size shows what is beyond the border."""
    x = randn(1, 1, 12, 12)
    wide = torch.cat([x.flip(3), x, x.flip(3)], dim=3)
    wide = torch.cat([wide.flip(2), wide, wide.flip(2)], dim=2)

    class Within(Resampled):
        interpolation = 'bicubic'

        def sample(self, generator, grid): ...

        def sources(self, rows, columns, size, params):
            rows, columns = cls().sources(rows - 12, columns - 12, (12, 12), params)
            return rows + 12, columns + 12

    for params in params_of(cls).values():
        wanted = Within()(wide, params)[..., 12:24, 12:24]
        torch.testing.assert_close(cls()(x, params), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize(('cls', 'params'), ALL)
def test_constants_stay_constant_and_half_precision_is_resampled_in_single(cls, params):
    x = torch.full((1, 2, 16, 24), 0.7, dtype=torch.float64)
    torch.testing.assert_close(cls()(x, params), x, rtol=0, atol=1e-12)
    half = randn(1, 2, 16, 16).to(torch.bfloat16)
    assert torch.equal(cls()(half, params), cls()(half.float(), params).to(torch.bfloat16))


@pytest.mark.parametrize('cls', CLASSES)
def test_meta_tensors_give_the_size_alone(cls):
    params = cls().sample(seeded(0), (8, 8))
    x = torch.empty(2, 3, 16, 24, dtype=torch.float16, device='meta')
    assert cls()(x, params).is_meta
    assert cls()(x, params).shape == x.shape
    assert cls()(x, params).dtype == torch.float16


@pytest.mark.parametrize('cls', CLASSES)
def test_params_are_plain_numbers(cls):
    def leaves(value):
        return [leaf for each in value for leaf in leaves(each)] if isinstance(value, tuple) else [value]

    for params in params_of(cls).values():
        assert {type(leaf) for leaf in leaves(params)} == {float}
        hash(params)


def test_they_compose_with_other_transforms():
    compose = Compose([IsotropicScale(), Affine(), Perspective(), Warp()])
    params = compose.sample(seeded(0), (16, 16))
    assert compose(randn(1, 1, 64, 64), params).shape[2:] == compose.mask((64, 64), params).shape
    assert 0.2 < compose.mask((64, 64), params).float().mean() < 0.9
    choice = Choice([Affine(), Warp()])
    own = Warp().sample(seeded(0), (16, 16))
    assert torch.equal(choice.mask((16, 16), (1, own)), Warp().mask((16, 16), own))


def test_case_names_are_numbers_where_there_is_one_parameter():
    """The curves of an evaluation are drawn over them."""
    for transform in (Perspective(), Warp(), Perspective(eval_angles=(-10, 2.5))):
        assert transform.parameter
        assert [float(name) for name in transform.cases((8, 8))]
    assert Affine().parameter is None
    assert list(Perspective(eval_angles=(-10, 2.5)).cases((8, 8)).items()) == [
        ('-10', (-10.0, 0.0)),
        ('2.5', (2.5, 0.0)),
    ]


@pytest.mark.parametrize('cls', [*CLASSES, Turn])
def test_the_interpolation_changes_something(cls):
    x, params = randn(1, 1, 16, 16), cls().sample(seeded(0), (8, 8))
    assert not torch.allclose(cls(interpolation='bilinear')(x, params), cls()(x, params), atol=1e-3)


@pytest.mark.parametrize(
    ('changed', 'part'),
    [
        (dict(max_angle=10), 'angle'),
        (dict(min_zoom=0.9), 'zoom'),
        (dict(max_zoom=1.5), 'zoom'),
        (dict(max_stretch=1.5), 'stretch'),
        (dict(max_shear=30), 'shear'),
        (dict(max_shift=0.25), 'shift'),
    ],
)
def test_every_argument_of_affine_changes_only_its_part(changed, part):
    drawn, plain = Affine(**changed).sample(seeded(0), (8, 8)), Affine().sample(seeded(0), (8, 8))
    assert [name for name in Motion._fields if getattr(drawn, name) != getattr(plain, name)] == [part]
    assert Affine(**changed).cases((8, 8)) != Affine().cases((8, 8))


def test_every_argument_of_perspective_and_warp_changes_something():
    assert Perspective(10).sample(seeded(0), (8, 8))[0] == pytest.approx(Perspective().sample(seeded(0), (8, 8))[0] / 3)
    x = randn(1, 1, 16, 16)
    assert not torch.allclose(Perspective(field_of_view=20)(x, (20.0, 0.0)), Perspective()(x, (20.0, 0.0)), atol=1e-3)
    assert Perspective(eval_angles=(7,)).cases((4, 8)) == {'7': (7.0, 0.0)}
    (small, *_), (plain, *_) = Warp(0.05).sample(seeded(0), (8, 8)), Warp().sample(seeded(0), (8, 8))
    assert small == pytest.approx([each / 3 for each in plain])
    assert [len(part) for part in Warp(modes=2, eval_amplitudes=(0.1,)).sample(seeded(0), (8, 8))] == [3, 3]
    assert Warp(modes=1, eval_amplitudes=(0.04,)).cases((4, 8)) == {'0.04': ((0.04,), (-0.04,))}


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Affine(181), r'Affine.max_angle must be in \[0, 180\], got 181\.'),
        (lambda: Affine(min_zoom=0.4), r'Affine.min_zoom must be in \[0.5, 1\], got 0.4\.'),
        (lambda: Affine(max_zoom=math.nan), r'Affine.max_zoom must be a number, got nan\.'),
        (lambda: Affine(max_stretch=0.8), r'Affine.max_stretch must be in \[1, 2\], got 0.8\.'),
        (lambda: Affine(max_shear=-1), r'Affine.max_shear must be in \[0, 45\], got -1\.'),
        (lambda: Affine(max_shift=0.6), r'Affine.max_shift must be in \[0, 0.5\], got 0.6\.'),
        (
            lambda: Affine(interpolation='nearest'),
            r"Affine.interpolation must be 'bicubic' or 'bilinear', got",
        ),
        (
            lambda: Affine(0, min_zoom=1, max_zoom=1, max_stretch=1, max_shear=0, max_shift=0),
            'Affine: only the identity',
        ),
        (
            lambda: Perspective(0),
            r'Perspective.max_angle must be above 0, got 0',
        ),
        (
            lambda: Perspective(field_of_view=90),
            r'Perspective.max_angle must be .* at most 19.5 degrees, for a field of view of 90, got 30\.',
        ),
        (lambda: Perspective(field_of_view=0), r'Perspective.field_of_view must be in \(0, 120\], got 0\.'),
        (
            lambda: Perspective(interpolation='area'),
            r"Perspective.interpolation must be 'bicubic' or 'bilinear', got 'area'\.",
        ),
        (
            lambda: Perspective(eval_angles=(0, 10)),
            r'Perspective.eval_angles must be .* at most 37.2 degrees.*, got \(0, 10\)\.',
        ),
        (lambda: Perspective(eval_angles=(-40,)), r'Perspective.eval_angles must be .*, got \(-40,\)\.'),
        (lambda: Perspective(eval_angles=10), r'Perspective.eval_angles must be .*, got 10\.'),
        (
            lambda: Warp(0.2),
            r'Warp.amplitude must be above 0 and below 0.1945 of the side, or 3 modes might fold, got 0.2',
        ),
        (
            lambda: Warp(modes=5),
            r'Warp.amplitude must be above 0 and below 0.1454 of the side, or 5 modes .*, got 0.15\.',
        ),
        (lambda: Warp(0), r'Warp.amplitude must be above 0, got 0\.'),
        (lambda: Warp(modes=0), r'Warp.modes must be at least 1, got 0\.'),
        (lambda: Warp(interpolation='area'), r"Warp.interpolation must be 'bicubic' or 'bilinear', got 'area'\."),
        (
            lambda: Warp(eval_amplitudes=(0.1, 0.2)),
            r'Warp.eval_amplitudes must be one or more numbers above 0 and below 0.1945, got \(0.1, 0.2\)\.',
        ),
        (lambda: Warp(eval_amplitudes=()), r'Warp.eval_amplitudes must be .*, got \(\)\.'),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_modes_must_be_whole():
    with pytest.raises(ValueError, match=r'Warp.modes must be a whole number of at least 1, got 2.5\.'):
        Warp(modes=2.5)
