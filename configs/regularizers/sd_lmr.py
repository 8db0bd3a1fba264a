"""SD-VAE with latent masked reconstruction: hidden cells behind a learned token.

SSVAE, arXiv 2512.05394: with LCR, video diffusion learns three times as fast.
Measured on TAEF2: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
model.corruptions = [dict(type='LatentMask')]
