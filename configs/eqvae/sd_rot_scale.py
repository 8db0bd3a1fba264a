"""EQ-VAE fine-tuning of SD-VAE, rotation + isotropic scale.

To reach (EQ-VAE v3, Tables 1 and 12): rFID 0.82, gFID 34.1 (DiT-B/2), R(θ) 0.56, S(s) 0.43, PSNR 25.95, SSIM 0.72.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
