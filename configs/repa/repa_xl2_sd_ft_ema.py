"""REPA's SiT-XL/2 on SD-VAE-FT-EMA's latents.

To reach (EQ-VAE v3, Table 10): FID 7.9, sFID 5.1, IS 122.6, precision 0.70, recall 0.65 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.repa import *
    from .._base_.latents.sd_ft_ema import autoencoder, latents, store

model.generator.network.update(**latents)
model.update(autoencoder=autoencoder)
train_dataloader.dataset.update(root=store)
