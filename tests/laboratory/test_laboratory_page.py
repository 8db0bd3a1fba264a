"""The page, its galleries and the JSON: complete, self-contained, and names are text."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from eqzoo.images import to_float
from eqzoo.laboratory import Findings, Model, Squares, choose_cases, examine, share_bases, write_laboratory
from eqzoo.laboratory.page import (
    amplification,
    colour_gallery,
    reconstruction_gallery,
    transformed_colour_gallery,
    transformed_gallery,
)

HOSTILE = '</style><script>alert(1)</script>"><img src=http://elsewhere.invalid onerror=1>{{ 7 * 7 }}'


class Parser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ''

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def findings(pooling, pixels):
    """A function (names) → the findings for three images."""

    def function(*names):
        cases = choose_cases([30, 90], [0.5], [(8, 8)])
        models = [Model(name, f'{name}.pth', pooling(0.2 * number)) for number, name in enumerate(names)]
        images = Squares(['a.png', HOSTILE, 'c.png'], pixels, [(40, 32)] * 3, ['middle 32 x 32'] * 3, ['A remark.'])
        found = {model.name: examine(model.autoencoder, pixels, cases, shown=2) for model in models}
        return Findings(models, images, cases, found)

    return function


def parsed(path, findings):
    write_laboratory(path, findings)
    page = Parser()
    page.feed(path.read_text())
    return page


def test_the_page_is_self_contained(findings, tmp_path):
    page = parsed(tmp_path / 'index.html', findings('plain', HOSTILE))
    assert 'script' not in page.tags
    links = [value for _, name, value in page.attributes if name in ('src', 'href')]
    assert {value.split(':')[0] for value in links if not value.startswith('#')} == {'data'}
    assert not [name for _, name, _ in page.attributes if name.startswith('on')]
    # x, D(E(x)) and the error, x, E(x): of 2 images; τx and D(τE(x)) of 3 angles and 2 scales; E(τx), τE(x) of 3 angles
    assert page.tags.count('img') == 2 * (1 + 2 * 2) + 2 * (1 + 2) + 2 * (3 + 2) * (1 + 2) + 2 * 3 * 2 * 2
    assert page.tags.count('svg') == 5
    assert page.text.count(HOSTILE) > 5
    ids = [value for _, name, value in page.attributes if name == 'id']
    assert len(ids) == len(set(ids))


def test_the_page_shows_the_numbers(findings, tmp_path):
    each = findings('plain', 'eq')
    page = parsed(tmp_path / 'index.html', each)
    text = re.sub(r'\s+', ' ', page.text)
    for words in (
        'plain, eq: 2 autoencoders · 3 images of 32 × 32 pixels',
        'A remark.',
        'Fewer than 4 images have no viv.',
        f'{each.found["plain"].metrics["lds"]:.4f} ± {each.found["plain"].metrics["lds_std"]:.4f}',
        f'{each.found["plain"].metrics["effective_rank"]:.4f}',
        'Pooling',
        '3 × 8 × 8',
        f'{each.found["eq"].metrics["psnr"]:.2f}',
        f'{each.found["eq"].metrics["eq_err/rotation"]:.4f}',
        f'{each.found["plain"].psnr[2]:.2f}',  # also for an image without a picture
        'One basis with eq: the same latent has the same colour.',
        'plain.pth',
    ):
        assert words in text
    # three images name no winner: standard errors instead, of PSNR over the images, of eq_err as it is measured
    assert not [value for _, name, value in page.attributes if name == 'class' and 'best' in value.split()]
    own = each.found['eq']
    error = np.std(own.psnr, ddof=1) / 3**0.5
    assert f'{own.metrics["psnr"]:.2f} ± {error:.4f}' in text
    assert f'{own.metrics["eq_err/rotation"]:.4f} ± {own.cases["eq_err/rotation_std"]:.4f}' in text
    assert 'too few to name a winner' in text
    alone = parsed(tmp_path / 'alone.html', findings('plain'))
    assert 'its first three principal components' in alone.text


def test_the_summary_is_json_with_all_numbers(findings):
    each = findings('plain', 'eq')
    summary = json.loads(json.dumps(each.summary(), allow_nan=False))
    assert summary == each.summary()
    assert summary['size'] == 32
    assert summary['images'][0] == dict(name='a.png', width=40, height=32, cut='middle 32 x 32')
    own = summary['models']['eq']
    assert (own['source'], own['type'], own['num_parameters']) == ('eq.pth', 'Pooling', 1)
    assert (own['downsample_factor'], own['latent_channels'], own['latent_size']) == (4, 3, [3, 8, 8])
    assert own['metrics'] == each.found['eq'].metrics
    assert own['psnr'] == each.found['eq'].psnr
    assert own['colours'] == dict(shared_by=['plain', 'eq'], aligned_to=None, agreement=None)
    assert [curve['title'].split(':')[0] for curve in summary['curves']] == [
        'Latents under rotation',
        'Images under rotation',
        'Latents under scaling',
        'Images under scaling',
        'Spectrum of the latents',
    ]
    assert [series['label'] for series in summary['curves'][0]['series']] == ['plain', 'eq']
    assert summary['curves'][1]['series'][0]['x'] == [0, 30, 90]
    assert summary['curves'][3]['series'][1]['y'][-1] == own['metrics']['psnr']


@pytest.fixture
def found(pooling, pixels):
    cases = choose_cases([90], [0.5], [(8, 8)])
    return {
        name: examine(pooling(pattern), pixels, cases, shown=2) for name, pattern in (('flat', 0.0), ('sloped', 1.0))
    }


def seen(tile):
    """Return a tile's pixels (3, H, W), uint8."""
    data = base64.b64decode(tile.picture.url.partition(',')[2])
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert('RGB'))).permute(2, 0, 1)


