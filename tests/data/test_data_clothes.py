"""Clothes: the photographs that come with eqzoo."""

import io
import zipfile
from collections import Counter

import numpy as np
import torch
from PIL import Image

import eqzoo
from eqzoo.config import load_config
from eqzoo.data import Clothes
from eqzoo.data.clothes import PHOTOGRAPHS
from eqzoo.images import to_float
from eqzoo.registry import build


def test_every_photograph_is_there_with_its_class():
    clothes = Clothes()
    assert Counter(clothes.labels()) == dict.fromkeys(range(8), 64)
    assert clothes.classes == ['dress', 'hat', 'longsleeve', 'outwear', 'pants', 'shirt', 'shoes', 't_shirt']
    # other photographs: results on them are not comparable
    assert clothes.identity()['sha256'].startswith('ba4334324395')


def test_pixels_are_those_of_the_file():
    clothes = Clothes(limit=5)
    with zipfile.ZipFile(PHOTOGRAPHS) as archive:
        for number, name in enumerate(clothes.names):
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            assert pixels.shape == (128, 128, 3)
            assert np.array_equal(clothes[number]['image'].permute(1, 2, 0).numpy(), pixels)


def test_parts_share_no_photograph():
    parts = [Clothes(part=part).names for part in ((0.0, 0.82), (0.82, 0.85), (0.85, 1.0))]
    assert list(map(len, parts)) == [420, 15, 77]
    assert sorted(name for part in parts for name in part) == Clothes().names


def test_a_smoke_run_has_sixteen_small_ones():
    smaller = build({'type': 'Clothes', **Clothes.smoke(dict(size=256, part=(0.5, 1.0)))})
    assert (len(smaller), smaller[0]['image'].shape) == (16, (3, 64, 64))
    assert smaller.describe() == 'Clothes: 16 images of 8 classes from zip clothes.zip, center crop to 64 px'


def test_a_config_of_clothes_loads(tmp_path):
    config = load_config('configs/demo/plain.py', ["train_dataloader.dataset=dict(type='Clothes', size=64)"])
    assert isinstance(build(config.train_dataloader.dataset), Clothes)


@torch.no_grad()
def test_the_autoencoder_that_comes_with_eqzoo_has_learned_them_upright():
    autoencoder, clothes = eqzoo.load('clothes-f8'), Clothes(64, part=(0.85, 1.0), limit=16)
    images = to_float(torch.stack([clothes[number]['image'] for number in range(16)]))
    latents = autoencoder.encode(images).mean
    assert 24.0 < psnr(autoencoder.decode(latents), images) < 26.0
    # what `make demo` mends
    assert psnr(autoencoder.decode(latents.rot90(1, (2, 3))), images.rot90(1, (2, 3))) < 17.0
    assert 0.8 < autoencoder.latents(images).std() < 1.2  # its config has the scale


def psnr(images, targets):
    return float(10 * torch.log10(4 / (images.clamp(-1, 1) - targets).square().mean((1, 2, 3))).mean())
