"""Ablation: SD-VAE, rotation + separate scales of height and width, also in the low-resolution branch.

To reach (EQ-VAE v3, Table 5): rFID 0.92, gFID 33.2 (DiT-B/2), intrinsic dimension 38.9.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
scale = dict(type='AnisotropicScale', minimum=0.25)
model.objective.transform = dict(type='Compose', transforms=[scale, dict(type='Rotate')])
model.objective.low_resolution = scale
