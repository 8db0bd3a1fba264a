"""The demo's VQ autoencoder with finite scalar quantisation in place of the codebook: 8 x 6 x 5 levels."""

from mmengine.config import read_base

with read_base():
    from .demo_vq import autoencoder

autoencoder.update(latent_channels=3, num_codes=240, quantizer=dict(type='FSQ', levels=(8, 6, 5)))
