"""DiT-XL/2 on SD-VAE-FT-EMA's latents.

To reach (EQ-VAE v3, Tables 2 and 9): FID 19.5, sFID 6.5, IS 77.5, precision 0.60, recall 0.60 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.generators.dit import *
    from .._base_.latents.sd import autoencoder, latents
    from .._base_.latents.sd_ft_ema import store, weights

model.generator.network.update(**latents)
model.update(autoencoder=autoencoder)
model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
