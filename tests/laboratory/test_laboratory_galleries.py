"""Galleries: the right picture at the right place."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from eqzoo.images import to_float
from eqzoo.laboratory import choose_cases, examine, share_bases
from eqzoo.laboratory.galleries import amplification, latent_colours, latent_colours_under, reconstructions, under


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
    gallery, factor = reconstructions(['a', 'b'], to_float(pixels[:2]), found)
    assert [(row.label, row.what) for row in gallery.rows] == [
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


def test_transformed_ones(found, pixels):
    gallery = under('turn', 'b', 1, to_float(pixels[1]), found)
    assert gallery.columns == ['0°', '90°']
    assert torch.equal(seen(gallery.rows[0].tiles[1]), pixels[1].rot90(1, (1, 2)))
    assert torch.equal(seen(gallery.rows[1].tiles[1]), seen(gallery.rows[1].tiles[0]).rot90(1, (1, 2)))
    # this one's latents know which side is which
    assert not torch.equal(seen(gallery.rows[2].tiles[1]), seen(gallery.rows[2].tiles[0]).rot90(1, (1, 2)))
    captions = [tile.caption for tile in gallery.rows[2].tiles]
    sloped = found['sloped']
    assert captions == [f'{sloped.psnr[1]:.2f} dB', f'{sloped.transformed["turn"]["90"].psnr[1]:.2f} dB']
    scaled = under('scale', 'b', 1, to_float(pixels[1]), found)
    assert scaled.columns == ['× 1', '× 0.5']
    assert [tile.share for tile in scaled.rows[1].tiles] == [1, 0.5]


def test_latents(found, pixels):
    bases = share_bases({name: each.latents for name, each in found.items()})
    gallery = latent_colours(['a', 'b'], to_float(pixels[:2]), found, bases)
    expected = bases['sloped'].basis.colours(found['sloped'].latents)[1]
    assert (seen(gallery.rows[2].tiles[1]).int() - (expected + 1) * 127.5).abs().max() <= 1
    assert gallery.rows[2].tiles[1].is_pixelated
    turned = latent_colours_under('turn', 'b', 1, found, bases)
    assert [(row.label, row.what) for row in turned.rows] == [
        (name, what) for name in found for what in ('E(τx)', 'τE(x)')
    ]
    tiles = [seen(row.tiles[1]).int() for row in turned.rows]
    assert (tiles[0] - tiles[1]).abs().max() <= 1
    assert (tiles[2] - tiles[3]).abs().max() > 20


@pytest.mark.parametrize(('largest', 'factor'), [(0.9, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.01, 64), (1e-6, 64)])
def test_errors_are_amplified_as_far_as_they_fit(largest, factor):
    errors = torch.linspace(0, largest, 100)
    assert amplification(errors) == factor
    # a few that are larger are cut off
    assert amplification(torch.cat([errors.repeat(10), torch.ones(2)])) == factor
