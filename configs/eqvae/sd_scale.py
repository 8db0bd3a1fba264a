"""Ablation: SD-VAE, only isotropic scale.

To reach (EQ-VAE v3, Table 5): rFID 0.78, gFID 35.8 (DiT-B/2), intrinsic dimension 41.0.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective.transform = dict(type='IsotropicScale', minimum=0.25)
