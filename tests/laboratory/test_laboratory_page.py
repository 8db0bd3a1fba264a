"""The page and the numbers: whole, self-contained, and names are text."""

import json
import re
from html.parser import HTMLParser

import pytest

from eqzoo.laboratory import Findings, Model, Squares, choose_cases, examine, write_laboratory

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
    """A function (names) → the findings on three images."""

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


def test_the_page_holds_everything_itself(findings, tmp_path):
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


def test_the_page_says_the_numbers(findings, tmp_path):
    each = findings('plain', 'eq')
    page = parsed(tmp_path / 'index.html', each)
    text = re.sub(r'\s+', ' ', page.text)
    for words in (
        'plain, eq: 2 autoencoders · 3 images of 32 × 32 pixels',
        'A remark.',
        'Pooling',
        '3 × 8 × 8',
        f'{each.found["eq"].metrics["psnr"]:.2f}',
        f'{each.found["eq"].metrics["eq_err/rotation"]:.4f}',
        f'{each.found["plain"].psnr[2]:.2f}',  # of an image without a picture, too
        'One basis with eq: the same latent has the same colour.',
        'plain.pth',
    ):
        assert words in text
    cells = [value for tag, name, value in page.attributes if tag == 'td' and name == 'class']
    assert 'value best' in cells
    alone = parsed(tmp_path / 'alone.html', findings('plain'))
    assert 'the best of a line' not in alone.text
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
