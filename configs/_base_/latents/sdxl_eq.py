"""Latents of SDXL-VAE fine-tuned by `configs/eqvae/sdxl_rot_scale.py`: nobody has published its weights.

Their scale is measured before: python tools/latent_stats.py configs/eqvae/sdxl_rot_scale.py CHECKPOINT.
"""

from mmengine.config import read_base

with read_base():
    from .sdxl import *

autoencoder.update(weights='work_dirs/eqvae/sdxl_rot_scale/iter_50000.pth')
store = 'data/latents/imagenet_256_sdxl_eq'
