"""Fixtures: an autoencoder with known latents, and photographs."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from eqzoo.autoencoders import Autoencoder
from eqzoo.autoencoders.base import Deterministic
from eqzoo.normalization import LatentNormalization


class Pooling(Autoencoder):
    """The means of 4 x 4 pixels plus a horizontal slope, in generator units times 2; equivariant for `pattern=0`."""

    def __init__(self, pattern=0.0):
        super().__init__(3, 4)
        self.weight = nn.Parameter(torch.ones(1))
        self.normalization = LatentNormalization(3, scale=2.0)
        self.pattern = pattern

    @property
    def last_layer(self):
        return self.weight

    def blocks(self):
        return []

    def encode(self, images):
        self._check_images(images)
        cells = F.avg_pool2d(images, 4)
        slope = torch.linspace(0, 1, cells.shape[3], device=images.device)
        return Deterministic(cells + self.pattern * slope)

    def decode_latents(self, z):
        slope = torch.linspace(0, 1, z.shape[3], device=z.device)
        return F.interpolate(z - self.pattern * slope, scale_factor=4.0)


@pytest.fixture
def pooling():
    """A function (pattern) → the autoencoder, in evaluation mode."""
    return lambda pattern=0.0: Pooling(pattern).eval()


@pytest.fixture
def pixels():
    """Smooth images (3, 3, 32, 32), uint8."""
    coarse = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, 32, mode='bicubic').mul(255).clamp(0, 255).byte()


@pytest.fixture
def save(tmp_path):
    """A function (name, width, height) → the path of a photograph in which red is the column and green the row."""

    def function(name, width, height):
        image = Image.new('RGB', (width, height))
        image.putdata([(column % 256, row % 256, 7) for row in range(height) for column in range(width)])
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        return str(path)

    return function
