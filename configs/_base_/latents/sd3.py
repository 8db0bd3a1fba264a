"""Latents of SD3-VAE."""

from mmengine.config import read_base

with read_base():
    from ..autoencoders.sd3_vae import autoencoder

latents = dict(latent_channels=16, latent_size=32)
store = 'data/latents/imagenet_256_sd3'
