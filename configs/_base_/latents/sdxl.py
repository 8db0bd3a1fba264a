"""Latents of SDXL-VAE."""

from mmengine.config import read_base

with read_base():
    from ..autoencoders.sdxl_vae import autoencoder

latents = dict(latent_channels=4, latent_size=32)
store = 'data/latents/imagenet_256_sdxl'
