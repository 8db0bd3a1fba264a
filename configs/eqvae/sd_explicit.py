"""Ablation: SD-VAE, explicit regularisation; the latents collapse.

To reach (EQ-VAE v3, Table 7): rFID 117.93, gFID 141.3 (DiT-B/2), R(θ) 0.32, S(s) 0.11.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
model.penalties.insert(0, dict(type='ExplicitEquivariance', transform=objective.transform, weight=0.1))
