"""SiT-XL/2 on EQ-VAE's latents.

To reach (EQ-VAE v3, Tables 2 and 9): FID 16.1, sFID 4.2, IS 79.7, precision 0.64, recall 0.66 without guidance.
"""

from mmengine.config import read_base

with read_base():
    from .sit_xl2_sd_ft_ema import *
    from .._base_.latents.sd_eq import store, weights

model.autoencoder.update(weights=weights)
train_dataloader.dataset.update(root=store)
