"""Latents of SD-VAE-16 fine-tuned by `configs/eqvae/sd16_rot_scale.py`: nobody has published its weights.

Their scale is measured before: python tools/latent_stats.py configs/eqvae/sd16_rot_scale.py CHECKPOINT.
"""

from mmengine.config import read_base

with read_base():
    from .sd16 import *

autoencoder.update(weights='work_dirs/eqvae/sd16_rot_scale/iter_50000.pth')
store = 'data/latents/imagenet_256_sd16_eq'
