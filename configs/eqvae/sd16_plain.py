"""Control: SD-VAE-16 fine-tuned for the same number of steps with the plain objective.

The paper has no such row; the released weights have (v3, Tables 1 and 12): rFID 0.87, gFID 64.1 (DiT-B/1),
R(θ) 0.95, S(s) 0.85, PSNR 24.67, SSIM 0.61.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sd_vae_16 import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='Plain')
