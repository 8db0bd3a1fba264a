"""REPA's SiT-XL/2 on EQ-VAE's latents.

To reach (EQ-VAE v3, Table 10): FID 7.5, sFID 5.0, IS 128.8, precision 0.71, recall 0.63 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.repa import *
    from .._base_.latents.sd import autoencoder, latents
    from .._base_.latents.sd_eq import store, weights

model.generator.network.update(**latents)
model.update(autoencoder=autoencoder)
model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
