"""Ablation: SD-VAE, only rotation.

To reach (EQ-VAE v3, Table 5): rFID 0.73, gFID 41.2 (DiT-B/2), intrinsic dimension 57.9.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective.transform = dict(type='Rotate')
