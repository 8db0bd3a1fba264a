"""Latents of EQ-VAE, which the paper scales as SD-VAE's: 0.18215 is kept."""

from mmengine.config import read_base

with read_base():
    from .sd import *

autoencoder.update(weights='eqzoo://eq-vae')
store = 'data/latents/imagenet_256_sd_eq'
