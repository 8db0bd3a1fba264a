"""SDXL-VAE with local correlation: neighbouring cells similar, up to a correlation of 0.75.

SSVAE, arXiv 2512.05394: with LMR, video diffusion learns three times as fast.
Measured on TAEF2: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sdxl_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
model.penalties.append(dict(type='LocalCorrelation'))
