"""What Shift and Turn, which resample, have in common: constants, precision, and arguments."""

import math
from fractions import Fraction

import pytest
import torch
from signals import randn

from eqzoo.transforms import Shift, Turn

NONE = Fraction(0)


def test_constants_stay_constant():
    x = torch.full((1, 2, 16, 24), 0.7, dtype=torch.float64)
    for transform in (Shift(), Shift(interpolation='bilinear'), Turn(), Turn(interpolation='bilinear')):
        for params in transform.cases((8, 12)).values():
            torch.testing.assert_close(transform(x, params), x, rtol=0, atol=1e-12)


def test_every_argument_changes_something():
    x = randn(1, 1, 16, 16)
    params = (Fraction(1, 32), NONE)
    assert not torch.allclose(Shift()(x, params), Shift(interpolation='bilinear')(x, params))
    assert not torch.allclose(Turn()(x, 20.0), Turn(interpolation='bilinear')(x, 20.0))
    assert Shift(eval_shifts=(0.5,)).cases((4, 8)) == {'0.5': (Fraction(1, 8), Fraction(1, 16))}
    assert Turn(eval_angles=(10,)).cases((4, 8)) == {'10': 10.0}
    drawn = [Shift(2, steps=1).sample(torch.Generator().manual_seed(seed), (8, 8))[0] for seed in range(200)]
    assert set(drawn) == {Fraction(k, 8) for k in range(-2, 3)}


@pytest.mark.parametrize('transform', [Shift(), Shift(interpolation='bilinear'), Turn()])
def test_half_precision_is_resampled_in_single(transform):
    x = randn(1, 2, 16, 16).to(torch.bfloat16)
    (_, params), *_ = transform.cases((16, 16)).items()
    assert torch.equal(transform(x, params), transform(x.float(), params).to(torch.bfloat16))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Shift(0.1), 'Shift.maximum must be at least 1/8 cell, the smallest step, got 0.1'),
        (lambda: Shift(math.nan), 'Shift.maximum must be at least'),
        (lambda: Shift(steps=0), 'Shift.steps must be at least 1, got 0'),
        (
            lambda: Shift(interpolation='bicubic'),
            r"Shift.interpolation must be one of \('fourier', 'bilinear'\), got 'bic",
        ),
        (lambda: Shift(eval_shifts=()), r'Shift.eval_shifts must be one or more numbers of cells but 0, got \(\)'),
        (lambda: Shift(eval_shifts=(0, 1)), r'Shift.eval_shifts must be .*, got \(0, 1\)'),
        (lambda: Shift()(torch.zeros(1, 1, 4, 4), (Fraction(1), NONE)), 'Shift: 1 of the side; shifts must be shorter'),
        (lambda: Turn(0), r'Turn.maximum must be in \(0, 180\] degrees, got 0'),
        (lambda: Turn(interpolation='fourier'), r"Turn.interpolation must be one of \('bicubic', 'bilinear'\)"),
        (lambda: Turn(eval_angles=30), 'Turn.eval_angles must be one or more angles in degrees, no full turns, got 30'),
        (lambda: Turn(eval_angles=(30, 360)), r'Turn.eval_angles must be .* got \(30, 360\)'),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
