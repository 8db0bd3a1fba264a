"""Control: SD3-VAE fine-tuned for the same number of steps with the plain objective.

The paper has no such row; the released weights have (v3, Tables 1 and 12): rFID 0.20, gFID 58.9 (DiT-B/2),
R(θ) 0.51, S(s) 0.16, PSNR 31.27, SSIM 0.87.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd3_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
