"""EQ-VAE fine-tuning of FLUX.1's VAE, rotation + isotropic scale.

Not in the paper.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.flux1_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
