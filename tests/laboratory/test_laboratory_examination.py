"""Examination of an autoencoder with known latents, and the choice of angles and scales."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from eqzoo.evaluators import (
    AutoencoderView,
    EffectiveRank,
    EquivarianceError,
    LatentSpectrum,
    ReconstructionMetric,
    SpatialStructure,
    VelocityVariance,
)
from eqzoo.laboratory import choose_cases, examine


@pytest.fixture
def cases():
    return choose_cases([15, 90, 180], [0.5, 0.75], [(8, 8)])


def test_an_equivariant_autoencoder_has_no_error_without_resampling(pooling, pixels, cases):
    found = examine(pooling(), pixels, cases, shown=2)
    assert found.metrics['eq_err/rotation'] == pytest.approx(0, abs=1e-10)
    angles, errors = found.curves['eq_err/turn']
    assert angles == [0, 15, 90, 180]
    assert errors[0] == 0
    assert errors[2:] == pytest.approx([0, 0], abs=1e-8)
    assert errors[1] > 1e-3
    scales, close = found.curves['eq_rec/scale']
    assert scales == [0.5, 0.75, 1]
    assert close[-1] == found.metrics['psnr'] == pytest.approx(sum(found.psnr) / 3)
    assert found.curves['eq_rec/turn'][1][0] == found.metrics['psnr']


def test_an_autoencoder_whose_latents_depend_on_the_place_has_an_error(pooling, pixels, cases):
    found, equivariant = (examine(pooling(pattern), pixels, cases, shown=1) for pattern in (1.0, 0.0))
    assert found.psnr == pytest.approx(equivariant.psnr)  # the decoder subtracts the slope
    assert found.curves['eq_err/turn'][1][3] > 0.5
    assert found.transformed['turn']['180'].psnr[0] < equivariant.transformed['turn']['180'].psnr[0] - 5


def test_values_are_those_of_the_evaluators(pooling, pixels, cases):
    found = examine(pooling(0.3), pixels, cases, shown=1)
    view = AutoencoderView(pooling(0.3), pixels / 127.5 - 1)
    measure = EquivarianceError({'turn': cases.turn, 'scale': cases.scale}, image_side=True)
    for evaluator in (measure, reconstruction := ReconstructionMetric()):
        evaluator.process(view)
    expected = measure.evaluate(3)
    for kind in ('eq_err', 'eq_rec'):
        for transform, names in (('turn', ['15', '90', '180']), ('scale', ['0.5', '0.75'])):
            own = [expected[f'{kind}/{transform}/{name}'] for name in names]
            curve = found.curves[f'{kind}/{transform}'][1]
            assert (curve[1:] if transform == 'turn' else curve[:-1]) == pytest.approx(own, rel=1e-5, abs=1e-9)
    assert found.metrics['ssim'] == pytest.approx(reconstruction.evaluate(3)['ssim'])
    assert found.cases['eq_err/turn/15'] == pytest.approx(expected['eq_err/turn/15'])
    assert not set(found.cases) & set(found.metrics)


def test_predictors_are_those_of_the_evaluators(pooling, pixels, cases):
    more = torch.cat([pixels, pixels.flip(2)])
    found = examine(pooling(0.3), more, cases, shown=1)
    view = AutoencoderView(pooling(0.3), more / 127.5 - 1)
    for evaluator in (EffectiveRank(), LatentSpectrum(), SpatialStructure(), VelocityVariance()):
        evaluator.process(view)
        expected = evaluator.evaluate(6)
        measured = {**found.metrics, **found.cases}
        assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    # three images are too few for a covariance
    assert 'viv' not in examine(pooling(0.3), pixels, cases, shown=1).metrics


def test_a_picture_s_psnr_is_the_measure_of_that_image(pooling, pixels, cases):
    shown = examine(pooling(0.3), pixels, cases, shown=2).transformed['turn']['15']
    alone = examine(pooling(0.3), pixels[1:2], cases, shown=1)
    # without the border, as in the evaluator
    assert shown.psnr[1] == pytest.approx(alone.cases['eq_rec/turn/15'], abs=1e-4)
    assert shown.psnr[1] != pytest.approx(shown.psnr[0], abs=0.01)


def test_pictures_are_of_the_first_images(pooling, pixels, cases):
    found = examine(pooling(), pixels, cases, shown=2)
    images = pixels / 127.5 - 1
    latents = F.avg_pool2d(images, 4) * 2  # in generator units
    torch.testing.assert_close(found.latents, latents)
    assert found.reconstructions.shape == (2, 3, 32, 32)
    quarter = found.transformed['turn']['90']
    torch.testing.assert_close(quarter.target, images[:2].rot90(1, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(quarter.latents, latents[:2].rot90(1, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(quarter.encoded, quarter.latents, atol=1e-4, rtol=0)
    torch.testing.assert_close(quarter.decoded, found.reconstructions.rot90(1, (2, 3)), atol=1e-4, rtol=0)
    half = found.transformed['scale']['0.5']
    assert half.decoded.shape == half.target.shape == (2, 3, 16, 16)
    assert half.latents.shape == half.encoded.shape == (2, 3, 4, 4)
    assert len(half.psnr) == 2


def test_batches_change_nothing(pooling, pixels, cases, monkeypatch):
    together = examine(pooling(0.3), pixels, cases, shown=2)
    monkeypatch.setattr('eqzoo.laboratory.examination._BATCH_PIXELS', 1)
    alone = examine(pooling(0.3), pixels, cases, shown=2)
    assert alone.metrics == pytest.approx(together.metrics)
    assert alone.psnr == pytest.approx(together.psnr)
    torch.testing.assert_close(alone.transformed['turn']['15'].decoded, together.transformed['turn']['15'].decoded)


def test_values_that_are_not_finite_are_none(pooling, pixels, cases):
    found = examine(pooling(), torch.full_like(pixels, 7), cases, shown=1)
    assert found.metrics['eq_err/turn'] is None
    assert found.metrics['psnr'] == pytest.approx(100)


def test_small_latents_have_no_spectrum(pooling, pixels):
    small = F.interpolate(pixels.float(), 12).byte()
    assert 'spectrum' not in examine(pooling(), small, choose_cases([90], [0.5], [(3, 3)]), shown=1).curves
    smooth = torch.arange(0, 256, 8, dtype=torch.uint8).expand(3, 3, 32, 32)
    frequencies, powers = examine(pooling(), smooth, choose_cases([90], [0.5], [(8, 8)]), shown=1).curves['spectrum']
    assert len(frequencies) == len(powers) > 3
    assert powers[0] > 10 * powers[-1]


def test_possible_angles_and_scales_are_kept():
    turn, scale, remarks = choose_cases([5, 180], [0.25, 0.5], [(8, 8), (32, 32)])
    assert turn.cases((8, 8)) == {'5': 5.0, '180': 180.0}
    assert list(scale.cases((8, 8))) == ['0.5', '0.25']
    assert remarks == []
    assert (scale.interpolation, scale.antialias) == ('bicubic', True)


def test_scales_are_rounded_to_whole_cells_of_the_coarsest_latents():
    _, scale, remarks = choose_cases([90], [0.25, 0.5, 0.99], [(6, 6), (12, 12)])
    assert [pair[0] for pair in scale.cases((6, 6)).values()] == [Fraction(5, 6), Fraction(1, 2), Fraction(1, 3)]
    assert remarks == ['Scales rounded to whole cells: 0.333, 0.5, 0.833.']


def test_angles_that_leave_no_cell_are_left_out():
    turn, _, remarks = choose_cases([45, 90], [0.5], [(4, 4), (16, 16)])
    assert turn.eval_angles == (90,)
    assert [remark.partition(',')[0] for remark in remarks] == ['Left out: 45°']
    assert choose_cases([45, 90], [0.5], [(16, 16)]).turn.eval_angles == (45, 90)


@pytest.mark.parametrize(
    ('angles', 'scales', 'grid', 'message'),
    [
        ([0], [0.5], (8, 8), 'Turn.eval_angles must be'),
        ([5], [1.5], (8, 8), r'eval_scales\[0\] must be'),
        ([45], [0.5], (4, 4), 'latents of 4 x 4 cells; use larger images'),
        ([90], [0.5], (1, 1), 'use larger images'),
    ],
)
def test_impossible_angles_and_scales_are_refused(angles, scales, grid, message):
    with pytest.raises(ValueError, match=message):
        choose_cases(angles, scales, [grid])
