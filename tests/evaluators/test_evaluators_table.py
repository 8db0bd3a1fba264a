"""The text table."""

from eqzoo.evaluators import format_table


def test_columns_are_aligned_and_gaps_are_shown():
    text = format_table({'plain': {'psnr': 25.614, 'eq_err/scale': 0.21314}, 'eq': {'psnr': 25.02}})
    assert text.splitlines() == [
        'metric            plain       eq',
        'psnr ↑            25.61    25.02',
        'eq_err/scale ↓   0.2131        –',
    ]
