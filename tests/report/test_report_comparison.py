"""Comparisons: which values may be compared, which is best, footnotes, and the three formats."""

import copy
import re

import pytest

from eqzoo.report import compare_results, read_result, to_csv, to_markdown, to_text
from eqzoo.report.cards import differences, evaluator_of


@pytest.fixture
def read(write):
    """A function (contents by name) → results by name."""
    return lambda **contents: {name: read_result(write(name, content)) for name, content in contents.items()}


def rows_of(comparison):
    return {row.metric: row for row in comparison.rows}


def texts(row):
    return [cell.text for cell in row.cells]


def test_the_best_is_marked_where_the_direction_is_known(read, result):
    better = result(psnr=26.0)
    better['metrics'] |= {'eq_err/rotation': 0.2, 'ssim': 0.70454, 'latent_std': 1.0}
    comparison = compare_results(read(plain=result(), eq=better, third=result(psnr=None)))
    assert comparison.runs == ['plain', 'eq', 'third']
    best = {name: [cell.best for cell in row.cells] for name, row in rows_of(comparison).items()}
    assert best == {
        'psnr': [False, True, False],
        'ssim': [False, False, False],  # equal in the digits that the table shows
        'eq_err/rotation': [True, False, True],
        'latent_std': [False, False, False],
    }
    assert texts(rows_of(comparison)['psnr']) == ['25.61', '26.00', 'nan']


def test_a_missing_metric_is_a_dash_and_a_single_value_is_not_the_best(read, result):
    with_more = result()
    with_more['metrics'] = {'lpips': 0.1, **with_more['metrics']}
    row = rows_of(compare_results(read(plain=result(), eq=with_more)))['lpips']
    assert texts(row) == ['–', '0.1000']
    assert not any(cell.best for cell in row.cells)


def test_weights_config_and_versions_may_differ_and_versions_are_remarked(read, result):
    other = result(config='b.py', weights=dict(file='b.pth', sha256='0f' * 32), eqzoo='0.2.0')
    comparison = compare_results(read(a=result(), b=other))
    assert comparison.notes == []
    assert comparison.remarks == ['Versions of eqzoo differ: 0.1.0 in a, 0.2.0 in b.']
    assert comparison.origins[1] == {
        'config': 'b.py',
        'weights': 'b.pth',
        'sha256': '0f0f0f0f0f0f',
        'images': '5000',
        'eqzoo': '0.2.0',
        'torch': '2.6.0',
    }


def test_unlike_cards_are_refused_with_field_and_both_values(read, result):
    results = read(a=result(), b=result(protocol='eqvae'))
    paths = [re.escape(str(each.path)) for each in results.values()]
    with pytest.raises(
        ValueError,
        match=rf'^psnr .*: evaluators.ReconstructionMetric.protocol is "uint8" in a \({paths[0]}\) '
        rf'and "eqvae" in b \({paths[1]}\); .* 1 more metric.* --allow-unlike\.$',
    ):
        compare_results(results)


@pytest.mark.parametrize(
    ('change', 'field'),
    [
        (dict(num_images=4999), 'num_images is 5000 in a .* and 4999 in b'),
        (dict(unreadable=[]), r'unreadable is \["broken.png"\] in a .* and \[\] in b'),
        (dict(data=dict(kind='Shapes')), 'data.kind is "ImageFolder" in a .* and "Shapes" in b'),
        (dict(data=None), r'data is \{"kind": "ImageFolder", .*….* in a .* and null in b'),
    ],
)
def test_the_images_must_be_the_same(read, result, change, field):
    with pytest.raises(ValueError, match=f'psnr .*: {field}.* 3 more metric'):
        compare_results(read(a=result(), b=result(**change)))


def test_a_folder_and_a_zip_of_it_are_the_same_images(read, result):
    data = {**result()['card']['data'], 'root': 'val'}
    assert compare_results(read(a=result(), b=result(data=data))).notes == []
    for unknown in ({name: value for name, value in data.items() if name != 'sha256'}, {**data, 'sha256': None}):
        with pytest.raises(ValueError, match='data.root is "val" in a .* and "train" in b'):
            compare_results(read(a=result(data=unknown), b=result(data={**unknown, 'root': 'train'})))


def test_sets_of_samples_may_differ_in_all_but_number_and_size(read, result):
    scores = [
        result(samples=f'{name}.npz', data=dict(kind='NpzImages', root=f'{name}.npz', size=256, sha256=name))
        for name in 'ab'
    ]
    for number, content in enumerate(scores):
        content['card']['evaluators']['ReconstructionMetric']['reference'] = dict(file=f'{number}.npz', sha256='cd')
    comparison = compare_results(read(a=scores[0], b=scores[1]))
    assert comparison.notes == []
    assert [each['samples'] for each in comparison.origins] == ['a.npz', 'b.npz']
    for field, value, message in (
        ('size', 64, 'data.size is 256 in a .* and 64'),
        ('sha256', 'ce', 'reference.sha256'),
    ):
        other = copy.deepcopy(scores[1])
        card = other['card']
        where = card['data'] if field == 'size' else card['evaluators']['ReconstructionMetric']['reference']
        where[field] = value
        with pytest.raises(ValueError, match=message):
            compare_results(read(a=scores[0], b=other))
    with pytest.raises(ValueError, match='data.kind is "NpzImages" in a .* and "ImageFolder" in c'):
        compare_results(read(a=scores[0], c=result()))


