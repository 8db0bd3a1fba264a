"""Control: SD-VAE fine-tuned for the same number of steps with the plain objective.

To reach (EQ-VAE v3, Table 6, SD-VAE†): rFID 0.81, gFID 43.5 (DiT-B/2).
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
