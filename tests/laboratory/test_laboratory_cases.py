"""Angles and scales that are possible on the latents at hand."""

from fractions import Fraction

import pytest

from eqzoo.laboratory import choose_cases


def test_what_is_possible_is_taken_as_it_is():
    turn, scale, remarks = choose_cases([5, 180], [0.25, 0.5], [(8, 8), (32, 32)])
    assert turn.cases((8, 8)) == {'5': 5.0, '180': 180.0}
    assert list(scale.cases((8, 8))) == ['0.5', '0.25']
    assert remarks == []
    assert (scale.interpolation, scale.antialias) == ('bicubic', True)


def test_scales_are_taken_to_whole_cells_of_the_coarsest_latents():
    _, scale, remarks = choose_cases([90], [0.25, 0.5, 0.99], [(6, 6), (12, 12)])
    assert [pair[0] for pair in scale.cases((6, 6)).values()] == [Fraction(5, 6), Fraction(1, 2), Fraction(1, 3)]
    assert remarks == ['Scales taken to whole cells: 0.333, 0.5, 0.833.']


def test_angles_that_leave_nothing_are_left_out():
    turn, _, remarks = choose_cases([45, 90], [0.5], [(4, 4), (16, 16)])
    assert turn.eval_angles == (90,)
    assert remarks == ['Left out: 45°, of which nothing of 4 x 4 cells would count.']
    assert choose_cases([45, 90], [0.5], [(16, 16)]).turn.eval_angles == (45, 90)


@pytest.mark.parametrize(
    ('angles', 'scales', 'grid', 'message'),
    [
        ([0], [0.5], (8, 8), 'Turn.eval_angles must be'),
        ([5], [1.5], (8, 8), 'eval_scales must be'),
        ([45], [0.5], (4, 4), r'none of them leaves anything of latents of 4 x 4 cells; use larger images'),
        ([90], [0.5], (1, 1), 'use larger images'),
    ],
)
def test_what_is_impossible_is_refused(angles, scales, grid, message):
    with pytest.raises(ValueError, match=message):
        choose_cases(angles, scales, [grid])