def test_only_the_evaluator_that_gave_a_metric_matters(read, result):
    results = read(a=result(), b=result(protocol='eqvae'))
    assert differences('eq_err/rotation', *results.values()) == []
    assert differences('eq_err/rotation/90', *results.values()) == []
    assert [each.field for each in differences('ssim', *results.values())] == [
        'evaluators.ReconstructionMetric.protocol'
    ]


def test_what_follows_from_the_shape_of_latents_is_no_difference(read, result):
    """`VelocityVariance` needs more images of a class for latents of fewer channels."""
    contents = [result(), result()]
    for content, needed in zip(contents, (17, 9), strict=True):
        content['card']['evaluators']['EquivarianceError'].update(
            undetermined=f'0 of 10, of fewer than {needed} images'
        )
    assert differences('eq_err/rotation', *read(a=contents[0], b=contents[1]).values()) == []


def test_a_case_belongs_to_its_metrics_evaluator(read, result):
    changed = result()
    changed['card']['evaluators']['EquivarianceError']['mask'] = True
    results = read(a=result(), b=changed)
    (found,) = differences('eq_err/rotation/90', *results.values())
    assert found == ('evaluators.EquivarianceError.mask', 'not stated', 'true')
    assert differences('psnr', *results.values()) == []


def test_a_metric_of_two_evaluators_has_each_ones_card(read, result):
    contents = [result(), result()]
    for content, protocol in zip(contents, ('eqvae', 'lightningdit'), strict=True):
        content['metrics']['psnr#2'] = 1.0
        content['card']['evaluators']['ReconstructionMetric#2'] = dict(metrics=['psnr#2'], protocol=protocol)
    results = read(a=contents[0], b=contents[1])
    assert differences('psnr', *results.values()) == []
    (found,) = differences('psnr#2', *results.values())
    assert found == ('evaluators.ReconstructionMetric#2.protocol', '"eqvae"', '"lightningdit"')


def test_reconstructions_have_a_card_of_their_own_in_which_the_autoencoder_may_differ(read, result):
    """`fd/reconstructions` is no case of `fd`; the autoencoder is compared, as weights are."""
    contents = [result(), result(), result()]
    for content, digest, count in zip(contents, ('ab', 'cd', 'cd'), (50, 50, 60), strict=True):
        content['metrics'] |= {'fd': 2.0, 'fd/reconstructions': 1.0}
        content['card']['evaluators'] |= {
            'GenerationMetric': dict(metrics=['fd'], reference=dict(sha256='12')),
            'GenerationMetric#2': dict(
                metrics=['fd/reconstructions'], reference=dict(num_images=count), autoencoder=digest
            ),
        }
    first, second, third = read(a=contents[0], b=contents[1], c=contents[2]).values()
    assert differences('fd/reconstructions', first, second) == []
    (found,) = differences('fd/reconstructions', second, third)
    assert found == ('evaluators.GenerationMetric#2.reference.num_images', '50', '60')
    assert differences('fd', second, third) == []


def test_the_same_metric_of_another_evaluator_is_unlike(read, result):
    other = result()
    other['card']['evaluators']['Mine'] = other['card']['evaluators'].pop('ReconstructionMetric')
    (found,) = differences('psnr', *read(a=result(), b=other).values())
    assert found == ('evaluators', '"ReconstructionMetric"', '"Mine"')


def without_lists(content):
    for card in content['card']['evaluators'].values():
        del card['metrics']
    return content


def test_older_files_are_compared_in_all_evaluators_that_both_have(read, result):
    new, old, other = result(), without_lists(result()), without_lists(result(protocol='eqvae'))
    other['card']['evaluators']['Extra'] = {}
    results = read(new=new, old=old, other=other)
    assert differences('eq_err/rotation', results['new'], results['old']) == []
    # the newer one names the evaluator; two old ones do not, so any difference counts
    assert differences('eq_err/rotation', results['new'], results['other']) == []
    assert len(differences('psnr', results['other'], results['new'])) == 1
    assert len(differences('eq_err/rotation', results['old'], results['other'])) == 1


