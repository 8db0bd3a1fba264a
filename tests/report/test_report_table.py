"""Tables as text, Markdown and CSV, and the direction of each metric."""

import csv

import pytest

from eqzoo.report.table import better, csv_text, escape_markdown, format_table, markdown_table


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


@pytest.mark.parametrize(
    ('direction', 'names'),
    [
        ('higher', 'psnr psnr_sample_global ssim_eqvae is is_effnet_lite0 precision recall_random_inception density'),
        ('higher', 'psnr#2 coverage codebook/usage lnc@5 lnc@10 lds cds lds_uncentred'),
        ('lower', 'fid rfid sfid ifid fid_pytorch_fid fd_effnet_lite0 rfd_effnet_lite0 sfd_x fdd ifdd swd kid kid_x'),
        ('lower', 'fid/reconstructions fd_effnet_lite0_112px/reconstructions latent_fd latent_fd/cells latent_fd#2'),
        ('lower', 'lpips lpips_alex_float distance_effnet_lite0 eq_err/rotation eq_err_paper/scale eq_err/rotation/90'),
        ('lower', 'viv viv_share sec/0.25 sec/0.5'),
        ('', 'viv_std lnc@5_std sec/0.25_std effective_rank condition_number'),
        ('', 'latent_std kid_std is_std spectrum/slope intrinsic_dimension codebook/perplexity isolated psnrs grid'),
    ],
)
def test_the_direction_of_each_metric(direction, names):
    assert {name: better(name) for name in names.split()} == dict.fromkeys(names.split(), direction)


def test_text_cannot_end_its_markdown_cell():
    text = 'a|b *c* `d` [e] <f> &g;\\\nh'
    assert markdown_table([['', 'x'], [escape_markdown(text), '']])[2] == (
        r'| a\|b \*c\* \`d\` \[e\] &lt;f> &amp;g;\\ h |  |'
    )


def test_text_cannot_end_its_csv_cell():
    assert list(csv.reader(csv_text([['a,b', '"c"\nd', 1.5]]).splitlines(keepends=True))) == [['a,b', '"c"\nd', '1.5']]
