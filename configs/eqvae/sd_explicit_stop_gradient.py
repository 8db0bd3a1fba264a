"""Ablation: SD-VAE, explicit regularisation, E(τ∘x) held constant; the latents collapse.

To reach (EQ-VAE v3, Table 7): rFID 109.25, gFID 134.7 (DiT-B/2), R(θ) 0.35, S(s) 0.13.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
model.penalties.insert(
    0, dict(type='ExplicitEquivariance', transform=objective.transform, weight=0.1, stop_gradient=True)
)
