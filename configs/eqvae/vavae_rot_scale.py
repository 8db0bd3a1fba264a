"""EQ-VAE fine-tuning of VA-VAE, rotation + isotropic scale.

Not in the paper. The alignment with DINOv2 of its training is left out: `configs/regularizers/sd_vf.py` has it.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.va_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
