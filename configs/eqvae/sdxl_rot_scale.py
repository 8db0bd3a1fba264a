"""EQ-VAE fine-tuning of SDXL-VAE, rotation + isotropic scale.

To reach (EQ-VAE v3, Tables 1 and 12): rFID 0.65, gFID 35.9 (DiT-B/2), R(θ) 0.65, S(s) 0.35, PSNR 27.48, SSIM 0.76.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sdxl_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
