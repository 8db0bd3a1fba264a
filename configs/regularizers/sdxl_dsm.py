"""SDXL-VAE with decoder spectrum matching: the same low-pass of images and latents.

Spectrum Matching, arXiv 2603.14645; it claims EQ-VAE as a special case. Its
authors train without a KL divergence; here it stays, as in the fine-tuning of EQ-VAE.
Measured on TAEF2: docs/results.md.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sdxl_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder)
model.objective = dict(type='SpectralMask')
