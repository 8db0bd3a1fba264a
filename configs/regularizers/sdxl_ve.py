"""SDXL-VAE with variance expansion in place of the KL divergence.

Variance Expansion, arXiv 2603.21085: DiT-B FID-10k 31.9 to 29.0, rFID 0.55 to 0.60.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sdxl_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
model.penalties = [dict(type='VarianceExpansion')]
