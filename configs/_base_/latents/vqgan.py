"""Codes of VQ-GAN f16: 16 x 16 of 1,024 at 256 pixels."""

from mmengine.config import read_base

with read_base():
    from ..autoencoders.vqgan_f16_1024 import autoencoder

latents = dict(num_codes=1024, grid=16)
store = 'data/latents/imagenet_256_vqgan'
