"""Codes of LlamaGen's f16 tokenizer: 16 x 16 of 16,384 at 256 pixels, 24 x 24 at 384."""

from mmengine.config import read_base

with read_base():
    from ..autoencoders.llamagen_vq16 import autoencoder

latents = dict(num_codes=16384, grid=16)
store = 'data/latents/imagenet_256_llamagen'
