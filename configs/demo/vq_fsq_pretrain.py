"""A small autoencoder from scratch with finite scalar quantisation: 240 codes of three channels, and no codebook."""

from mmengine.config import read_base

with read_base():
    from .vq_pretrain import *

autoencoder.update(latent_channels=3, num_codes=240, quantizer=dict(type='FSQ', levels=(8, 6, 5)))
model.update(autoencoder=autoencoder)
custom_hooks.codebook = dict(type='CodebookHook')
