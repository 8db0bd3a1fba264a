"""Ablation: SD-VAE, the equivariance branch in 30% of the steps.

To reach (EQ-VAE v3, Table 8, p_α = 0.7): rFID 0.88, gFID 34.4 (DiT-B/2); rFID 0.78, gFID 35.4 if that table names
p_equivariance, as the release's `p_prior` does and as its rFIDs suggest.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective.update(p_equivariance=0.3)