def test_reconstructions_and_their_errors(found, pixels):
    gallery, factor = reconstruction_gallery(['a', 'b'], to_float(pixels[:2]), found)
    assert [(row.label, row.content) for row in gallery.rows] == [
        ('x', 'the image'),
        ('flat', 'D(E(x))'),
        ('flat', f'its error × {factor}'),
        ('sloped', 'D(E(x))'),
        ('sloped', f'its error × {factor}'),
    ]
    assert torch.equal(seen(gallery.rows[0].tiles[1]), pixels[1])
    decoded = seen(gallery.rows[1].tiles[1]).int()
    error = (decoded - pixels[1].int()).abs()
    shown = seen(gallery.rows[2].tiles[1]).int()
    assert ((error * factor).clamp(0, 255) - shown).abs().max() <= factor
    assert gallery.rows[1].tiles[1].caption == f'{found["flat"].psnr[1]:.2f} dB'
    assert gallery.rows[1].tiles[0].picture.title == 'flat, D(E(x)): a'


def test_transformed_images(found, pixels):
    gallery = transformed_gallery('turn', 'b', 1, to_float(pixels[1]), found)
    assert gallery.columns == ['0°', '90°']
    assert torch.equal(seen(gallery.rows[0].tiles[1]), pixels[1].rot90(1, (1, 2)))
    assert torch.equal(seen(gallery.rows[1].tiles[1]), seen(gallery.rows[1].tiles[0]).rot90(1, (1, 2)))
    # these latents depend on the place
    assert not torch.equal(seen(gallery.rows[2].tiles[1]), seen(gallery.rows[2].tiles[0]).rot90(1, (1, 2)))
    captions = [tile.caption for tile in gallery.rows[2].tiles]
    sloped = found['sloped']
    assert captions == [f'{sloped.psnr[1]:.2f} dB', f'{sloped.transformed["turn"]["90"].psnr[1]:.2f} dB']
    scaled = transformed_gallery('scale', 'b', 1, to_float(pixels[1]), found)
    assert scaled.columns == ['× 1', '× 0.5']
    assert [tile.share for tile in scaled.rows[1].tiles] == [1, 0.5]


def test_latents_as_colours(found, pixels):
    bases = share_bases({name: each.latents for name, each in found.items()})
    gallery = colour_gallery(['a', 'b'], to_float(pixels[:2]), found, bases)
    expected = bases['sloped'].basis.colours(found['sloped'].latents)[1]
    assert (seen(gallery.rows[2].tiles[1]).int() - (expected + 1) * 127.5).abs().max() <= 1
    assert gallery.rows[2].tiles[1].is_pixelated
    turned = transformed_colour_gallery('turn', 'b', 1, found, bases)
    assert [(row.label, row.content) for row in turned.rows] == [
        (name, content) for name in found for content in ('E(τx)', 'τE(x)')
    ]
    tiles = [seen(row.tiles[1]).int() for row in turned.rows]
    assert (tiles[0] - tiles[1]).abs().max() <= 1
    assert (tiles[2] - tiles[3]).abs().max() > 20


@pytest.mark.parametrize(('largest', 'factor'), [(0.9, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.01, 64), (1e-6, 64)])
def test_errors_are_amplified_as_far_as_they_fit(largest, factor):
    errors = torch.linspace(0, largest, 100)
    assert amplification(errors) == factor
    # a few larger ones are clipped
    assert amplification(torch.cat([errors.repeat(10), torch.ones(2)])) == factor


MEASURE = """
const box = each => each.getBoundingClientRect();
return {
  window: root.clientWidth, content: root.scrollWidth,
  pictures: [...page.querySelectorAll('img')].map(each => each.naturalWidth),
  frames: [...page.querySelectorAll('.scroll')].map(each => box(each).right),
  scrolled: page.querySelector('#models .scroll').scrollWidth - page.querySelector('#models .scroll').clientWidth,
  meanings: [...page.querySelectorAll('#models .meaning')].map(each => [box(each).width, each.textContent]),
  below: [...page.querySelectorAll('#models .meaning')].every(each => box(each).top > box(each.closest('th')).top + 10),
};
"""


def test_the_page_is_readable_in_a_wide_and_a_narrow_window(look, findings, tmp_path):
    write_laboratory(tmp_path / 'index.html', findings('plain', 'eq'))
    page = (tmp_path / 'index.html').read_bytes()
    # with a defect, as a check of the measures
    broken = page.replace(b'</style>', b'.scroll { overflow: visible !important } .meaning { width: 9rem } </style>')
    broken = broken.replace(b'</style>', b'.gallery { min-width: 90rem !important } </style>')
    seen = look({'index.html': page, 'broken.html': broken}, (1280, 480), MEASURE)
    assert seen.found['broken.html', 480]['content'] > 480
    assert min(line for line, _ in seen.found['broken.html', 480]['meanings']) < 200
    for width in (1280, 480):
        found = seen.found['index.html', width]
        assert found['content'] <= found['window'] == width
        assert max(found['frames']) <= width
        assert found['scrolled'] == 0  # two autoencoders fit beside the explanations
        assert len(found['pictures']) > 50
        assert min(found['pictures']) > 0
        # each explanation is below its name, in lines of some words
        assert len(found['meanings']) > 12
        assert min(line for line, _ in found['meanings']) > 200
        assert found['below']
    assert (seen.console, seen.missing) == ([], [])
