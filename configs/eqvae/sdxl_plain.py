"""Control: SDXL-VAE fine-tuned for the same number of steps with the plain objective.

The paper has no such row; the released weights have (v3, Tables 1 and 12): rFID 0.67, gFID 46.0 (DiT-B/2),
R(θ) 1.25, S(s) 0.97, PSNR 27.36, SSIM 0.76.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sdxl_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
