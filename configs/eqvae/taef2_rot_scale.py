"""EQ-VAE fine-tuning of TAEF2, rotation + isotropic scale.

Not in the paper. Reached here with the losses of configs/demo on CIFAR-10: see docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.taef2 import autoencoder
    from .._base_.eqvae import *

# a tiny autoencoder has no posterior
model.update(autoencoder=autoencoder, kl_loss=None)
