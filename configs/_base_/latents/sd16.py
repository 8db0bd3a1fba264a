"""Latents of SD-VAE-16, whose scale has not been published: measure it, and set `model.autoencoder.scale`.

python tools/latent_stats.py configs/eqvae/sd16_plain.py eqzoo://sd-vae-16 --measure-only
"""

from mmengine.config import read_base

with read_base():
    from ..autoencoders.sd_vae_16 import autoencoder

latents = dict(latent_channels=16, latent_size=16)
store = 'data/latents/imagenet_256_sd16'
