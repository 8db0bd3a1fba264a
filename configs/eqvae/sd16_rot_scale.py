"""EQ-VAE fine-tuning of SD-VAE-16, rotation + isotropic scale.

To reach (EQ-VAE v3, Tables 1 and 12): rFID 0.82, gFID 49.7 (DiT-B/1), R(θ) 0.39, S(s) 0.17, PSNR 25.21, SSIM 0.69.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae_16 import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
