"""The text table."""

from eqzoo.evaluators import format_table


def test_columns_are_aligned_and_gaps_are_shown():
    text = format_table({'plain': {'psnr': 25.614, 'eq_err/scale': 0.21314}, 'eq': {'psnr': 25.02}})
    assert text.splitlines() == [
        'metric            plain       eq',
        'psnr ↑            25.61    25.02',
        'eq_err/scale ↓   0.2131        –',
    ]


def test_a_tiny_number_does_not_look_like_zero():
    lines = format_table({'run': {'a': 0.0, 'b': 3.21e-6, 'c': float('nan'), 'd': -2e-5}}).splitlines()[1:]
    assert [line.split()[-1] for line in lines] == ['0.0000', '3e-06', 'nan', '-2e-05']
    assert len({len(line) for line in lines}) == 1
