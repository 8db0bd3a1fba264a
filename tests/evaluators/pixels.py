"""A stand-in autoencoder whose latents are the pixels, and images on a surface of two dimensions."""

import torch
from torch import nn

from eqzoo.evaluators import AutoencoderView


class Pixels(nn.Module):
    """Latents are the pixels, in an order that belongs to nothing if `scrambled`."""

    def __init__(self, scrambled=False):
        super().__init__()
        self.scrambled, self.normalization = scrambled, nn.Module()
        self.normalization.denormalize = lambda z: z

    def latents(self, images):
        return images + 2.0 if self.scrambled else images

    def decode(self, z):
        z = z - 2.0 if self.scrambled else z
        # between two images a scrambled space decodes to noise
        between = (z.mean(dim=(1, 2, 3), keepdim=True) * 997).sin()
        return between.expand_as(z) if self.scrambled else z


def faces(count, seed=0):
    """Images on a surface of two dimensions."""
    where = torch.rand(count, 2, 1, 1, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    ramp = torch.linspace(-1, 1, 16)
    image = where[:, :1] * ramp[:, None] + where[:, 1:] * ramp
    return (0.5 * image).expand(-1, 3, -1, -1)


def measure(metric, autoencoder, images, batch=16, numbers=None):
    metric.check(len(images))
    numbers = torch.arange(len(images)) if numbers is None else numbers
    for chosen in numbers.split(batch):
        metric.process(AutoencoderView(autoencoder, images[chosen], chosen))
    return metric.evaluate(len(images))
