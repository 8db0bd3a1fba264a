"""EQ-VAE fine-tuning of SD3-VAE, rotation + isotropic scale.

To reach (EQ-VAE v3, Tables 1 and 12): rFID 0.19, gFID 54.0 (DiT-B/2), R(θ) 0.37, S(s) 0.11, PSNR 31.06, SSIM 0.87.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd3_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
