"""Latents of SD-VAE-FT-EMA, whose encoder is SD-VAE's: what DiT, SiT and REPA publish their numbers on."""

from mmengine.config import read_base

with read_base():
    from .sd import *

autoencoder.update(weights='eqzoo://sd-vae-ft-ema')
store = 'data/latents/imagenet_256_sd_ft_ema'
