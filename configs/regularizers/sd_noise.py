"""SD-VAE with noise on the latents that are decoded.

l-DeTok, arXiv 2507.15856 (better with six generators; MAR-B 1.55), RAE, arXiv 2510.11690;
amount and kind of noise are our choice.
Measured on TAEF2: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
model.corruptions = [dict(type='LatentNoise', sigma=0.5, kind='drawn')]
