"""REPA's SiT-XL/2 on SD-VAE-FT-EMA's latents.

To reach (EQ-VAE v3, Table 10): FID 7.9, sFID 5.1, IS 122.6, precision 0.70, recall 0.65 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.repa import *
    from .._base_.latents.sd import autoencoder, latents
    from .._base_.latents.sd_ft_ema import store, weights

model.generator.network.update(**latents)
model.update(autoencoder=autoencoder)
model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
