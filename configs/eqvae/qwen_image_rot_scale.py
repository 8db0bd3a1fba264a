"""EQ-VAE fine-tuning of Qwen-Image's VAE, rotation + isotropic scale.

Not in the paper.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.qwen_image_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