def test_allowed_unlike_values_get_footnotes_and_no_best(read, result):
    results = read(a=result(psnr=None), b=result(psnr=26.0), c=result(protocol='eqvae', num_images=7))
    comparison = compare_results(results, allow_unlike=True)
    assert comparison.notes == [
        'c against a: num_images is 7, not 5000',
        'c against a: evaluators.ReconstructionMetric.protocol is "eqvae", not "uint8"',
    ]
    rows = rows_of(comparison)
    assert [cell.notes for cell in rows['psnr'].cells] == [(), (), (1, 2)]
    assert [cell.notes for cell in rows['eq_err/rotation'].cells] == [(), (), (1,)]
    assert not any(cell.best for row in rows.values() for cell in row.cells)
    assert comparison.curves == []
    assert comparison.remarks == ['Curves are left out: the cards of the evaluators differ.']


def test_values_are_compared_with_the_first_run_that_has_the_metric(read, result):
    first = result()
    del first['metrics']['psnr']
    comparison = compare_results(read(a=first, b=result(), c=result(protocol='eqvae')), allow_unlike=True)
    assert comparison.notes[-1].startswith('c against b: ')
    assert texts(rows_of(comparison)['psnr']) == ['–', '25.61', '25.61']


def test_cases_are_lines_on_request(read, result):
    results = read(a=result(), b=result())
    assert 'eq_err/rotation/90' not in rows_of(compare_results(results))
    assert [row.metric for row in compare_results(results, with_cases=True).rows][-2:] == [
        'eq_err/rotation/90',
        'eq_err/rotation/180',
    ]


def test_curves_of_one_title_are_merged(read, result):
    other = result()
    other['curves'][0]['series'][0]['label'] = ''
    other['curves'].append(dict(title='Spectrum', x='f', y='power', log=True, series=[dict(x=[1], y=[2.0])]))
    first, second = compare_results(read(a=result(), b=other)).curves
    assert [each['label'] for each in first['series']] == ['a: latent', 'b']
    assert first['series'][1]['low'] == [0.1, 0.15]
    assert (second['title'], second['log'], len(second['series'])) == ('Spectrum', True, 1)


def test_text(read, result):
    comparison = compare_results(read(a=result(), b=result(psnr=26.0), c=result(num_images=7)), allow_unlike=True)
    assert to_text(comparison).splitlines()[:3] == [
        'metric                   a        b        c',
        'psnr ↑               25.61    26.00    25.61 [1]',
        'ssim ↑              0.7045   0.7045   0.7045 [1]',
    ]
    assert '\n[1] c against a: num_images is 7, not 5000\n' in to_text(comparison)
    alike = to_text(compare_results(read(a=result(), b=result(psnr=26.0))))
    assert alike.splitlines() == [
        'metric                   a        b',
        'psnr ↑               25.61    26.00 *',
        'ssim ↑              0.7045   0.7045',
        'eq_err/rotation ↓   0.1931   0.1931',
        'latent_std             nan      nan',
        '',
        '* best of its line',
    ]


def test_markdown(read, result):
    comparison = compare_results(read(**{'a': result(), 'b|<i>': result(psnr=26.0)}))
    lines = to_markdown(comparison).splitlines()
    assert lines[:3] == [r'| metric | a | b\|&lt;i> |', '| --- | ---: | ---: |', '| psnr ↑ | 25.61 | **26.00** |']
    assert lines[-2:] == [
        f'| {name} | configs/eqvae/sd16_rot_scale.py | iter_1.pth | abababababab | 5000 | 0.1.0 | 2.6.0 |'
        for name in ('a', r'b\|&lt;i>')
    ]


def test_csv_has_all_digits(read, result):
    other = result(psnr=26.000000000000004, num_images=7)
    del other['metrics']['ssim']
    comparison = compare_results(read(a=result(), b=other), allow_unlike=True)
    assert to_csv(comparison).splitlines()[:4] == [
        'metric,better,a,b,unlike',
        'psnr,higher,25.614,26.000000000000004,"b against a: num_images is 7, not 5000"',
        'ssim,higher,0.7045,,',
        'eq_err/rotation,lower,0.1931,0.1931,"b against a: num_images is 7, not 5000"',
    ]
    assert to_csv(comparison).splitlines()[4].startswith('latent_std,,nan,nan,')


@pytest.mark.parametrize(
    ('metric', 'evaluator'),
    [
        ('eq_err/rotation', 'EquivarianceError'),
        ('eq_err/rotation/90', 'EquivarianceError'),
        ('eq_err/rotation_std', 'EquivarianceError'),
        ('eq_err/rotation/90_std', 'EquivarianceError'),
        ('psnr', 'ReconstructionMetric'),
        ('psnr_std', 'ReconstructionMetric'),
        ('fd/reconstructions', None),
    ],
)
def test_standard_errors_and_cases_are_of_the_evaluator_of_their_metric(metric, evaluator):
    named = {'EquivarianceError': ['eq_err/rotation'], 'ReconstructionMetric': ['psnr', 'ssim']}
    assert (
        evaluator_of(metric, {'evaluators': {name: {'metrics': names} for name, names in named.items()}}) == evaluator
    )
