"""SDXL-VAE with encoder spectrum matching: latents with the images' spectrum, in place of the KL divergence.

Spectrum Matching, arXiv 2603.14645: 0.01 beside a loss that is a mean; this loss is a sum over 3 x 256 x 256.
Measured on TAEF2: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sdxl_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
model.penalties = [dict(type='SpectrumMatching', weight=2000.0)]
