"""SiT-B/2 on SD-VAE-FT-EMA's latents.

To reach (EQ-VAE v3, Table 2; SiT): FID 33.0 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.sit import *
    from .._base_.latents.sd import autoencoder, latents
    from .._base_.latents.sd_ft_ema import store, weights

model.generator.network.update(size='B', **latents)
model.update(autoencoder=autoencoder)
model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
