"""SDXL-VAE's decoder only: latents stay the same to the bit, as models trained on them expect."""

from mmengine.config import read_base

with read_base():
    from .._base_.autoencoders.sdxl_vae import autoencoder
    from .._base_.eqvae import *

model.update(autoencoder=autoencoder, penalties=[], encoder_rate=0.0)
model.objective = dict(type='Plain')
