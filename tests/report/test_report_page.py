"""The report as a file: atomic, complete for incomplete results, lossless pictures."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from eqzoo.report import write_report
from eqzoo.report.meanings import SYMBOLS, meaning
from eqzoo.report.page import embed


def decoded(url):
    return Image.open(io.BytesIO(base64.b64decode(url.split(',', 1)[1])))


def page_of(tmp_path, result, pictures=None):
    write_report(tmp_path / 'report.html', result, pictures or {})
    return (tmp_path / 'report.html').read_text(encoding='utf-8')


def test_the_page_replaces_another_and_leaves_nothing_beside_it(tmp_path, result):
    first = page_of(tmp_path / 'new', result())
    assert '25.61' in first
    assert '26.50' in page_of(tmp_path / 'new', result(psnr=26.5))
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['report.html']
    assert page_of(tmp_path / 'new', result()) == first


def test_a_failed_page_leaves_the_old_one(tmp_path, result):
    first = page_of(tmp_path, result())
    broken = {**result(), 'curves': [dict(title='a', series=[dict(x=[1], y=[1, 2])])]}
    with pytest.raises(ValueError, match="curve 'a': .* equally long"):
        write_report(tmp_path / 'report.html', broken, {})
    assert (tmp_path / 'report.html').read_text(encoding='utf-8') == first


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L'])
def test_pictures_lose_nothing(mode):
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    values[..., 3] |= 1  # a fully transparent pixel has no colour to keep
    pixels = values[..., : len(mode)] if mode != 'L' else values[..., 0]
    embedded = embed('a', Image.fromarray(pixels))
    assert (embedded.title, embedded.width, embedded.height) == ('a', 40, 30)
    assert np.array_equal(np.asarray(decoded(embedded.url).convert(mode)), pixels)


def test_a_picture_too_long_for_webp_is_png():
    embedded = embed('a', Image.new('RGB', (16384, 1), (1, 2, 3)))
    assert embedded.url.startswith('data:image/png;')
    assert decoded(embedded.url).getpixel((16383, 0)) == (1, 2, 3)


def test_a_palette_keeps_its_colours():
    picture = Image.new('P', (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    assert decoded(embed('a', picture).url).convert('RGB').getpixel((1, 0)) == (40, 50, 60)


def test_sections_are_there_only_with_content(tmp_path, result):
    complete = page_of(tmp_path, result(), {'Test': Image.new('RGB', (8, 8))})
    everything = ['metrics', 'pictures', 'curves', 'cases', 'card', 'unreadable']
    assert re.findall('<section id="(.*?)">', complete) == everything
    # as in older files: no curves, evaluators without their metrics
    bare = dict(metrics={'psnr': 1.0}, card=dict(evaluators=dict(ReconstructionMetric={})))
    page = page_of(tmp_path, bare)
    assert re.findall('<section id="(.*?)">', page) == ['metrics', 'card']
    assert '<h1>Test report</h1>' in page
    assert 'ReconstructionMetric' in page


def test_metrics_have_their_direction_and_a_meaning(tmp_path, result):
    page = page_of(tmp_path, result())
    lines = re.findall('<tr><th scope="row">(.*?)</tr>', page, re.DOTALL)
    found = {re.split('[ <\n]', line)[0]: line for line in lines}
    assert list(found) == ['psnr', 'ssim', 'eq_err/rotation', 'latent_std', 'eq_err/rotation/90', 'eq_err/rotation/180']
    assert 'title="higher is better">↑' in found['psnr']
    assert 'title="25.614">25.61<' in found['psnr']
    assert f'<span class="meaning">{meaning("psnr")}</span>' in found['psnr']
    assert 'title="lower is better">↓' in found['eq_err/rotation/90']
    assert '"meaning"' not in found['eq_err/rotation/90']
    assert 'is better' not in found['latent_std']
    assert '>nan<' in found['latent_std']


def test_protocols_are_named_by_their_metrics(tmp_path, result):
    """Classes are values that can be looked up, not headings."""
    page = page_of(tmp_path, result())
    assert re.findall('<h3>(.*?)</h3>', page) == ['psnr, ssim', 'eq_err/rotation', 'latent_std']
    assert page.count('ReconstructionMetric') == 1
    assert '<dt>evaluator</dt><dd>ReconstructionMetric' in page


def test_symbols_are_explained_beside_an_autoencoders_pictures(tmp_path, result):
    pictures = {'Test': Image.new('RGB', (8, 8))}
    page = page_of(tmp_path, result(), pictures)
    for symbol, words in SYMBOLS.items():
        assert f'<dt>{symbol}</dt><dd>{words}</dd>' in page
    assert 'Before training' not in page
    samples = dict(metrics={'fid': 1.0}, card={})
    assert 'class="symbols"' not in page_of(tmp_path, samples, pictures)
    started = page_of(tmp_path, result(started_from=dict(file='vae.safetensors', sha256='ab')), pictures)
    assert 'Before training: vae.safetensors.' in started


def test_nan_and_infinity_are_gaps(tmp_path, result):
    content = result()
    content['metrics']['psnr'] = float('nan')
    content['curves'][0]['series'][0]['y'] = [float('nan'), float('inf')]
    page = page_of(tmp_path, content)
    assert 'no value that can be drawn' in page
    assert '>nan</td>' in page


def test_names_that_are_not_utf8_are_spelled_out(tmp_path, result):
    # as Python represents a stray byte of a file name; and characters that HTML does not allow
    page = page_of(tmp_path, result(unreadable=['caf\udce9.png', 'a\x00b\x1b.png']))
    assert r'<li>caf\udce9.png</li>' in page
    assert r'<li>a\x00b\x1b.png</li>' in page


def test_a_long_list_of_unreadable_images_is_folded(tmp_path, result):
    assert '<details open>' in page_of(tmp_path, result(unreadable=['a'] * 50))
    assert '<details open>' not in page_of(tmp_path, result(unreadable=['a'] * 51))


def test_the_title_is_the_config_or_the_samples(tmp_path, result):
    assert '<h1>eqvae/sd16_rot_scale</h1>' in page_of(tmp_path, result())
    assert '<h1>samples</h1>' in page_of(tmp_path, result(config=None, samples='runs/samples.npz'))
